"""Files that are either complete or absent, however the process that writes them ends. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomic(path: Path, content: bytes, sync: bool = False) -> None:
    """Write ``content`` so that a crash leaves the old file or the new one; folders are created as needed.

    sync: a crash of the machine, too. Raises OSError (a full disk ...), and leaves no temporary file then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
