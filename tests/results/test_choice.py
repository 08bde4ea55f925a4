"""Rows chosen by a condition are those that a person would pick."""

from datetime import date, datetime

import pandas as pd
import pytest

from kdbench.errors import KdbenchError
from kdbench.results.choice import ALL, Choice, span

ROWS = pd.DataFrame(
    [
        ("ce", None, "small", 30, "test", "2026-03-01T10:00:00+00:00", "ok", "", 0),
        ("kd", "large", "small", 30, "test", "2026-03-01T12:00:00+00:00", "ok", "", 0),
        ("dkd", "large", "small", 2, "test", "2026-03-02T12:00:00+00:00", "diverged", '{"recipe": {"epochs": 30}}', 0),
        ("dkd", "large", "tiny", 4, "holdout", "2026-03-03T00:00:00+00:00", "ok", "", 0),
        ("ce", None, "tiny", 4, "test", "2026-03-03T00:00:00+00:00", "error", "", 0),
    ],
    columns=["method", "teacher", "student", "epochs_done", "split", "started_utc", "status", "facts", "seed"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"methods": ["kd"]}, [1]),
        ({"methods": ["*kd"]}, [1, 2, 3]),
        ({"methods": ["ce", "kd"]}, [0, 1, 4]),
        ({"methods": "ce, kd"}, [0, 1, 4]),
        ({"pairs": [("large", "small")]}, [0, 1, 2]),
        ({"pairs": ("large", "t*")}, [3, 4]),
        ({"pairs": "large->tiny,x:y"}, [3, 4]),
        ({"since": date(2026, 3, 2)}, [2, 3, 4]),
        ({"since": datetime(2026, 3, 1, 12)}, [1, 2, 3, 4]),
        ({"status": "error,diverged"}, [2, 4]),
        ({"pairs": ["large:small"]}, [0, 1, 2]),
        ({"pairs": ["*:tiny"]}, [3, 4]),
        ({"pairs": ["other:small"], "methods": ["ce"]}, [0]),
        ({"epochs": 30}, [0, 1, 2]),
        ({"epochs": 2}, []),
        ({"split": "holdout"}, [3]),
        ({"since": "2026-03-02"}, [2, 3, 4]),
        ({"since": "2026-03-01T12:00"}, [1, 2, 3, 4]),
        ({"since": "2026-03-01T14:30:00+02:00"}, [2, 3, 4]),
        ({"status": ["error", "diverged"]}, [2, 4]),
        ({"methods": ["dkd"], "split": "test"}, [2]),
    ],
)
def test_rows_meet_every_condition(conditions, expected):
    assert list(Choice(**conditions).of(ROWS).index) == expected


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"since": "yesterday"}, "such as 2026-03-01"),
        ({"since": 3}, "such as 2026-03-01"),
        ({"status": ["failed"]}, "known: ok, diverged"),
        ({"epochs": "2"}, "epochs is a whole number, got '2'"),
        ({"methods": [3]}, r"methods takes names or globs, got \[3\]"),
        ({"methods": 3}, "methods takes names or globs, got 3"),
    ],
)
def test_what_cannot_be_met_is_refused(conditions, words):
    with pytest.raises(KdbenchError, match=words):
        Choice(**conditions)


def test_a_refusal_says_what_there_is():
    text = str(Choice(methods=["rkd"]).refusal(ROWS))
    assert text.startswith("no row has methods rkd; the rows have methods ce, dkd, kd; pairs ")
    assert "epochs 4, 30;" in text


def test_a_span_names_the_first_and_counts_all():
    many = pd.concat([ROWS.assign(method=f"m{number:02}", seed=number) for number in range(13)])
    assert span(many) == (
        "methods m00, m01, m02, m03, m04, m05, m06, m07, m08, m09, m10, m11, ... (13); "
        "pairs large:small, large:tiny; seeds 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ... (13); "
        "epochs 4, 30; splits holdout, test"
    )


def test_a_student_alone_is_named_where_no_pair_has_it():
    assert (
        span(ROWS[ROWS["method"] == "ce"])
        == "methods ce; pairs small, tiny; seeds 0; epochs 4, 30; splits test"
    )


def test_an_empty_choice_has_no_words():
    assert str(ALL) == ""
    assert str(Choice(methods=["kd"], epochs=3)) == "methods kd; epochs 3"
