"""The committed rows stay findable: today's code gives their settings the ids that stand in results/."""

import dataclasses
import json
from pathlib import Path

import pytest

from kdbench import registry, suites
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import Selection, select
from kdbench.results import store
from kdbench.suites import replace_recipe

RESULTS = Path(__file__).parents[2] / "results"
SPLITS = {  # hashes of the real images of each split
    ("digits", "test"): "a2315f757854",
    ("digits", "holdout"): "f4306f8e2164",
    ("cifar100", "test"): "f592eea6211a",
    ("cifar100", "holdout"): "804c8cbed60e",
}


@pytest.mark.parametrize("name", store.suites(RESULTS))
def test_committed_rows_keep_their_ids(name):
    """Whoever asks for the same settings finds them done: a row's recipe is the one that its facts say."""
    registry.load(None)
    suite = suites.load(name)
    rows = store.records(store.read(RESULTS / f"{name}.csv")).fillna({"teacher": "", "teacher_id": ""})
    rows = rows[rows["status"] == "ok"]
    assert len(rows)
    for row in rows.to_dict("records"):
        assert row["split_id"] == SPLITS[row["dataset"], row["split"]]
        pair = next(
            p for p in suite.pairs if p.student == row["student"] and row["teacher"] in ("", p.teacher)
        )
        recipe = replace_recipe(suite.recipe, json.loads(row["facts"])["recipe"], row["cell_id"])
        assert (recipe.epochs, recipe.precision) == (row["epochs_done"], row["precision"])
        values = {key: [value] for key, value in json.loads(row["params"]).items()}
        selection = Selection(
            dataclasses.replace(suite, recipe=recipe),
            [row["method"]],
            [pair],
            [row["seed"]],
            {row["method"]: values},
            split=row["split"],
        )
        ids = {pair.teacher: row["teacher_id"] or None}
        (cell,) = plan_cells(selection, row["split_id"], ids)
        assert cell.id == row["cell_id"], row["method"]


def test_the_default_run_is_committed_whole():
    """`kdbench run` finds every cell of its suite done or skipped, with one teacher for each name."""
    registry.load(None)
    suite = suites.load("digits")
    rows = store.records(store.read(RESULTS / "digits.csv"))
    rows = rows[(rows["split"] == "test") & (rows["recipe_id"] == suite.recipe.id)]
    teachers = rows[["teacher", "teacher_id"]].dropna().drop_duplicates().set_index("teacher")["teacher_id"]
    cells = plan_cells(select(suite), SPLITS["digits", "test"], dict(teachers))
    assert {cell.id for cell in cells} == set(rows["cell_id"])
    assert set(rows["status"]) == {"ok", "skipped"}
