"""How a plug-in's file is imported: as a module of a package that stands for its folder alone.

So ``from .terms import f``, and ``import terms`` too, find the file beside the plug-in, whatever else goes by that
name: an installed package, or a file of another plug-in folder in the same session.
"""

from __future__ import annotations

import builtins
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from kdbench.utils.code_hash import beside

PREFIX = "kdbench_plugin_"


def load(file: Path) -> None:
    """Import the plug-in ``file`` (an absolute path) unless that is done. Raises whatever the file does.

    The folder's own __init__.py is not run.
    """
    package = _package(file.parent)
    name = f"{package}.{file.stem.replace('.', '_')}"
    if name in sys.modules:
        return
    if package not in sys.modules:
        sys.modules[package] = ModuleType(package)
        sys.modules[package].__path__ = [str(file.parent)]
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
    spec = spec_from_file_location(name, file, loader=_Loader(name, str(file)))
    assert spec is not None
    sys.modules[name] = module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    except BaseException:
        sys.modules.pop(name, None)
        raise


def forget(folder: Path) -> None:
    """Have the next import read again all that plug-ins imported from ``folder``."""
    package = _package(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        del sys.modules[name]


def root(module: str) -> Path | None:
    """The plug-in folder that a module of this name comes from, or None."""
    package = module.partition(".")[0]
    if not package.startswith(PREFIX) or package not in sys.modules:
        return None
    return Path(next(iter(sys.modules[package].__path__)))


def _package(folder: Path) -> str:
    return PREFIX + hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]


class _Finder:
    """Finds the modules of a plug-in's package, for `_Loader`."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        if path is None or not name.startswith(PREFIX):
            return None
        return FileFinder(next(iter(path)), (_Loader, [".py"])).find_spec(name)


class _Loader(SourceFileLoader):
    """Compiles the file as it is (a .pyc is held fresh by seconds and size) and lets it import from its folder."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _importer(module.__name__)}
        super().exec_module(module)


def _importer(module: str) -> Callable[..., Any]:
    """What an import statement of ``module`` calls: first the plug-in's folder, then all the rest."""
    package = module.partition(".")[0]
    folder = root(module)
    assert folder is not None

    def imported(
        name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> ModuleType:
        head = name.partition(".")[0]
        if level or not beside(folder, head):
            return builtins.__import__(name, globals, locals, fromlist, level)
        result = builtins.__import__(f"{package}.{name}", globals, locals, fromlist or ("__name__",))
        return result if fromlist else sys.modules[f"{package}.{head}"]

    return imported
