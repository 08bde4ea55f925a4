"""The list of methods, one method's page, BibTeX, and `kdbench new`."""

from __future__ import annotations

import re

from kdbench import registry
from tests.support.cli_process import kdbench, refused
from tests.support.tiny import RUN, make


def test_every_method_has_a_line_with_year_kind_and_fidelity(tmp_path):
    lines = kdbench("methods", cwd=tmp_path).out.splitlines()
    told = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    registry.load()
    assert set(registry.names()) <= set(told)
    for name in registry.names():
        year, kind, fidelity = told[name][:3]
        assert re.fullmatch(r"(19|20)\d\d", year), name
        assert kind in ("plain", "logit", "embedding", "feature")
        assert fidelity in ("paper", "code", "reconstruction")
    assert told["dkd"][:3] == ["2022", "logit", "paper"]
    assert told["ce"][1] == "plain"
    assert told["bickd"][2] == "reconstruction"


def test_one_method_shows_formula_parameters_and_file(tmp_path):
    page = kdbench("methods", "dkd", cwd=tmp_path).out
    assert "arXiv:2203.08679" in page
    assert re.search(r"^beta +float +8\.0$", page, re.M)
    assert re.search(r"^file: .*dkd\.py$", page, re.M)
    refused(kdbench("methods", "dkdd", cwd=tmp_path), "did you mean 'dkd'")


def test_bibtex_is_read_from_the_docstring(tmp_path):
    entry = kdbench("methods", "dkd", "--bibtex", cwd=tmp_path).out
    assert entry.startswith("@inproceedings{dkd2022,\n")
    for line in (
        "author = {Zhao and others}",
        "booktitle = {CVPR}",
        "year = {2022}",
        "eprint = {2203.08679}",
    ):
        assert line in entry


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
