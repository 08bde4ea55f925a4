"""Which runs may be compared with published numbers: the literature's recipe, in full, on a pair of the suite.

A suite file is read here without its loader, which needs torch; a test holds the two together.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kdbench
from kdbench.report.tables import Table
from kdbench.utils.hashing import digest

FOLDER = Path(kdbench.__file__).parent / "suites" / "builtin"
SPLITS = {"cifar100": "f592eea6211a"}  # data set -> the hash of its true images and their test split
TESTED = {"cifar100": 10_000, "imagenet": 50_000, "tiny-imagenet": 10_000}  # images of the true test part
UNVERIFIED = "kdbench does not know the hash of {}'s true images: only their number was checked."
SUITES = ("cifar100", "cifar100-twoview", "imagenet", "tiny-imagenet")  # those that follow the literature
STEP, ONECYCLE = ("milestones", "decay"), ("peak",)  # the options of one schedule alone


@dataclass(frozen=True)
class Literature:
    """What the report must know of a suite: its recipe's id and length, and its pairs."""

    suite: str
    recipe_id: str
    epochs: int
    milestone: int  # the last one: epochs that are trained before the last decay
    dataset: str
    protocol: str  # of the published numbers that the suite follows
    pairs: frozenset[tuple[str, str]]  # (teacher, student)

    def why_not(self, table: Table) -> str:
        """Why no run of this table can be compared with published numbers, or ''.

        The recipe's id holds epochs and precision too.
        """
        if table.recipe_id == self.recipe_id:
            return self.other_images(table)
        if table.epochs != str(self.epochs):
            return f"{table.epochs} epochs, the literature's recipe has {self.epochs}"
        return f"the recipe is not that of suite {self.suite}"

    def other_images(self, table: Table) -> str:
        """Why the table's images are not the literature's, or ''.

        By the split's hash; where the true one is not known, by the number of images tested, which any ``--per-class``
        changes.
        """
        rows, name = table.finished, self.dataset
        if name in SPLITS:
            if (rows["split_id"] == "").any():
                return "the rows do not say on which images"
            same = rows["split_id"] == SPLITS[name]
            return "" if same.all() else f"the images are not those of {name} (some of them, or others)"
        counts = rows["tested"].drop_duplicates()
        if counts.isna().any():
            return "the images are not verified: the rows do not say how many were tested"
        other = [f"{count:g}" for count in counts if count != TESTED[name]]
        return f"{'/'.join(other)} test images, {name} has {TESTED[name]}" if other else ""

    @property
    def caution(self) -> str:
        """What is to be said of any comparison on this data set, or ''."""
        return "" if self.dataset in SPLITS else UNVERIFIED.format(self.dataset)

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
        recipe["milestones"][-1],
        table["dataset"]["name"],
        "twoview" if recipe.get("train_views") else "crd",
        frozenset((pair["teacher"], pair["student"]) for pair in table["pairs"]),
    )


def _read(suite: str, folder: Path) -> dict[str, Any]:
    """The suite's file over its base's."""
    own = tomllib.loads((folder / f"{suite}.toml").read_text("utf-8-sig"))
    base = _read(own["base"], folder) if "base" in own else {}
    return {**base, **own, "recipe": {**base.get("recipe", {}), **own.get("recipe", {})}}


def recipe_of(suite: str, folder: Path = FOLDER) -> str:
    """The recipe_id of a shipped suite as its file has it, '' where there is no such file."""
    return _recipe_id(_read(suite, folder)["recipe"]) if (folder / f"{suite}.toml").is_file() else ""


def _recipe_id(recipe: Mapping[str, Any]) -> str:
    """Hash a recipe as `kdbench.plan.cells.recipe_id` does, without what cannot change a number."""
    unused = {"eval_every", *(STEP if recipe["schedule"] == "onecycle" else ONECYCLE)}
    return digest({key: value for key, value in recipe.items() if key not in unused})
