"""Suite files -> `Suite`: one TOML file per suite, read strictly, which may build on another (``base``).

A key that is unknown, missing or of the wrong type is an error that names the file, the key and the nearest right one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kdbench.errors import KdbenchError, unknown
from kdbench.suites.checks import check_data, check_recipe
from kdbench.suites.pairs import read_pair, usual_spelling
from kdbench.suites.schema import DataSpec, Pair, Recipe, Suite, find_view
from kdbench.utils.field_values import as_float, as_int
from kdbench.utils.files import BESIDE_ROWS
from kdbench.utils.toml_files import read_toml

Params = Mapping[str, Mapping[str, Any]]  # method -> parameter -> value

FOLDER = Path(__file__).parent / "builtin"
MERGED = (
    "views",
    "recipe",
    "teacher_recipe",
    "finetune_recipe",
    "models",
    "teachers",
    "params",
    "pair_params",
)  # entry by entry
OF_DATASET = ("teachers", "pair_params")  # published for one data set: never inherited by another
LOCAL = "local-dir:"  # a network that a folder holds
PLACES = ("folder", "npz")  # where the user's own data set is


def names() -> list[str]:
    """The suites that ship with kdbench."""
    return sorted(file.stem for file in FOLDER.glob("[!.]*.toml"))


def load(name: str) -> Suite:
    """Load the suite of that name, or the one in that .toml file. Raises KdbenchError for every mistake in it."""
    file = find(name)
    table, where = read(file)
    shared = _value(Mapping[str, Params], table.pop("pair_params", {}), f"{where}: pair_params")
    shared = {usual_spelling(pair): params for pair, params in shared.items()}
    suite = _build(Suite, table, where)
    pairs = tuple(_with_shared_params(pair, shared.get(str(pair), {})) for pair in suite.pairs)
    suite = dataclasses.replace(suite, name=file.stem, pairs=pairs)
    _check_parts(suite, where)
    _check_own_names(suite, parse(file), where)
    return suite


def name_of(suite: str | os.PathLike | Suite) -> str:
    """The name that rows carry of a suite that is given by name, by file or as an object."""
    if isinstance(suite, Suite):
        return suite.name
    if not isinstance(suite, str | os.PathLike):
        raise KdbenchError(f"suite takes a name, a .toml file or a kdbench.Suite, got {suite!r}")
    name = os.fspath(suite)
    return Path(name).stem if name.lower().endswith(".toml") else name


def validated(suite: Suite) -> Suite:
    """Check a suite that was built in Python as strictly as a file's. Raises KdbenchError for every mistake in it."""
    if not isinstance(suite.name, str) or not suite.name or "/" in suite.name:
        raise KdbenchError(
            f"a suite needs a name that can be a file's (its rows go to <name>.csv), got {suite.name!r}; build it with "
            "Suite(..., name='mine')"
        )
    where = f"suite {suite.name}"
    table = _table(suite)
    _expand_pairs(table, where)
    checked = dataclasses.replace(_build(Suite, table, where), name=suite.name)
    _check_parts(checked, where)
    return checked


def _table(value: Any) -> Any:
    """A dataclass as the table that a file would hold."""
    if dataclasses.is_dataclass(value):
        return {name: _table(getattr(value, name)) for name in file_fields(type(value))}
    if isinstance(value, Mapping):
        return {key: _table(each) for key, each in value.items()}
    return [_table(each) for each in value] if isinstance(value, list | tuple) else value


def _check_parts(suite: Suite, where: str) -> None:
    """Recipes, views and lists must fit each other."""
    for pair in suite.pairs:
        recipe_of(suite, pair, where)
    teachers = replace_recipe(suite.recipe, suite.teacher_recipe, f"{where}: teacher_recipe")
    replace_recipe(teachers, suite.finetune_recipe, f"{where}: finetune_recipe")
    for view in suite.recipe.train_views:
        if find_view(suite.views, view) is None:
            raise unknown("view", view, suite.views, f" in {where}: recipe: train_views")
    _check_lists(suite, where)


def _with_shared_params(pair: Pair, shared: Params) -> Pair:
    """The pair with the parameters of ``shared`` (method -> parameter -> value) under those that it says itself."""
    methods = dict.fromkeys([*shared, *pair.params])
    merged = {method: {**shared.get(method, {}), **pair.params.get(method, {})} for method in methods}
    return dataclasses.replace(pair, params=merged)


def _check_own_names(suite: Suite, own: Mapping[str, Any], where: str) -> None:
    """Teachers and pairs that the suite's own file names must exist; those of its base may be unused here."""
    for key, kind, hint, known, spelled in (
        ("teachers", "teacher", ": no pair has it", {pair.teacher for pair in suite.pairs}, str),
        ("pair_params", "pair", "", {str(pair) for pair in suite.pairs}, usual_spelling),
    ):
        for name in own.get(key, {}):
            if spelled(name) not in known:
                raise unknown(kind, name, known, f" in {where}: {key}{hint}")
    usual = {"weak", "strong", *suite.views} - own.get("views", {}).keys()
    for name in own.get("views", {}):
        near = difflib.get_close_matches(name, usual, 1, 0.7)
        if near and not name.startswith(near[0]):
            raise KdbenchError(f"view {name!r} in {where} is hardly meant beside {near[0]!r}; rename one")
    _check_units(suite.recipe, own.get("recipe", {}), where)


def _check_units(recipe: Recipe, own: Mapping[str, Any], where: str) -> None:
    """Refuse milestones that are written in epochs of the run where the base counts in others."""
    inside = recipe.milestones and max(recipe.milestones) <= recipe.epochs < recipe.reference_epochs
    if "milestones" in own and "reference_epochs" not in own and inside:
        raise KdbenchError(
            f"{where}: recipe: milestones {list(recipe.milestones)} would be epochs of {recipe.reference_epochs} "
            f"(reference_epochs) in a run of {recipe.epochs}; write reference_epochs too: {recipe.epochs} where they "
            "are epochs of this run"
        )


def find(name: str, folder: Path = Path(), where: str = "") -> Path:
    """The file of a shipped suite, or the .toml file ``name`` (relative to ``folder``)."""
    if name.lower().endswith(".toml"):
        file = folder / Path(name).expanduser()
        if not file.is_file():
            raise KdbenchError(f"suite file {file} does not exist{where}")
        if file.stem.encode(errors="ignore").decode() != file.stem:  # it would be part of every table
            raise KdbenchError(f"the name of suite file {file.name!r} is not UTF-8; rename it")
        if file.stem.lower().endswith(BESIDE_ROWS):
            endings = ", ".join(BESIDE_ROWS)
            raise KdbenchError(
                f"the name of suite file {file.name!r} ends as those of results ({endings}); rename it"
            )
        return file
    if name not in names():
        if (folder / f"{name}.toml").is_file():
            raise KdbenchError(f"unknown suite {name!r}{where}; for the file {name}.toml type the whole name")
        raise unknown("suite", name, names(), where)
    return FOLDER / f"{name}.toml"


def read(file: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], str]:
    """The tables of ``file`` merged over those of its ``base``, and the names of these files for errors.

    above: the files that build on this one. Raises KdbenchError for a file that is not TOML, an unknown base and a
    circle of bases.
    """
    if file.resolve() in above:
        chain = " -> ".join(part.name for part in (*above, file))
        raise KdbenchError(f"{above[0]}: the bases go round in a circle ({chain}); remove one of them")
    own = parse(file)
    if isinstance(own.get("dataset"), dict):
        own["dataset"] = _located(own["dataset"], file)
    _expand_pairs(own, str(file))
    for table, key in _networks(own):
        if isinstance(table, dict) and isinstance(table.get(key), str):
            table[key] = _located_network(table[key], file)
    name = own.pop("base", None)
    if name is None:
        return own, str(file)
    if not isinstance(name, str):
        raise KdbenchError(f"{file}: base must be the name of a suite or a .toml file, got {name!r}")
    base, where = read(find(name, file.parent, f" (base of {file})"), (*above, file.resolve()))
    return merge(base, own), f"{file} on {where}"


def parse(file: Path) -> dict[str, Any]:
    """Parse the file alone, without its base."""
    try:
        return read_toml(file)
    except OSError as error:
        raise KdbenchError(f"suite file {file} cannot be read ({error.strerror})") from error


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Merge ``own`` over ``base``: tables entry by entry; lists (pairs too) and texts are replaced as a whole.

    Another data set replaces the base's whole ``dataset``, and with it the tables `OF_DATASET`.
    """
    merged = {**base, **own}
    old, new = base.get("dataset"), own.get("dataset")
    tables = list(MERGED)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if not any(key in new for key in PLACES) and new.get("name", old.get("name")) == old.get("name"):
            tables.append("dataset")
        else:
            for key in OF_DATASET:
                tables.remove(key)
                merged[key] = own.get(key, {})
    for key in tables:
        if isinstance(base.get(key), Mapping) and isinstance(own.get(key), Mapping):
            merged[key] = {**base[key], **own[key]}
    return merged


def _located(table: dict[str, Any], file: Path) -> dict[str, Any]:
    """A dataset table with absolute paths (those in the file are relative to its folder) and a name."""
    located = dict(table)
    for key in PLACES:
        if isinstance(path := table.get(key), str):
            located[key] = os.path.abspath(file.parent / Path(path).expanduser())
            located.setdefault("name", Path(located[key]).name.removesuffix(".npz"))
    return located


def _expand_pairs(table: dict[str, Any], where: str) -> None:
    """Pairs that are written as texts or two names become tables."""
    if isinstance(pairs := table.get("pairs"), list):
        table["pairs"] = [_pair_table(pair, f" in {where}: pairs[{i}]") for i, pair in enumerate(pairs)]


def _pair_table(pair: Any, where: str) -> Any:
    return (
        pair
        if isinstance(pair, dict)
        else dict(zip(("teacher", "student"), read_pair(pair, where), strict=True))
    )


def _networks(own: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """The places of a file that name a network: a table and its key."""
    tables, pairs = own.get("models"), own.get("pairs")
    for table in tables.values() if isinstance(tables, dict) else ():
        yield table, "arch"
    for pair in pairs if isinstance(pairs, list) else ():
        yield pair, "teacher"
        yield pair, "student"


def _located_network(name: str, file: Path) -> str:
    """A network of a local folder with an absolute path; others as they are."""
    if not name.startswith(LOCAL):
        return name
    return LOCAL + os.path.abspath(file.parent / Path(name.removeprefix(LOCAL)).expanduser())


def file_fields(cls: type) -> dict[str, dataclasses.Field]:
    """The fields of a dataclass that a suite file may set, by name."""
    return {f.name: f for f in dataclasses.fields(cls) if f.metadata.get("file", True)}


def recipe_of(suite: Suite, pair: Pair, where: str = "") -> Recipe:
    """The recipe on a pair: what the pair says over the suite's. ``where``: that is written; default: the suite."""
    return replace_recipe(suite.recipe, pair.recipe, f"{where or suite.name}: pair {pair}")


def replace_recipe(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """``recipe`` with some fields changed, each checked by name and type."""
    current = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    return _build(Recipe, {**current, **changes}, where)


def _build(cls: type, table: Any, where: str) -> Any:
    """A dataclass from a TOML table, strictly."""
    if not isinstance(table, Mapping):
        raise KdbenchError(f"{where} must be a table, got {table!r}")
    hints = get_type_hints(cls)
    fields = file_fields(cls)
    for key in table:
        if key not in fields:
            raise unknown("key", key, fields, f" in {where}")
    for key, spec in fields.items():
        optional = spec.default is not dataclasses.MISSING or spec.default_factory is not dataclasses.MISSING
        if key not in table and not optional:
            raise KdbenchError(f"missing key {key!r} in {where}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        instance = cls(**values)
    except KdbenchError as error:  # a View checks itself
        raise KdbenchError(f"{where}: {error}") from error
    if cls is Recipe:
        check_recipe(instance, where)
    if cls is DataSpec:
        check_data(instance, where)
    return instance


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in args:
            raise unknown("value", str(value), args, f" in {where}")
        return value
    if origin in (Union, types.UnionType):  # X | None
        return None if value is None else _value(args[0], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise KdbenchError(f"{where} must be a list, got {value!r}")
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise KdbenchError(f"{where} must be a table, got {value!r}")
        return {key: _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is Any:
        return value
    if kind is float and (real := as_float(value)) is not None:
        if not math.isfinite(real):
            raise KdbenchError(f"{where} must be finite, got {value}")
        return real
    if kind is int and (whole := as_int(value)) is not None:
        return whole
    if type(value) is not kind:
        raise KdbenchError(f"{where} must be of type {kind.__name__}, got {value!r}")
    return value


def _check_lists(suite: Suite, where: str) -> None:
    """Refuse repeated entries: they may contradict each other, and would be one row of a table; and no seed."""
    if not suite.seeds:
        raise KdbenchError(f"{where}: seeds is empty; seeds = [0] trains each method once")
    for name, teacher in suite.teachers.items():
        if not 0 <= teacher.top1 <= 100 or 0 < teacher.top1 < 1:
            raise KdbenchError(f"{where}: teachers: {name}: top1 is in percent, got {teacher.top1:g}")
    for key in ("methods", "seeds", "pairs"):
        texts = [str(entry) for entry in getattr(suite, key)]
        for text in texts:
            if texts.count(text) > 1:
                raise KdbenchError(f"{where}: {key} lists {text} twice; remove one of the two")
