"""The order of the packages, from the contract that `lint-imports` checks."""

from __future__ import annotations

import configparser
from pathlib import Path

from docs.generate.markdown import fence

CONTRACT = Path(__file__).parents[2] / ".importlinter"


def order() -> str:
    """The levels from the lowest to the highest; those of one level between commas."""
    contract = configparser.ConfigParser()
    contract.read(CONTRACT, "utf-8")
    lines = contract["importlinter:contract:rooms"]["layers"].split("\n")
    levels = [line.replace(" | ", ", ") for line in reversed(lines) if line and line != "__main__"]
    middle = len(levels) // 2
    return fence(f"{' < '.join(levels[:middle])}\n< {' < '.join(levels[middle:])}")
