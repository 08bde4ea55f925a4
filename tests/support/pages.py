"""Code blocks of README and the documentation."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
)


def block(page: str, language: str, containing: str) -> str:
    """The one fenced block of that language in a page (a path from the root) that contains a text."""
    text = (ROOT / page).read_text("utf-8")
    blocks = [b for b in re.findall(rf"```{language}\n(.*?)```", text, re.S) if containing in b]
    assert len(blocks) == 1
    return blocks[0]


def commands(page: Path) -> list[str]:
    """Each `kdbench ...` command of a page: in code blocks a line each (comments cut), and inline code."""
    text = page.read_text("utf-8")
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.S)).splitlines()
    inline = [" ".join(code.split()) for code in re.findall(r"(?<!`)`(kdbench [^`]+)`(?!`)", text)]
    lines = [part.strip() for line in shell for part in line.partition("#")[0].split("&&")]
    return [line for line in (*lines, *inline) if line.startswith("kdbench ")]
