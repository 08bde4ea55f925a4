"""A teacher is weak only when it is below the expected accuracy by more than rounding."""

import math

import pandas as pd
import pytest

from kdbench.teachers.expected import falls_short


@pytest.mark.parametrize(
    ("top1", "expected", "short"),
    [(72.34, 72.34, False), (72.30, 72.34, False), (72.28, 72.34, True), (math.nan, 72.34, False)],
)
def test_the_tolerance_is_five_hundredths_of_a_point(top1, expected, short):
    assert falls_short(top1, expected) == short


def test_columns_are_compared_row_by_row():
    assert falls_short(pd.Series([72.30, 72.28]), pd.Series([72.34, 72.34])).tolist() == [False, True]
    assert falls_short(pd.Series([], dtype=float), pd.Series([], dtype=float)).empty
