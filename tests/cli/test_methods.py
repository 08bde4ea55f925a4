"""The list of methods, one method's page, BibTeX, and `kdbench new`."""

from __future__ import annotations

import re

from kdbench import registry
from tests.support.cli_process import kdbench, refused
from tests.support.tiny import RUN, make


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
    assert re.search(r"^beta +float +8\.0$", page, re.M)
    assert re.search(r"^file: .*dkd\.py$", page, re.M)
    refused(kdbench("methods", "dkdd", cwd=tmp_path), "did you mean 'dkd'")


def test_bibtex_has_all_authors(tmp_path):
    entry = kdbench("methods", "dkd", "--bibtex", cwd=tmp_path).out
    assert entry.startswith("@inproceedings{dkd2022,\n")
    for line in (
        "title = {{Decoupled Knowledge Distillation}}",
        "author = {Borui Zhao and Quan Cui and Renjie Song and Yiyu Qiu and Jiajun Liang}",
        "booktitle = {CVPR}",
        "year = {2022}",
        "eprint = {2203.08679}",
    ):
        assert line in entry


def test_bibtex_of_all_has_every_paper_once(tmp_path):
    text = kdbench("methods", "--bibtex", cwd=tmp_path).out
    registry.load()
    cited = [name for name in registry.names() if registry.get(name).paper]
    assert [key.rstrip("0123456789") for key in re.findall(r"^@\w+\{(\w+),$", text, re.M)] == cited
    assert "and others" not in text
    refused(kdbench("methods", "kd_twoview", "--bibtex", cwd=tmp_path), "'kd_twoview' names no paper")


def test_new_writes_a_plug_in_that_passes_the_contract_trains_and_is_never_overwritten(tmp_path):
    place = make(tmp_path / "place")
    made = kdbench("new", "mine", cwd=place)
    assert made.out.split() == ["plugins/mine.py", "plugins/test_mine.py"]
    check = kdbench("check", "plugins/mine.py", cwd=place)
    assert check.code == 0, check.out + check.err
    assert kdbench(*RUN, "--methods", "mine", "--plugins", "plugins", cwd=place).code == 0
    refused(kdbench("new", "mine", cwd=place), "exists already")
    refused(kdbench("new", "kd", cwd=place), "there is a method 'kd' already")
    refused(kdbench("new", "My-Method", cwd=place), "lower-case")
