"""The vocabulary of a method's origin: its paper, how closely the code follows it, and its family. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["plain", "logit", "feature", "relation", "self"]
FAMILIES: dict[Family, str] = {
    "plain": "labels only",
    "logit": "the teacher's class scores",
    "feature": "the teacher's maps and embeddings, sample by sample",
    "relation": "relations between the samples of a batch",
    "self": "soft labels without a teacher",
}

Fidelity = Literal["paper", "code", "reconstruction", "own"]
FIDELITIES: dict[Fidelity, str] = {
    "paper": "follows the paper's equations",
    "code": "follows the released code, which differs from the paper or says more",
    "reconstruction": "written without the paper's equations and without the authors' code",
    "own": "in no paper",
}


@dataclass(frozen=True, kw_only=True)
class Paper:
    """The publication that a method comes from.

    authors: full names, in the paper's order. venue: short, empty for a preprint. arxiv: the bare id. equation: its
    number or numbers in the paper. journal: the venue is a journal. verified: False where the title or the authors
    could not be looked up.
    """

    title: str
    authors: tuple[str, ...]
    year: int
    venue: str = ""
    arxiv: str = ""
    equation: str = ""
    url: str = ""
    journal: bool = False
    verified: bool = True

    @property
    def address(self) -> str:
        """Where to read it; '' where no address is known.

        >>> Paper(title="T", authors=("A. B",), year=2022, arxiv="2203.08679").address
        'https://arxiv.org/abs/2203.08679'
        """
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.url

    @property
    def cited(self) -> str:
        """The short citation: authors, venue and year, arXiv id or URL, equation; no title.

        >>> Paper(title="Distilling", authors=("Ada B. Lovelace", "Alan Turing"), year=1950).cited
        'Lovelace and Turing, 1950'
        >>> Paper(title="T", authors=("A. B", "C. D", "E. F"), venue="CVPR", year=2022, arxiv="1.2", equation="7").cited
        'B et al., CVPR 2022, arXiv:1.2, eq. 7'
        """
        place = f"arXiv:{self.arxiv}" if self.arxiv else self.url
        equation = f"eq. {self.equation}" if self.equation else ""
        parts = (_short(self.authors), f"{self.venue} {self.year}".strip(), place, equation)
        return ", ".join(filter(None, parts))

    def bibtex(self, key: str) -> str:
        """The BibTeX entry under ``key``; a note marks a record that could not be verified.

        >>> print(Paper(title="The KD", authors=("A. B", "C. D"), venue="CVPR", year=2022).bibtex("kd2022"))
        @inproceedings{kd2022,
          title = {{The KD}},
          author = {A. B and C. D},
          booktitle = {CVPR},
          year = {2022}
        }
        """
        kind = "misc" if not self.venue else "article" if self.journal else "inproceedings"
        fields = {
            "title": f"{{{self.title}}}",  # braces keep the capitals
            "author": " and ".join(self.authors),
            "journal" if self.journal else "booktitle": self.venue,
            "year": str(self.year),
            "eprint": self.arxiv,
            "archiveprefix": "arXiv" if self.arxiv else "",
            "url": self.url,
            "note": "" if self.verified else "title and authors not verified",
        }
        body = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
        return f"@{kind}{{{key},\n{body}\n}}"


def _short(authors: tuple[str, ...]) -> str:
    names = [author.split()[-1] for author in authors]
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
