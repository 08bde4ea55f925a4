"""The code that travels to the nodes of a Ray cluster: the package kdbench, its methods and the user's plug-ins."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import kdbench
from kdbench import registry

PLUGINS = "kdbench_ray_plugins"  # the folder that stands for the driver's root folder


def stage(folder: Path, plugins: Path | None) -> list[str]:
    """Copy the code into ``folder``; returns the folders that Ray's py_modules take.

    plugins: as `registry.load` takes them; of their folder only Python files that they import travel.
    """
    ignored = shutil.ignore_patterns("__pycache__")
    package = folder / "kdbench"
    shutil.copytree(Path(kdbench.__file__).parent, package, ignore=ignored)
    methods = importlib.import_module("kdbench.methods").__path__[0]  # of a checkout it is beside the package
    shutil.copytree(methods, package / "methods", ignore=ignored, dirs_exist_ok=True)
    if plugins is None:
        return [str(package)]
    for file in registry.plugin_code(plugins):
        copy = folder / PLUGINS / _below_root(file)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return [str(package), str(folder / PLUGINS)]


def plugins_here(plugins: Path) -> Path:
    """Where the driver's ``plugins`` are on a node."""
    root = importlib.import_module(PLUGINS).__path__[0]
    return Path(root) / _below_root(plugins)


def _below_root(path: Path) -> Path:
    return path.relative_to(path.anchor)
