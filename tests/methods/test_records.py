"""Every method's paper, family and fidelity; read from its file, they are what the class says."""

import ast
import codecs
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

import kdbench
from kdbench import registry
from kdbench.utils.method_facts import method_files, read, shipped
from kdbench.utils.papers import FAMILIES, FIDELITIES, Paper

registry.load()
PAPERS = {name: registry.get(name).paper for name in registry.names() if registry.get(name).paper}


@pytest.mark.parametrize("name", registry.names())
def test_the_file_says_what_the_class_says(name):
    cls, facts = registry.get(name), shipped()[name]
    assert (facts.paper, facts.family, facts.fidelity) == (cls.paper, cls.family, cls.fidelity)
    assert facts.needs == cls.needs
    assert facts.family in FAMILIES
    assert facts.fidelity in FIDELITIES


def test_facts_are_of_the_shipped_methods_alone():
    assert sorted(shipped()) == registry.names()


def test_facts_are_read_without_torch():
    code = "import sys; from kdbench.utils.method_facts import shipped; shipped(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("name", PAPERS)
def test_a_paper_is_complete(name):
    paper = PAPERS[name]
    assert paper.title
    assert 1989 < paper.year <= date.today().year
    assert re.fullmatch(r"(\d{4}\.\d{4,5})?", paper.arxiv)
    assert re.fullmatch(r"(\d+( (and|to) \d+)?)?", paper.equation)
    if paper.arxiv:  # preprints of ours are of the year of their number or before the venue
        assert 2000 + int(paper.arxiv[:2]) <= paper.year + 1
    if paper.verified:
        assert paper.authors
        assert paper.venue or paper.arxiv


@pytest.mark.parametrize("name", PAPERS)
def test_authors_are_full_names(name):
    for author in PAPERS[name].authors:
        assert re.fullmatch(r"\w[\w.'-]*( \w[\w.'-]*)+", author), author
        assert author not in ("and others", "et al.")


def test_the_unverified_papers_are_known():
    """Shorten this list; a new method's title and authors are looked up."""
    assert [name for name, paper in PAPERS.items() if not paper.verified] == ["bkl", "skd"]


def test_methods_of_one_paper_cite_it_alike():
    for one, other in (("nkd", "uskd"), ("ttm", "wttm")):
        assert PAPERS[one] == PAPERS[other]


SOURCE = b"""
from kdbench.method import Method, Needs, Paper
from kdbench import registry

class Helper:
    family = "logit"

@registry.register
class Mine(Method):
    paper = Paper(title="One " "title", authors=("Ada Lovelace",), year=1843)
    fidelity = "code"
    needs = Needs(views=("weak", "strong"), stages=True)

@registry.register
class Bare(Method):
    pass
"""


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_facts_of_a_source(mark):
    mine, bare = read(mark + SOURCE)
    assert mine.paper == Paper(title="One title", authors=("Ada Lovelace",), year=1843)
    assert (mine.name, mine.family, mine.fidelity, mine.two_view) == ("mine", None, "code", True)
    assert (bare.name, bare.paper, bare.family, bare.needs.views, bare.two_view) == (
        "bare",
        None,
        None,
        ("weak",),
        False,
    )


def test_a_folder_of_methods_as_macos_copies_it(tmp_path):
    for name in ("kd.py", "._kd.py", "_terms.py", "test_kd.py", "kd.txt"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert method_files(tmp_path) == [tmp_path / "kd.py"]


def test_a_computed_record_is_refused():
    with pytest.raises(ValueError, match="malformed"):
        list(read(SOURCE.replace(b'"One " "title"', b"str(1)")))


def test_an_unverified_paper_says_so_in_bibtex():
    entry = Paper(title="T", authors=(), year=2025, url="https://a.b", verified=False).bibtex("t2025")
    assert entry.startswith("@misc{t2025,\n  title = {{T}},\n  year = {2025},\n")
    assert "note = {title and authors not verified}" in entry
    assert "author =" not in entry


def test_a_journal_paper_is_an_article():
    entry = Paper(title="T", authors=("A. B",), venue="TPAMI", year=2026, journal=True).bibtex("t")
    assert entry.startswith("@article{t,")
    assert "journal = {TPAMI}" in entry


# --- the core names no method ---

KDBENCH = Path(kdbench.__file__).parent
WORDS = {"at", "ab", "norm"}  # English, and a file's mode
ROLES = {"ce", "kd"}  # the plain student, and the baseline of differences
ELSEWHERE = {
    "bench/command.py": {"dkd", "ctkd", "bickd"},  # the default methods of `kdbench bench`
    "cli/bench.py": {"dkd", "ctkd", "bickd"},  # ... in its help
    "report/figures/looks.py": set(shipped()) - WORDS - ROLES,  # a colour of its own for each
    "report/reproduction.py": {"crd"},  # CRD's protocol
    "results/published.py": {"crd"},
    "results/published_tables.py": {"crd"},
}


def named(file: Path) -> set[str]:
    """The methods that strings of the code of ``file`` name; docstrings are none."""
    tree = ast.parse(file.read_text("utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node)
    }
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs
    ]
    return {word for text in texts for word in re.findall(r"\w+", text)} & set(shipped()) - WORDS - ROLES


def test_the_core_names_no_method():
    """What it must know of one, the method's records and tags say."""
    files = {file.relative_to(KDBENCH).as_posix(): named(file) for file in sorted(KDBENCH.rglob("*.py"))}
    found = {name: methods for name, methods in files.items() if methods and not name.startswith("methods/")}
    assert found == ELSEWHERE
