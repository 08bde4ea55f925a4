"""The sources of published numbers as \\cite and as BibTeX."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from kdbench.report.render.latex import Tex, anchor, escape
from kdbench.utils.method_facts import shipped
from kdbench.utils.papers import Paper

FILE = "published.bib"


def cite(keys: Collection[str]) -> Tex:
    r"""``\cite`` of these sources.

    >>> cite(["CRD", "mdistiller#7"])
    '\\cite{CRD,mdistiller-7}'
    """
    return Tex(rf"\cite{{{','.join(map(anchor, keys))}}}")


def with_cites(text: str, known: Collection[str]) -> Tex:
    r"""A text in which sources stand in brackets as LaTeX that cites them.

    >>> with_cites("71.97 [DKD] of 5% [of all]", ["DKD"])
    '71.97 \\cite{DKD} of 5\\% {[}of all{]}'
    """
    parts = re.split(r"\[([^\[\]]+)\]", text)
    for i in range(1, len(parts), 2):
        keys = parts[i].split()
        parts[i] = cite(keys) if set(keys) <= set(known) else escape(f"[{parts[i]}]")
    return Tex("".join(part if i % 2 else escape(part) for i, part in enumerate(parts)))


def bibtex(names: Mapping[str, str]) -> str:
    """An entry per source (key -> full name): that of its paper where a method of kdbench comes from it."""
    papers = {
        facts.paper.arxiv: facts.paper for facts in shipped().values() if facts.paper and facts.paper.arxiv
    }
    return "\n\n".join(_entry(key, name, papers) for key, name in names.items()) + "\n"


def _entry(key: str, name: str, papers: Mapping[str, Paper]) -> str:
    arxiv = re.search(r"arXiv:(\d{4}\.\d{5})", name)
    if arxiv and arxiv[1] in papers:
        return papers[arxiv[1]].bibtex(anchor(key))
    fields = {"title": f"{{{escape(key)}}}", "howpublished": escape(name)}
    fields |= {"eprint": arxiv[1], "archiveprefix": "arXiv"} if arxiv else {}
    body = ",\n".join(f"  {field} = {{{value}}}" for field, value in fields.items())
    return f"@misc{{{anchor(key)},\n{body}\n}}"
