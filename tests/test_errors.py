"""Sentences for the user's mistakes."""

import pytest

from kdbench.errors import first_line, unknown


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one  \ntwo"), "one  "),
        (ValueError(""), "ValueError"),
        (KeyError("key"), "'key'"),
    ],
)
def test_the_reason_is_the_first_line_or_the_type(error, line):
    assert first_line(error) == line


def test_an_unknown_name_gives_the_nearest_or_all():
    assert (
        str(unknown("suite", "digit", ["digits", "cifar"])) == "unknown suite 'digit'; did you mean 'digits'?"
    )
    assert str(unknown("suite", "x", ["b", "a"], " in here")) == "unknown suite 'x' in here; known: a, b"
    assert str(unknown("method", "KD", ["kd", "at"])) == "unknown method 'KD'; did you mean 'kd'?"
    assert str(unknown("suite", "x", [])) == "unknown suite 'x'; known: none"
