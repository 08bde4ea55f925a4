"""``pair_params``: parameters by the pair's name, which suites on the same images inherit."""

import pytest

from kdbench import suites
from kdbench.errors import KdbenchError

BASE = """
[pair_params]
"teacher:student" = { dkd = { beta = 4.0, alpha = 2.0 }, kd = { temperature = 2.0 } }
[[pairs]]"""


@pytest.fixture
def write(lab):
    """Write a suite that builds on the laboratory's, which has parameters for its pair; read it."""
    lab.suite_file(("[[pairs]]", BASE))

    def write(text: str):
        file = lab.folder / "mine.toml"
        file.write_text(f'base = "tiny.toml"\n{text}')
        return suites.load(str(file))

    return write


def params(suite) -> dict:
    return {str(pair): {method: dict(table) for method, table in pair.params.items()} for pair in suite.pairs}


SHARED = {"dkd": {"beta": 4.0, "alpha": 2.0}, "kd": {"temperature": 2.0}}


def test_a_pair_has_the_parameters_of_its_name(write, lab):
    assert params(suites.load(str(lab.folder / "tiny.toml"))) == {"teacher:student": SHARED}


def test_pairs_of_a_suite_on_the_same_images_inherit_them(write):
    pairs = 'pairs = [{ teacher = "teacher", student = "student" }, { teacher = "a", student = "student" }]'
    assert params(write(pairs)) == {"teacher:student": SHARED, "a:student": {}}


def test_what_the_pair_says_itself_comes_before(write):
    suite = write(
        '[[pairs]]\nteacher = "teacher"\nstudent = "student"\n'
        "params = { dkd = { beta = 1.0 }, dist = { beta = 3.0 } }"
    )
    own = {**SHARED, "dkd": {"beta": 1.0, "alpha": 2.0}, "dist": {"beta": 3.0}}
    assert params(suite) == {"teacher:student": own}


def test_an_own_entry_replaces_the_bases_of_that_pair(write):
    suite = write('[pair_params]\n"teacher:student" = { dkd = { beta = 9.0 } }')
    assert params(suite) == {"teacher:student": {"dkd": {"beta": 9.0}}}


def test_another_data_set_inherits_none(write):
    assert params(write('[dataset]\nname = "other"')) == {"teacher:student": {}}
    own = '[dataset]\nname = "other"\n[pair_params]\n"teacher:student" = { kd = { temperature = 1.0 } }'
    assert params(write(own)) == {"teacher:student": {"kd": {"temperature": 1.0}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pair_params = 3", "pair_params must be a table, got 3"),
        ('pair_params = { "teacher:student" = 3 }', "pair_params.teacher:student must be a table, got 3"),
        (
            '[pair_params]\n"teacher:studnt" = { kd = { temperature = 1.0 } }',
            "unknown pair 'teacher:studnt' in .*pair_params; did you mean 'teacher:student'",
        ),
    ],
)
def test_mistakes_are_named(write, text, message):
    with pytest.raises(KdbenchError, match=message):
        write(text)
