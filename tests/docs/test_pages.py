"""The documentation: its code runs, its commands and files exist, its generated parts are current."""

from __future__ import annotations

import json
import re
import shlex

import click
import pandas as pd
import pytest

from docs.generate.__main__ import BLOCKS, outdated
from docs.generate.markdown import MARKED, fill
from kdbench import registry
from kdbench.cli.main import main
from kdbench.cli.verbs import DefaultVerbs
from kdbench.contract import CHECKS
from kdbench.utils.status import DONE, Status
from tests.support.cli_process import kdbench
from tests.support.pages import PAGES, ROOT, block, commands
from tests.support.tiny import RUN, make

REPOSITORY = re.compile(r"`((?:kdbench|methods|tests|reports|results|docs|\.ci|\.github)/[\w./-]*)`")
MADE_BY_USERS = (
    "results/.work/",
    "reports/cifar100/",
    "results/digits.csv",
)  # written by the commands of a page


def test_the_plug_in_passes_the_contract_and_runs(tmp_path):
    place = make(tmp_path / "place")
    (place / "plugins").mkdir()
    (place / "plugins" / "mse.py").write_text(block("docs/add-a-method.md", "python", "class MSE"))
    lines = block("docs/add-a-method.md", "sh", "kdbench check plugins").splitlines()
    check = kdbench(*lines[0].partition("#")[0].split()[1:], cwd=place)
    assert check.code == 0, check.out + check.err
    done = kdbench(*RUN, *lines[1].split()[2:], cwd=place)
    assert done.code == 0, done.err
    assert len(pd.read_csv(place / "results" / "tiny.csv")) == 4


# --- generated parts ---


def test_generated_parts_are_current():
    stale = [str(file.relative_to(ROOT)) for file, _ in outdated()]
    assert not stale, "run `python -m docs.generate`"


def test_every_generated_part_is_on_a_page():
    names = [match["name"] for page in PAGES for match in MARKED.finditer(page.read_text("utf-8"))]
    assert sorted(names) == sorted(BLOCKS)


def test_a_changed_part_is_noticed(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("no part\n")
    text = (ROOT / "README.md").read_text("utf-8")
    (tmp_path / "README.md").write_text(text.replace("- **", "- ***", 1), "utf-8")
    assert [(file.name, current) for file, current in outdated(tmp_path)] == [("README.md", text)]


def test_a_part_that_nothing_generates_is_an_error():
    with pytest.raises(KeyError, match="nothing"):
        fill("<!-- generated: nothing -->\n<!-- end generated -->", BLOCKS)


def test_the_table_of_the_contract_has_every_method():
    """It is pasted from `kdbench check`, which takes minutes; tests/contract runs the checks."""
    registry.load(None)
    printed = block("docs/contract.md", "", "checks passed")
    methods = re.findall(r"^(\w+) +[.X]+ ", printed, re.M)
    count = len(registry.names()) * len(CHECKS)
    assert methods == registry.names()
    assert f"{count} of {count} checks passed" in printed


# --- commands and files ---


def _problem(command: str) -> str:
    """What click would refuse of a command: a verb or an option that does not exist; else nothing."""
    words = [word for word in shlex.split(command)[1:] if word != "..."]
    node: click.Command = main
    while isinstance(node, click.Group) and words and words[0] in node.commands:
        node = node.commands[words.pop(0)]
    if isinstance(node, DefaultVerbs):
        node = node.commands[node.default]
    if isinstance(node, click.Group) and words and not words[0].startswith("-"):
        return f"no verb {words[0]}"
    known = {flag for option in node.params for flag in (*option.opts, *option.secondary_opts)} | {
        "--help",
        "--version",
    }
    wrong = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"no option {' '.join(wrong)}" if wrong else ""


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("kdbench run --suite digits", ""),
        ("kdbench teachers list", ""),
        ("kdbench methods dkd --plugins plugins", ""),
        ("kdbench methods dkd --suite digits", "no option --suite"),
        ("kdbench runs", "no verb runs"),
        ("kdbench teachers lists", "no verb lists"),
        ("kdbench run --suites digits", "no option --suites"),
    ],
)
def test_a_wrong_command_is_recognised(command, wrong):
    assert _problem(command) == wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_exist(page):
    assert [(command, wrong) for command in commands(page) if (wrong := _problem(command))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    names = set(REPOSITORY.findall(page.read_text("utf-8"))) - set(MADE_BY_USERS)
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []


def test_architecture_explains_every_package():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    packages = {file.parent.name for file in (ROOT / "kdbench").glob("*/__init__.py")}
    assert {
        name for name in packages if f"`{name}`" not in text.partition("## The way of one cell")[0]
    } == set()


def test_the_results_page_explains_every_status():
    text = (ROOT / "docs" / "results-schema.md").read_text("utf-8").partition("### Status")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\w ]+) \|$", text.partition("## Curves")[0], re.M))
    assert set(rows) == set(Status)
    assert {name for name, action in rows.items() if action == "skips the cell"} == set(DONE)


def test_notice_names_every_source_of_golden_values():
    notice = (ROOT / "NOTICE").read_text("utf-8")
    listed = set(re.findall(r"^  (github\.com/\S+)$", notice.partition("Golden values")[2], re.M))
    files = [json.loads(file.read_text("utf-8")) for file in (ROOT / "tests" / "golden").glob("*.json")]
    references = [reference for file in files for reference in file["references"]]
    assert all({"repo", "commit", "path", "symbol"} <= set(reference) for reference in references)
    assert listed == {reference["repo"] for reference in references}


def test_one_address_everywhere():
    files = ("setup.cfg", "CITATION.cff", "CHANGELOG.md", "mkdocs.yml")
    found = {
        a
        for name in files
        for a in re.findall(r"https://github\.com/[\w-]+/kdbench\b", (ROOT / name).read_text())
    }
    assert len(found) == 1
