"""`kdbench methods`: the list, one method's page, BibTeX."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from kdbench import registry
from tests.support.cli_process import ENVIRONMENT, kdbench, refused


def test_a_line_has_year_family_and_fidelity(tmp_path):
    lines = kdbench("methods", cwd=tmp_path).out.splitlines()
    facts = {line.split()[0]: line.split()[1:4] for line in lines[1:]}
    registry.load()
    assert set(registry.names()) <= set(facts)
    for name in registry.names():
        cls = registry.get(name)
        assert facts[name] == [str(cls.paper.year) if cls.paper else "–", cls.family, cls.fidelity]
    assert facts["dkd"] == ["2022", "logit", "paper"]
    assert facts["ce"] == ["1990", "plain", "paper"]


def test_a_page_shows_formula_parameters_and_origin(tmp_path):
    page = kdbench("methods", "dkd", cwd=tmp_path).out
    assert page.startswith("Decoupled distillation:")
    assert "\nEquation: L =" in page
    paper = "paper: Decoupled Knowledge Distillation (Zhao et al., CVPR 2022, arXiv:2203.08679, eq. 7)"
    assert paper in page.splitlines()
    assert "family: logit (the teacher's class scores)" in page.splitlines()
    assert re.search(r"^beta +float +8\.0 +0\.25 to 16, log$", page, re.M)
    assert re.search(r"^file: .*dkd\.py$", page, re.M)
    refused(kdbench("methods", "dkdd", cwd=tmp_path), "did you mean 'dkd'")


def test_bibtex_has_all_authors(tmp_path):
    entry = kdbench("methods", "bibtex", "dkd", cwd=tmp_path).out
    assert entry.startswith("@inproceedings{dkd2022,\n")
    for line in (
        "title = {{Decoupled Knowledge Distillation}}",
        "author = {Borui Zhao and Quan Cui and Renjie Song and Yiyu Qiu and Jiajun Liang}",
        "booktitle = {CVPR}",
        "year = {2022}",
        "eprint = {2203.08679}",
    ):
        assert line in entry


def test_list_and_show_are_what_the_bare_verb_does(tmp_path):
    assert kdbench("methods", "list", cwd=tmp_path).out == kdbench("methods", cwd=tmp_path).out
    page = kdbench("methods", "show", "dkd", cwd=tmp_path).out
    assert page == kdbench("methods", "dkd", cwd=tmp_path).out


@pytest.mark.parametrize("verb", [("methods", "list"), ("methods",)])
def test_a_family_is_listed_alone(tmp_path, verb):
    lines = kdbench(*verb, "--family", "relation", cwd=tmp_path).out.splitlines()
    registry.load()
    ours = [name for name in registry.names() if registry.get(name).family == "relation"]
    assert [line.split()[0] for line in lines[1 : 1 + len(ours)]] == ours
    assert {"crd", "rkd"} <= set(ours)
    assert not [line for line in lines[1 + len(ours) :] if "kdbench bench methods" not in line]


def test_a_family_must_be_one_and_goes_with_no_name(tmp_path):
    refused(
        kdbench("methods", "list", "--family", "maps", cwd=tmp_path), "'maps' is not one of 'plain', 'logit'"
    )
    refused(kdbench("methods", "dkd", "--family", "logit", cwd=tmp_path), "'dkd' or a family, not both")


def test_measured_costs_are_read_from_the_reports(tmp_path):
    table = tmp_path / "elsewhere" / "bench" / "method_cost.csv"
    table.parent.mkdir(parents=True)
    table.write_text("name,extra_params,cost_x_kd,device\nat,1234,1.5,cpu\nfsp,,,cpu\n")
    lines = kdbench("methods", "--out", "elsewhere", cwd=tmp_path).out.splitlines()
    row_of = {line.split()[0]: line.split()[4:6] for line in lines[1:]}
    assert row_of["at"] == ["1,234", "1.50"]
    assert row_of["fsp"] == row_of["kd"] == ["–", "–"]


@pytest.mark.parametrize("verb", [["methods"], ["methods", "bibtex"]])
def test_the_shipped_methods_are_listed_without_torch(tmp_path, verb):
    code = (
        f"import sys; from kdbench.cli.main import main\ntry: main({verb})\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'timm', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert "bickd" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_plugins_are_listed_beside_the_shipped_methods(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "half.py").write_text("import nothing_like_it\n")
    (tmp_path / "mine" / "twice.py").write_text(
        "from kdbench.method import Method, Needs\nfrom kdbench.registry import register\n"
        "@register\nclass Twice(Method):\n    needs = Needs(views=('weak', 'strong'))\n"
    )
    lines = kdbench("methods", "--plugins", "mine", cwd=tmp_path).out.splitlines()
    shipped = kdbench("methods", cwd=tmp_path).out.splitlines()
    mine = [line for line in lines if line not in shipped]
    assert mine[0].split() == ["twice", "–", "–", "–", "–"]
    assert "fails at import: ModuleNotFoundError: No module named 'nothing_like_it'" in mine[1]


def test_bibtex_of_all_has_every_paper_once(tmp_path):
    text = kdbench("methods", "bibtex", cwd=tmp_path).out
    registry.load()
    cited = [name for name in registry.names() if registry.get(name).paper]
    assert [key.rstrip("0123456789") for key in re.findall(r"^@\w+\{(\w+),$", text, re.M)] == cited
    assert "and others" not in text
    refused(kdbench("methods", "bibtex", "kd_twoview", cwd=tmp_path), "'kd_twoview' names no paper")


def test_published_numbers_are_a_verb_that_a_methods_page_names(tmp_path):
    page = kdbench("methods", "dkd", cwd=tmp_path).out
    (hint,) = re.findall(r"^published: 137 numbers; `kdbench (.*)`$", page, re.M)
    table = kdbench(*hint.split(), "--pairs", "resnet56:resnet20", cwd=tmp_path)
    assert (table.code, table.err) == (0, "")
    assert re.search(r"^dkd +71\.97 +5 +best +DKD$", table.out, re.M)
    assert "published:" not in kdbench("methods", "bickd", cwd=tmp_path).out
    refused(
        kdbench("published", "--pairs", "resnet56:resnet21", cwd=tmp_path), "did you mean 'resnet56:resnet20'"
    )
