"""TOML files as editors leave them. Imports no torch."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError


def read_toml(file: Path) -> dict[str, Any]:
    """Parse ``file``. TOML is UTF-8, and editors on Windows put a mark (BOM) before it.

    Raises KdbenchError where it is neither, OSError where it cannot be read.
    """
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise KdbenchError(f"{file} is not UTF-8 ({error}); save it in that encoding") from error
    except tomllib.TOMLDecodeError as error:
        raise KdbenchError(f"{file} is not valid TOML: {error}") from error
