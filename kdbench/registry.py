"""Name -> method. Filled from the methods/ folder, --plugins folders, entry points `kdbench.methods` and `register`.

A file that fails to import stays in the registry as a broken entry: it hides nothing else and is an error only when
it is used. The registry is the only module-level state that changes while kdbench runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar, get_origin, get_type_hints

import cloudpickle

from kdbench.errors import KdbenchError, first_line, unknown
from kdbench.method import OPTIONS, Method, field_types, parameter_types, refusal
from kdbench.utils import code_hash as codehash
from kdbench.utils import plugin_import as plugin_files
from kdbench.utils.method_facts import method_files

M = TypeVar("M", bound=type[Method])


@dataclass(frozen=True)
class Entry:
    """A registered method, or (cls None) a file that failed to import and why.

    origin: the file; of a class from a notebook or a prompt the name of its module in angle brackets.
    code: hash of the code as it was loaded; '' where its text cannot be read.
    """

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
    if not (isinstance(cls, type) and issubclass(cls, Method)) or cls is Method:
        raise KdbenchError(f"{cls.__name__} cannot be registered: it is no subclass of kdbench.method.Method")
    cls.name = cls.__name__.lower()
    if clashes := sorted(OPTIONS.keys() & inspect.get_annotations(cls)):
        raise KdbenchError(f"{cls.name}.{clashes[0]} is an option of every method; rename the parameter")
    _check_fields(cls)
    try:
        frozen = dataclasses.dataclass(frozen=True)(cls)
    except (TypeError, ValueError) as error:  # a field without a default, or with one that can change
        raise KdbenchError(f"{cls.name} cannot be registered: {error}") from error
    origin = _origin(cls)
    for key, kind in field_types(frozen).items():
        if kind not in (bool, int, float, str) and get_origin(kind) is not Literal:
            raise KdbenchError(
                f"{cls.name}.{key} must be annotated bool, int, float, str or a Literal, not {kind}"
            )
    taken = _entries.get(cls.name)
    if taken and taken.cls and (taken.origin, taken.cls.__module__) != (origin, cls.__module__):
        raise KdbenchError(f"two methods are called {cls.name!r}: {taken.origin} and {origin}; rename one")
    known = origin.is_file()
    code = (
        codehash.code_hash(origin, plugin_files.root(cls.__module__)) if known else codehash.class_hash(cls)
    )
    _entries[cls.name] = Entry(cls.name, origin, frozen, code=code)
    return frozen  # type: ignore[return-value]


def _check_fields(cls: type[Method]) -> None:
    """Raise KdbenchError for values that look like parameters and would be none."""
    bases = [base for base in cls.__mro__[1:] if issubclass(base, Method)]
    inherited = {field.name for base in bases for field in dataclasses.fields(base)}
    if bare := sorted(inherited & (vars(cls).keys() - inspect.get_annotations(cls).keys())):
        raise KdbenchError(
            f"{cls.name}.{bare[0]} stays as in the class above: a new default needs its annotation, as in "
            f"`{bare[0]}: float = ...`"
        )
    for base in bases:
        own = [key for key, kind in inspect.get_annotations(base).items() if "ClassVar" not in str(kind)]
        if own and "__dataclass_fields__" not in vars(base):
            raise KdbenchError(
                f"{cls.name} cannot have the parameter {own[0]} of {base.__name__}: decorate that class with "
                "@dataclasses.dataclass(frozen=True)"
            )


def adopt(cls: type[Method]) -> type[Method]:
    """The class, registered unless it is; for one that was defined outside of the folders that `load` reads."""
    known = _entries.get(cls.__name__.lower())
    return cls if known and known.cls is cls else register(cls)


def _origin(cls: type[Method]) -> Path:
    try:
        return Path(inspect.getfile(cls)).resolve()
    except (TypeError, OSError):  # a notebook, a prompt
        return Path(f"<{cls.__module__}>")


def portable(name: str) -> bool:
    """Whether another process can have the method: `load` finds it there, with the same plug-ins, or it is `packed`."""
    module = get(name).__module__
    installed = {point.value.partition(":")[0] for point in entry_points(group="kdbench.methods")}
    found = (
        module.startswith("kdbench.methods.") or plugin_files.root(module) is not None or module in installed
    )
    return found or bool(packed([name]))


def packed(names: Iterable[str]) -> bytes:
    """Those of the methods that were defined in a notebook or script, for `unpack` in another process; b"": none.

    The class goes by value, with the functions and values of ``__main__`` that it uses. Raises KdbenchError where one
    of these cannot go.
    """
    own = [entry(name) for name in names if get(name).__module__ == "__main__"]
    for base in {base for each in own for base in get(each.name).__mro__ if base.__module__ == "__main__"}:
        hints = get_type_hints(base)  # as texts they could not be resolved in the other process
        base.__annotations__ = {key: hints[key] for key in inspect.get_annotations(base)}
    try:
        return cloudpickle.dumps(own) if own else b""
    except Exception as error:  # whatever an object of the user's does when it is pickled
        raise KdbenchError(
            f"the method {own[0].name} cannot be sent to other processes ({first_line(error)}); use jobs=1 and one "
            "device, or save it in a file and name that with plugins="
        ) from error


def unpack(data: bytes) -> None:
    """Register what another process has `packed`."""
    for each in pickle.loads(data) if data else ():
        _entries[each.name] = each


def load(plugins: Path | None = None) -> None:
    """Import every method file that is not imported yet: ours, entry points, and ``plugins`` (a folder or a file)."""
    package = importlib.import_module("kdbench.methods")
    for info in pkgutil.iter_modules(package.__path__):
        origin = Path(package.__path__[0]) / f"{info.name}.py"
        _import(info.name, origin, lambda name=info.name: importlib.import_module(f"kdbench.methods.{name}"))
    for point in entry_points(group="kdbench.methods"):
        _import(point.name, Path(point.value), point.load)
    if plugins is not None:
        _load_plugins(_plugin_files(plugins))


def _plugin_files(place: Path) -> set[Path]:
    """The method files of a plug-in folder, or the one file."""
    if not place.exists():
        raise KdbenchError(f"plug-in folder {place} does not exist; --plugins takes a folder of .py files")
    if place.is_file():
        if place.suffix != ".py":
            raise KdbenchError(f"{place} is no .py file; --plugins takes one, or a folder of them")
        return {place.resolve()}
    files = {file.resolve() for file in method_files(place)}
    if not files:
        raise KdbenchError(f"plug-in folder {place} holds no .py file")
    return files


def plugin_code(place: Path) -> set[Path]:
    """The files that `load` reads of ``place``: the plug-ins, and what they import from their folder."""
    files = _plugin_files(place)
    for file in sorted(files):
        with contextlib.suppress(SyntaxError, ValueError):  # a broken plug-in, which says so when it is used
            files |= codehash.reached(file, file.parent).keys()
    return files


def _load_plugins(files: set[Path]) -> None:
    for folder in {file.parent for file in files}:
        files = files | _forget_edited(folder)
    ours = {entry.origin for entry in _entries.values() if entry.cls and not _folder(entry)}
    for file in sorted(files - ours):
        _import(file.stem, file, lambda file=file: plugin_files.load(file))


def _forget_edited(folder: Path) -> set[Path]:
    """The plug-ins of ``folder`` that are to be imported again: all, where the code of one has changed, else none."""
    loaded = [entry for entry in _entries.values() if _folder(entry) == folder]
    return set() if all(entry.code == _code_now(entry) for entry in loaded) else _forget(folder)


def _forget(folder: Path) -> set[Path]:
    """Forget the plug-ins of ``folder`` and all that they imported from there; returns their files."""
    loaded = [entry for entry in _entries.values() if _folder(entry) == folder]
    plugin_files.forget(folder)
    for entry in loaded:
        del _entries[entry.name]
    return {entry.origin for entry in loaded if entry.origin.parent == folder and entry.origin.is_file()}


def renew(name: str) -> None:
    """Import a method's plug-in anew, as another process would: what it keeps in classes and modules is gone."""
    if folder := plugin_files.root(get(name).__module__):
        _load_plugins(_forget(folder))


def _folder(entry: Entry) -> Path | None:
    """The plug-in folder that an entry comes from; of a broken one, the folder of its file."""
    return plugin_files.root(entry.cls.__module__) if entry.cls else entry.origin.parent


def _code_now(entry: Entry) -> str:
    try:
        return codehash.code_hash(entry.origin, _folder(entry))
    except (SyntaxError, ValueError, OSError):
        return ""


def _import(name: str, origin: Path, action: Any) -> None:
    try:
        action()
    except KdbenchError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # a plug-in may do anything at import; it is reported when the method is used
        for half in [entry.name for entry in _entries.values() if entry.origin == origin.resolve()]:
            del _entries[half]
        reason = f"{type(error).__name__}: {error}"
        if name in _entries and _entries[name].origin != origin:
            raise KdbenchError(f"{origin} fails at import: {reason}") from error
        broken = Entry(name, origin, None, reason)
        _entries[name] = dataclasses.replace(broken, code=_code_now(broken))


def entries() -> list[Entry]:
    """All entries by name, broken ones among them."""
    return [_entries[name] for name in sorted(_entries)]


def names() -> list[str]:
    """The names of all methods that can be used."""
    return [entry.name for entry in entries() if entry.cls]


def entry(name: str) -> Entry:
    """The entry called ``name``, broken or not. Raises KdbenchError for an unknown name."""
    if name not in _entries:
        raise unknown("method", name, names())
    return _entries[name]


def get(name: str) -> type[Method]:
    """The class registered under ``name``. Raises KdbenchError for an unknown or broken one."""
    known = entry(name)
    if known.cls is None:
        raise KdbenchError(f"method {name!r} ({known.origin}) fails at import: {known.error}")
    return known.cls


def create(name: str, params: Mapping[str, Any]) -> Method:
    """The method ``name`` with ``params`` over its defaults. Raises KdbenchError for unknown keys and wrong types."""
    cls = get(name)
    for key in params:
        field_type(name, key)
    return cls(**params)


def field_type(name: str, key: str) -> Any:
    """The type of one hyperparameter or option. Raises KdbenchError that lists them if there is no such one."""
    kinds = parameter_types(get(name))
    if key not in kinds:
        known = [*field_types(get(name)), *options(name)]
        raise KdbenchError(f"unknown parameter {key!r} for {name}; it has {', '.join(known) or 'none'}")
    return kinds[key]


def options(name: str) -> list[str]:
    """The options (of `kdbench.method.OPTIONS`) that the method takes with its default parameters."""
    return [option for option in OPTIONS if refusal(get(name)(), option) is None]


def code_hash(name: str) -> str:
    """12 hex digits of the method's file, and of those of its folder that it imports, without documentation.

    Of the code as it was loaded: tells an edited file from an old row. Of a class without a file the hash is of its own
    text; '' where that cannot be read.
    """
    get(name)
    return _entries[name].code
