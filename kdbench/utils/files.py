"""Files that are either complete or absent, however the process that writes them ends. Imports no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

BESIDE_ROWS = (".curves", ".trials", ".tuning")  # how the names of a suite's other files end, before .csv


def file_stem(name: str) -> str:
    """A network's name as that of a file: one with a colon, which may hold a path, as a single word.

    >>> file_stem("local-dir:../nets/a b"), file_stem("timm/resnet18")
    ('local-dir_.._nets_a_b', 'timm/resnet18')
    """
    return re.sub(r"[^\w.-]+", "_", name) if ":" in name else name


def write_atomic(path: Path, content: bytes, sync: bool = False) -> None:
    """Write ``content`` so that a crash leaves the old file or the new one; folders are created as needed.

    sync: a crash of the machine, too. Raises OSError (a full disk ...), and leaves no temporary file then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
