"""The order of the packages, from the contract that `lint-imports` checks."""

from __future__ import annotations

import configparser
from itertools import pairwise, product
from pathlib import Path

from docs.generate.markdown import fence

CONTRACT = Path(__file__).parents[2] / ".importlinter"


def drawing() -> str:
    """The levels as a Mermaid graph, each package above all of the next level."""
    contract = configparser.ConfigParser()
    contract.read(CONTRACT, "utf-8")
    levels = [
        line.split(" | ") for line in contract["importlinter:contract:rooms"]["layers"].split("\n") if line
    ]
    named = [level for level in levels if level != ["__main__"]]
    arrows = [
        f"    {above} --> {below}"
        for upper, lower in pairwise(named)
        for above, below in product(upper, lower)
    ]
    return fence("\n".join(["graph TD", *arrows]), "mermaid")
