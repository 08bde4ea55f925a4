"""Which runs may be compared with published numbers: the literature's recipe, in full, on a pair of the suite.

A suite file is read here without its loader, which needs torch; a test holds the two together.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kdbench
from kdbench.report.frames import Table

FOLDER = Path(kdbench.__file__).parent / "suites"
SUITES = ("cifar100", "cifar100-twoview", "imagenet", "tiny-imagenet")  # those that follow the literature


@dataclass(frozen=True)
class Literature:
    """What the report must know of a suite: its recipe's id and length, and its pairs."""

    suite: str
    recipe_id: str
    epochs: int
    protocol: str  # of the published numbers that the suite follows
    pairs: frozenset[tuple[str, str]]  # (teacher, student)

    def why_not(self, table: Table) -> str:
        """Why no run of this table can be compared with published numbers, or ''."""
        if table.recipe_id == self.recipe_id:
            return ""
        if table.epochs != str(self.epochs):
            return f"{table.epochs} epochs, the literature's recipe has {self.epochs}"
        return f"the recipe is not that of suite {self.suite}"

    def has(self, teacher: str, student: str) -> bool:
        """Whether the suite has the pair (or, without a teacher, the student), and so a recipe for it."""
        return any(s == student and teacher in ("", t) for t, s in self.pairs)


def literature(suite: str, folder: Path = FOLDER) -> Literature | None:
    """The suite of that name, where it follows the literature."""
    if suite not in SUITES or not (folder / f"{suite}.toml").is_file():
        return None
    table = _read(suite, folder)
    recipe = table["recipe"]
    return Literature(
        suite,
        _recipe_id(recipe),
        recipe["reference_epochs"],
        "twoview" if recipe.get("train_views") else "crd",
        frozenset((pair["teacher"], pair["student"]) for pair in table["pairs"]),
    )


def _read(suite: str, folder: Path) -> dict[str, Any]:
    """The suite's file over its base's."""
    own = tomllib.loads((folder / f"{suite}.toml").read_text("utf-8-sig"))
    base = _read(own["base"], folder) if "base" in own else {}
    return {**base, **own, "recipe": {**base.get("recipe", {}), **own.get("recipe", {})}}


def _recipe_id(recipe: Mapping[str, Any]) -> str:
    """As `kdbench.plan.recipe_id` of a recipe in steps."""
    told = {key: value for key, value in recipe.items() if key not in ("eval_every", "peak")}
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]
