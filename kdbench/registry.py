"""Name -> method. Filled from the methods/ folder, from --plugins folders and from entry points `kdbench.methods`.

A file that fails to import stays in the registry as a broken entry: it hides nothing else and is an error only when
it is asked for. The registry is the project's only module-level mutable state.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin

from kdbench.errors import KdbenchError, unknown
from kdbench.method import Method, field_types

M = TypeVar("M", bound=type[Method])


@dataclass(frozen=True)
class Entry:
    """A registered method, or (cls None) a file that failed to import and why."""

    name: str
    origin: Path
    cls: type[Method] | None = None
    error: str = ""
    code: str = ""


_entries: dict[str, Entry] = {}


def register(cls: M) -> M:
    """Class decorator: makes ``cls`` a frozen dataclass and enters it under its lower-case name.

    Raises KdbenchError when the name is taken by a class of another file.
    """
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise KdbenchError(f"{cls.__name__} cannot be registered: it is no subclass of kdbench.method.Method")
    cls.name = cls.__name__.lower()
    frozen = dataclasses.dataclass(frozen=True)(cls)
    origin = Path(inspect.getfile(cls)).resolve()
    for key, kind in field_types(frozen).items():
        if kind not in (bool, int, float, str) and get_origin(kind) is not Literal:
            raise KdbenchError(
                f"{cls.name}.{key} must be annotated bool, int, float, str or a Literal, not {kind}"
            )
    taken = _entries.get(cls.name)
    if taken and taken.cls and (taken.origin, taken.cls.__module__) != (origin, cls.__module__):
        raise KdbenchError(f"two methods are called {cls.name!r}: {taken.origin} and {origin}; rename one")
    _entries[cls.name] = Entry(cls.name, origin, frozen, code=_hash(origin))
    return frozen  # type: ignore[return-value]


def load(plugins: Path | None = None) -> None:
    """Import every method file that is not imported yet: ours, entry points, and ``plugins`` (a folder or a file)."""
    package = importlib.import_module("kdbench.methods")
    for info in pkgutil.iter_modules(package.__path__):
        origin = Path(package.__path__[0]) / f"{info.name}.py"
        _import(info.name, origin, lambda name=info.name: importlib.import_module(f"kdbench.methods.{name}"))
    for point in entry_points(group="kdbench.methods"):
        _import(point.name, Path(point.value), point.load)
    if plugins is not None:
        if not plugins.exists():
            raise KdbenchError(
                f"plug-in folder {plugins} does not exist; --plugins takes a folder of .py files"
            )
        files = [plugins] if plugins.is_file() else sorted(plugins.glob("[!_]*.py"))
        if not files:
            raise KdbenchError(f"plug-in folder {plugins} holds no .py file")
        for file in files:
            _import(file.stem, file.resolve(), lambda file=file: _import_file(file.resolve()))


def _import(name: str, origin: Path, action: Any) -> None:
    try:
        action()
    except KdbenchError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # a plug-in may do anything at import; it is reported when asked for
        for half in [entry.name for entry in _entries.values() if entry.origin == origin.resolve()]:
            del _entries[half]
        reason = f"{type(error).__name__}: {error}"
        if name in _entries and _entries[name].origin != origin:
            raise KdbenchError(f"{origin} fails at import: {reason}") from error
        _entries[name] = Entry(name, origin, None, reason)


def _import_file(file: Path) -> None:
    module_name = f"kdbench_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise


def entries() -> list[Entry]:
    """All entries by name, broken ones among them."""
    return [_entries[name] for name in sorted(_entries)]


def names() -> list[str]:
    """The names of all methods that can be used."""
    return [entry.name for entry in entries() if entry.cls]


def entry(name: str) -> Entry:
    """What is known under ``name``, broken or not. Raises KdbenchError for an unknown name."""
    if name not in _entries:
        raise unknown("method", name, names())
    return _entries[name]


def get(name: str) -> type[Method]:
    """The class registered under ``name``. Raises KdbenchError for an unknown or broken one."""
    found = entry(name)
    if found.cls is None:
        raise KdbenchError(f"method {name!r} ({found.origin}) fails at import: {found.error}")
    return found.cls


def create(name: str, params: Mapping[str, Any]) -> Method:
    """The method ``name`` with ``params`` over its defaults. Raises KdbenchError for unknown keys and wrong types."""
    cls = get(name)
    for key in params:
        field_type(name, key)
    return cls(**params)


def field_type(name: str, key: str) -> Any:
    """The type of one hyperparameter. Raises KdbenchError that lists the fields if there is no such one."""
    kinds = field_types(get(name))
    if key not in kinds:
        raise KdbenchError(f"unknown parameter {key!r} for {name}; it has {', '.join(kinds) or 'none'}")
    return kinds[key]


def code_hash(name: str) -> str:
    """12 hex digits of the method's file, and of those beside it that it imports, without comments and docstrings.

    Of the code as it was loaded: tells an edited file from an old row.
    """
    get(name)
    return _entries[name].code


def _hash(origin: Path) -> str:
    dumps: dict[Path, str] = {}
    waiting = [origin]
    while waiting:
        file = waiting.pop()
        if file in dumps or not file.is_file():
            continue
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
                and ast.get_docstring(node) is not None
            ):
                node.body.pop(0)
            if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                waiting.append(file.parent / f"{node.module}.py")
        dumps[file] = ast.dump(tree)
    return hashlib.sha256("".join(dumps[file] for file in sorted(dumps)).encode()).hexdigest()[:12]
