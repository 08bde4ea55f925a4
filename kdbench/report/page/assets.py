"""The files behind the pages: templates and scripts, written into each page, and libraries, beside them all.

The libraries are large, so that the pages of all suites share them: <reports>/_assets/. Their names have their
versions, so that a page of an earlier kdbench keeps those that it was written for.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

FOLDER = "_assets"
LIBRARIES = {
    "DataTable": "datatables-3.1.5.min.js",
    "Plotly": "plotly-basic-4.1.1.min.js",
}  # what it defines -> file


def write(out: Path) -> None:
    """The libraries and their licences, those that are not there already. Raises OSError."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for source in (resources.files("kdbench.report") / "assets" / "vendor").iterdir():
        target = folder / source.name
        if not target.exists():
            target.write_bytes(source.read_bytes())


def uses(*names: str) -> dict[str, Any]:
    """What a template needs to load these of LIBRARIES: what they define, and their files below all reports."""
    return {"globals": names, "libraries": [f"{FOLDER}/{LIBRARIES[name]}" for name in names]}


def text(name: str) -> str:
    """One file of the package as text."""
    return (resources.files("kdbench.report") / "assets" / name).read_text("utf-8")


def markup(*names: str) -> Markup:
    """Files to be written into a page as they are, one below the other."""
    return Markup("\n".join(text(name) for name in names))


def data(value: Any) -> Markup:
    """JSON that cannot end its script element."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(written.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


@cache
def template(name: str) -> jinja2.Template:
    """A template of the package; what it uses must be given, and texts are escaped."""
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        loader=jinja2.FunctionLoader(text),
    )
    environment.filters["arrows"] = lambda value: str(value).replace("->", "→")
    return environment.get_template(name)
