"""Suite files: where they lie, and how one builds on another (``base``)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError, unknown

FOLDER = Path(__file__).parent / "builtin"
MERGED = ("views", "recipe", "teacher_recipe", "models", "teachers", "params")  # entry by entry
PLACES = ("folder", "npz")  # where a data set of one's own lies


def names() -> list[str]:
    """The suites that ship with kdbench."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def find(name: str, folder: Path = Path(), where: str = "") -> Path:
    """The file of a shipped suite, or the .toml file ``name`` (seen from ``folder``)."""
    if name.lower().endswith(".toml"):
        file = folder / Path(name).expanduser()
        if not file.is_file():
            raise KdbenchError(f"suite file {file} does not exist{where}")
        if file.stem.encode(errors="ignore").decode() != file.stem:  # it would be part of every table
            raise KdbenchError(f"the name of suite file {file.name!r} is not UTF-8; rename it")
        return file
    if name not in names():
        if (folder / f"{name}.toml").is_file():
            raise KdbenchError(f"unknown suite {name!r}{where}; for the file {name}.toml type the whole name")
        raise unknown("suite", name, names(), where)
    return FOLDER / f"{name}.toml"


def read(file: Path, above: tuple[Path, ...] = ()) -> tuple[dict[str, Any], str]:
    """What ``file`` says over what its ``base`` says, and for errors: which files said it.

    ``above`` are the files that are built on this one. Raises KdbenchError for a file that is not TOML, an unknown
    base, and a circle of bases.
    """
    if file.resolve() in above:
        chain = " -> ".join(part.name for part in (*above, file))
        raise KdbenchError(f"{above[0]}: the bases go round in a circle ({chain}); remove one of them")
    own = parse(file)
    if isinstance(own.get("dataset"), dict):
        own["dataset"] = _located(own["dataset"], file)
    name = own.pop("base", None)
    if name is None:
        return own, str(file)
    if not isinstance(name, str):
        raise KdbenchError(f"{file}: base must be the name of a suite or a .toml file, got {name!r}")
    base, where = read(find(name, file.parent, f" (base of {file})"), (*above, file.resolve()))
    return merge(base, own), f"{file} on {where}"


def parse(file: Path) -> dict[str, Any]:
    """What the file itself says; TOML is UTF-8, and editors on Windows put a mark (BOM) before it."""
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise KdbenchError(f"{file} is not UTF-8 ({error}); save it in that encoding") from error
    except tomllib.TOMLDecodeError as error:
        raise KdbenchError(f"{file} is not valid TOML: {error}") from error
    except OSError as error:
        raise KdbenchError(f"suite file {file} cannot be read ({error.strerror})") from error


def merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` over ``base``: tables entry by entry, lists (pairs too) and texts as a whole.

    Another data set replaces the base's whole ``dataset``, and with it the accuracies expected of ``teachers``.
    """
    merged = {**base, **own}
    old, new = base.get("dataset"), own.get("dataset")
    tables = list(MERGED)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        if not any(key in new for key in PLACES) and new.get("name", old.get("name")) == old.get("name"):
            tables.append("dataset")
        else:
            tables.remove("teachers")
            merged["teachers"] = own.get("teachers", {})
    for key in tables:
        if isinstance(base.get(key), Mapping) and isinstance(own.get(key), Mapping):
            merged[key] = {**base[key], **own[key]}
    return merged


def _located(table: dict[str, Any], file: Path) -> dict[str, Any]:
    """A dataset table with absolute paths (those in the file are seen from its folder) and a name."""
    located = dict(table)
    for key in PLACES:
        if isinstance(path := table.get(key), str):
            located[key] = os.path.abspath(file.parent / Path(path).expanduser())
            located.setdefault("name", Path(located[key]).name.removesuffix(".npz"))
    return located
