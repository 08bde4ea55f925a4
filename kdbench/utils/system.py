"""The systems that kdbench runs on. Imports nothing that another system lacks."""

from __future__ import annotations

import sys

from kdbench.errors import KdbenchError


def check_system() -> None:
    """Raise KdbenchError on Windows, where no file lock keeps two processes from training a cell twice."""
    if sys.platform == "win32":
        raise KdbenchError(
            "kdbench does not run on Windows, which lacks its file locks; install it in WSL 2 or on Linux"
        )
