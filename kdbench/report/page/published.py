"""The page of all published numbers: searched, filtered and linked to where they are printed."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from kdbench.report.page import assets
from kdbench.results import published

FILE = "published.html"
SHOWN = {  # column -> heading
    "method": "method", "value": "value", "teacher": "teacher", "student": "student", "dataset": "data set",
    "metric": "metric", "std": "std", "runs": "runs", "rule": "rule", "variant": "variant", "protocol": "protocol",
    "origin": "origin", "key": "source", "note": "note",
}  # fmt: skip
PLACES = {  # a text in a source -> its address
    r"arXiv:(\d{4}\.\d{5})": "https://arxiv.org/abs/{}",
    r"(https://\S+)": "{}",
    r"(?<!/)(github\.com/[\w.-]+/[\w.-]+)": "https://{}",
}


def page() -> str:
    """published.html: every line of published.csv."""
    rows = published.load()
    return assets.template("published.html").render(
        title="Published numbers",
        above="",
        count=f"{len(rows):,}",
        sources=f"{rows['key'].nunique()}",
        data=assets.data(_data(rows)),
        css=assets.markup("page.css"),
        **assets.uses("DataTable"),
        js=assets.markup("dom.js", "table.js", "published.js"),
    )


def _data(rows: pd.DataFrame) -> dict[str, Any]:
    """Columns as places in lists of what they say, for most say the same many times; the full names of sources."""
    columns = []
    for name, heading in SHOWN.items():
        codes, said = pd.factorize(rows[name].map(_written))
        columns.append({"name": name, "heading": heading, "said": list(said), "codes": codes.tolist()})
    names = dict(zip(rows["key"], rows["source"], strict=True))
    return {"columns": columns, "sources": {key: [name, *address(name)] for key, name in names.items()}}


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    return f"{value:.2f}" if value != int(value) and value == round(value, 2) else f"{value:g}"


def address(source: str) -> list[str]:
    """Where a source can be read, the paper first; none where its name has no address."""
    found = (re.search(form, source) for form in PLACES)
    return [
        address.format(match[1].rstrip(".,;)"))
        for match, address in zip(found, PLACES.values(), strict=True)
        if match
    ][:1]
