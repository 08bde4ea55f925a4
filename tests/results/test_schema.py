"""The column records: complete, documented, and the only list of columns."""

import itertools
import math

import pytest

from kdbench.report import reproducibility
from kdbench.report.page.runs import ATTEMPT
from kdbench.results import schema, store, values
from kdbench.results.schema import CURVES, GROUPS, ROWS
from kdbench.utils.status import DONE, Status
from tests.support.scenarios import run


@pytest.mark.parametrize("column", [*ROWS, *CURVES], ids=lambda column: column.name)
def test_each_column_is_described_by_one_sentence(column):
    assert column.doc.endswith(".")
    assert ". " not in column.doc
    assert len(column.doc) <= 100
    assert column.kind in values.KINDS
    assert bool(column.unit) <= (column.kind == "number")
    assert (column.unit == "percent") == ((column.low, column.high) == (0, 100))
    assert column.low < column.high <= math.inf


def test_groups_stand_together_in_their_order():
    groups = [group for group, _ in itertools.groupby(ROWS, lambda column: column.group)]
    assert groups == list(GROUPS)
    assert [name for group in GROUPS for name in schema.members(group)] == store.COLUMNS
    assert {column.group for column in CURVES} == {""}


def test_columns_of_one_name_agree():
    for curve in CURVES:
        for row in ROWS:
            assert curve.name != row.name or (curve.kind, curve.needed) == (row.kind, row.needed)


def test_columns_that_the_report_lists_exist():
    assert set(ATTEMPT) - {"counted"} <= set(store.COLUMNS)  # counted: made by the report
    assert set(reproducibility.FACTS) <= set(store.COLUMNS)


@pytest.mark.parametrize("status", Status)
def test_a_status_is_written_as_its_word(tmp_path, status):
    store.append(tmp_path / "s.csv", [run(top1=50.0, status=status)])
    store.append(tmp_path / "t.csv", [run(top1=50.0, status=str(status.value))])
    one, other = (store.read(tmp_path / name) for name in ("s.csv", "t.csv"))
    assert one["status"].tolist() == other["status"].tolist() == [status.name.lower()]
    assert store.records(one)["status"].isin(DONE).all() == (
        status.value in ("ok", "diverged", "pruned", "skipped")
    )
