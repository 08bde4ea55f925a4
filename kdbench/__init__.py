"""kdbench: knowledge-distillation methods under one harness, one recipe, one table.

>>> import kdbench
>>> outcome = kdbench.run("digits", methods=["kd", "bickd"], seeds=[0])  # doctest: +SKIP
>>> print(outcome.leaderboard())  # doctest: +SKIP
>>> kdbench.write_report("digits")  # doctest: +SKIP
"""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench.utils.system import check_system

if TYPE_CHECKING:
    from kdbench.method import Method, Needs
    from kdbench.registry import register
    from kdbench.report.write import write_report
    from kdbench.results.choice import Choice
    from kdbench.results.load import load_results
    from kdbench.runner.export import export
    from kdbench.runner.run import run
    from kdbench.runner.tuning import tune
    from kdbench.suites import DataSpec, ModelSpec, Pair, Recipe, Suite
    from kdbench.suites.schema import View
    from kdbench.train.distiller import Distiller

__version__ = "0.1.0"

# kdbench.methods is the top-level folder methods/: setup.py puts it into a wheel. In a source checkout, installed as
# editable or not at all, the parent folder serves it.
_here = Path(__file__).resolve().parent
if not (_here / "methods").is_dir() and (_here.parent / "setup.cfg").is_file():
    __path__.append(str(_here.parent))


_LAZY = {
    "run": "kdbench.runner.run",
    "tune": "kdbench.runner.tuning",
    "export": "kdbench.runner.export",
    "load_results": "kdbench.results.load",
    "write_report": "kdbench.report.write",
    "Choice": "kdbench.results.choice",
    "Suite": "kdbench.suites",
    "Pair": "kdbench.suites",
    "Recipe": "kdbench.suites",
    "DataSpec": "kdbench.suites",
    "ModelSpec": "kdbench.suites",
    "View": "kdbench.suites.schema",
    "Distiller": "kdbench.train.distiller",
    "Method": "kdbench.method",
    "Needs": "kdbench.method",
    "register": "kdbench.registry",
}
__all__ = [
    "Choice",
    "DataSpec",
    "Distiller",
    "Method",
    "ModelSpec",
    "Needs",
    "Pair",
    "Recipe",
    "Suite",
    "View",
    "export",
    "load_results",
    "register",
    "run",
    "tune",
    "write_report",
]


def __getattr__(name: str) -> Any:  # torch is imported only when it is used: `kdbench --help` stays fast
    if name not in _LAZY:
        raise AttributeError(f"module 'kdbench' has no attribute {name!r}")
    check_system()
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
