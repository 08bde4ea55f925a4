"""Write the generated blocks of README.md and docs/*.md: `python -m docs.generate [--check]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from docs.generate import checks, commands, methods, packages, python, results, suites
from docs.generate.markdown import Block, fill

ROOT = Path(__file__).parents[2]
BLOCKS: dict[str, Block] = {
    "methods-list": methods.listed,
    "methods-overview": methods.overview,
    "fidelities": methods.fidelities,
    "method-options": methods.options,
    "methods": methods.sections,
    "python": python.api,
    "commands": commands.verbs,
    "package-order": packages.order,
    "checks": checks.listed,
    "columns": results.columns,
    "curves": results.curves,
    "trials": results.trials,
    "published-sources": results.sources,
    "datasets": suites.datasets,
    "suites": suites.shipped,
    "suite-keys": suites.keys,
}


def outdated(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """(file, its text with today's blocks) of each page that is not current."""
    for file in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        text = file.read_text("utf-8")
        if (current := fill(text, BLOCKS)) != text:
            yield file, current


def main() -> None:
    """Write the generated pages, or fail with ``--check`` if one is outdated."""
    check = "--check" in sys.argv[1:]
    pages = dict(outdated())
    for file, text in pages.items():
        if not check:
            file.write_text(text, "utf-8")
        print(
            f"{file.relative_to(ROOT)} {'is not current; run `python -m docs.generate`' if check else 'written'}"
        )
    sys.exit(check and bool(pages))


if __name__ == "__main__":
    main()
