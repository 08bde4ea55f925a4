"""kdbench: knowledge-distillation methods under one harness, one recipe, one table.

>>> from kdbench import run, write_report
>>> run("digits", methods=["kd", "bickd"], seeds=[0])
>>> print(write_report("digits"))
"""

import importlib
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# kdbench.methods is the top-level folder methods/: setup.py puts it into a wheel. In a source checkout, installed as
# editable or not at all, the parent folder serves it.
_here = Path(__file__).resolve().parent
if not (_here / "methods").is_dir() and (_here.parent / "setup.cfg").is_file():
    __path__.append(str(_here.parent))


_LAZY = {"run": ("kdbench.runner.run", "run"), "write_report": ("kdbench.report.write", "write_report")}


def __getattr__(name: str) -> Any:  # torch is imported only when it is used: `kdbench --help` stays fast
    if name not in _LAZY:
        raise AttributeError(f"module 'kdbench' has no attribute {name!r}")
    module, member = _LAZY[name]
    return getattr(importlib.import_module(module), member)
