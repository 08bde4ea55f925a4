"""`kdbench new NAME`: a working plug-in and its test, as a start for a method of one's own."""

from __future__ import annotations

import keyword
import re
import sys
from datetime import date
from pathlib import Path

import click

from kdbench.cli import options
from kdbench.cli.verbs import verb
from kdbench.errors import KdbenchError

TEMPLATES = Path(__file__).parent / "templates"
IMPORTED = (
    "kdbench",
    "numpy",
    "timm",
    "torch",
    "torchvision",
)  # a plug-in beside that name would be taken for it
NAME, YEAR = "mymethod", "2026"  # as the templates spell them


@verb("new", short_help="Write a working plug-in and its test.")
@click.argument("name")
@options.path("--plugins", "DIR", "Folder to write into.", default=options.PLUGINS)
def new_command(name: str, plugins: Path) -> None:
    """Write plug-in NAME and its test, which work and can be changed into your method."""
    for file in create(name, plugins):
        click.echo(file)


def create(name: str, folder: Path) -> list[Path]:
    """Write ``folder/name.py`` and ``folder/test_name.py``; returns both. Never overwrites.

    Raises KdbenchError for a name that is no lower-case identifier or is taken.
    """
    from kdbench import registry
    from kdbench.utils.files import write_atomic

    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise KdbenchError(
            f"a method's name is a lower-case Python name such as {_nearest(name)}, got {name!r}"
        )
    if keyword.iskeyword(name) or name in sys.stdlib_module_names or name in IMPORTED:
        raise KdbenchError(
            f"a file {name}.py would stand in the way of Python's own {name!r}; choose another name"
        )
    registry.load()
    if name in registry.names():
        raise KdbenchError(
            f"there is a method {name!r} already ({registry.entry(name).origin}); choose another name"
        )
    files = {folder / f"{name}.py": "method.py", folder / f"test_{name}.py": "test.py"}
    for file in files:
        if file.exists():
            raise KdbenchError(f"{file} exists already; choose another name or --plugins folder")
    try:
        for file, template in files.items():
            write_atomic(file, fill(template, name).encode())
    except OSError as error:
        raise KdbenchError(f"cannot write into {folder} ({error.strerror})") from error
    return list(files)


def _nearest(name: str) -> str:
    """The valid name that is most like ``name``: focal_kd for Focal-KD."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).lstrip("_0123456789").rstrip("_") or NAME


def fill(template: str, name: str) -> str:
    """The template's text for method ``name``, dated this year."""
    text = (TEMPLATES / template).read_text("utf-8")
    for spelled, value in (
        (NAME, name),
        (NAME.capitalize(), name.capitalize()),
        (YEAR, str(date.today().year)),
    ):
        text = text.replace(spelled, value)
    return text
