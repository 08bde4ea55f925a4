"""What is trained on what, by which recipe: one TOML file per suite, read strictly into frozen dataclasses."""

from kdbench.suites.loader import FOLDER, load, name_of, names, recipe_of, replace_recipe, validated
from kdbench.suites.schema import (
    DataSpec,
    ModelSpec,
    Pair,
    Recipe,
    Suite,
    TeacherSpec,
    View,
)

__all__ = [
    "FOLDER",
    "DataSpec",
    "ModelSpec",
    "Pair",
    "Recipe",
    "Suite",
    "TeacherSpec",
    "View",
    "load",
    "name_of",
    "names",
    "recipe_of",
    "replace_recipe",
    "validated",
]
