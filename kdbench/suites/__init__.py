"""What is trained on what, by which recipe: one TOML file per suite, read strictly into frozen dataclasses."""

from kdbench.suites.loader import FOLDER, names
from kdbench.suites.schema import (
    DataSpec,
    ModelSpec,
    Pair,
    Recipe,
    Suite,
    TeacherSpec,
    View,
    load,
    replace_recipe,
    validated,
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
    "names",
    "replace_recipe",
    "validated",
]
