"""Settings: a method's parameters and changes of the recipe for one pair, as `kdbench tune` finds them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.suites.pairs import usual_spelling
from kdbench.utils.toml_files import read_toml

FIELDS = {"method", "pair", "params", "recipe", "label"}


@dataclass(frozen=True)
class Setting:
    """Values for a method on a pair (``teacher:student``), over those of the suite; ``label``: the rows' variant."""

    method: str
    pair: str
    params: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)
    label: str = "tuned"


def write(settings: Iterable[Setting]) -> str:
    """The settings as TOML, which `read` takes."""
    return "\n".join(
        "[[settings]]\n"
        + "".join(
            f"{key} = {json.dumps(value, ensure_ascii=False)}\n"
            for key, value in (("method", each.method), ("pair", each.pair), ("label", each.label))
        )
        + f"params = {_inline(each.params)}\nrecipe = {_inline(each.recipe)}\n"
        for each in settings
    )


def _inline(values: Mapping[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"


def read(file: str | Path) -> list[Setting]:
    """The settings of a file. Raises KdbenchError for a file that is not there, no TOML or of another form."""
    if not isinstance(file, str | os.PathLike):
        raise KdbenchError(
            f"params is the path of a file that `kdbench tune` writes, got {file!r}; values of parameters are given by "
            "sets={'method.parameter': value}"
        )
    path = Path(file)
    try:
        tables = read_toml(path).get("settings")
    except OSError as error:
        raise KdbenchError(
            f"cannot read {path} ({error.strerror}); `kdbench tune` writes results/<suite>.tuned.toml"
        ) from error
    if not isinstance(tables, list) or not tables:
        raise KdbenchError(f"{path} holds no [[settings]]; `kdbench tune` writes such files")
    return [_setting(path, table) for table in tables]


def _setting(path: Path, table: Any) -> Setting:
    whole = isinstance(table, dict) and {"method", "pair", "params"} <= table.keys() <= FIELDS
    texts = whole and all(isinstance(table[key], str) for key in table.keys() - {"params", "recipe"})
    if not texts or not all(isinstance(table.get(key, {}), dict) for key in ("params", "recipe")):
        raise KdbenchError(
            f"{path}: each of its [[settings]] has method, pair and params, and may have recipe and label; got {table}"
        )
    return Setting(**{**table, "pair": usual_spelling(table["pair"])})
