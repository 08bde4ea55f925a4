"""Show files of the repository on the site: pictures under reports/, CONTRIBUTING.md and CHANGELOG.md.

Pages link to them as they do on GitHub (``../reports/...``), so each file exists once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PICTURE = re.compile(r"\]\(\.\./(reports/[^)]+\.png)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and the pictures that the documentation links to."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text("utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    shown = {
        path for file in (ROOT / "docs").glob("*.md") for path in PICTURE.findall(file.read_text("utf-8"))
    }
    for path in sorted(shown):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links that lead out of docs/ on GitHub stay inside the site."""
    for name, page in PAGES.items():
        markdown = markdown.replace(f"](../{name}", f"]({page}")
    return PICTURE.sub(r"](\1)", markdown)
