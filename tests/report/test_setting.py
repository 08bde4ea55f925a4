"""Unlike runs never share a table: what is compared differs in method, parameters, teacher and seed only."""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdbench import registry, suites
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import Selection
from kdbench.report.notes import notes
from kdbench.results import setting
from kdbench.runner.record import _identity_columns
from kdbench.suites import ModelSpec, Pair
from kdbench.suites.schema import View
from tests.support import scenarios

WEAK, STRONG = View(pad=1), View(pad=1, ops=2, magnitude=10)
SEEDS = (0, 1)


@pytest.fixture(scope="module")
def suite():
    registry.load(None)
    digits = suites.load("digits")
    return dataclasses.replace(
        digits,
        pairs=(Pair("t", "s"), Pair("t", "s2")),
        models={"s": ModelSpec("resnet8"), "s2": ModelSpec("resnet8")},
        views={"weak": WEAK, "strong": STRONG},
    )


def with_recipe(**changes):
    return lambda suite: dataclasses.replace(suite, recipe=dataclasses.replace(suite.recipe, **changes))


def with_pair(**recipe):
    return lambda suite: dataclasses.replace(suite, pairs=(Pair("t", "s", recipe), *suite.pairs[1:]))


def with_data(**changes):
    return lambda suite: dataclasses.replace(suite, dataset=dataclasses.replace(suite.dataset, **changes))


def with_view(name, **changes):
    def change(suite):
        return dataclasses.replace(
            suite, views={**suite.views, name: dataclasses.replace(suite.views[name], **changes)}
        )

    return change


def with_student(arch="resnet8", **args):
    return lambda suite: dataclasses.replace(suite, models={**suite.models, "s": ModelSpec(arch, args)})


def cells(suite, method, split_id="a" * 12, cache=False):
    ids = {"t": "b" * 12}
    return plan_cells(Selection(suite, [method], suite.pairs, SEEDS), split_id, ids, cache)


def rows(found, gain=0.0, **changes):
    """What runs of these cells leave in a results file; each method reaches its own accuracy."""
    return [
        scenarios.run(top1=70.0 + gain + cell.seed, **{**_identity_columns(cell), **changes})
        for cell in found
    ]


def boards(path, found):
    path.mkdir()
    return scenarios.boards(path, found)


def deltas(found, label="dkd", pair="t -> s"):
    """The differences of ``label`` to kd on one pair, in all tables that have both."""
    values = [
        each.entries.loc[(label, pair), "delta"]
        for each in found
        if label in each.labels and pair in each.table.pairs
    ]
    return [value for value in values if value == value]


def test_equal_settings_are_compared(suite, tmp_path):
    (one,) = boards(tmp_path / "r", rows(cells(suite, "kd")) + rows(cells(suite, "dkd"), 1.0))
    assert deltas([one]) == [1.0]
    assert one.table.setting == ""


EDITS = [
    with_data(mean=(0.4, 0.3, 0.3)),
    with_data(std=(0.4, 0.3, 0.3)),
    with_view("weak", pad=2),
    with_view("weak", flip=True),
    with_recipe(lr=0.03),
    with_recipe(batch_size=32),
    with_recipe(weight_decay=1e-4),
    with_recipe(train_views=("weak", "strong")),
    with_pair(lr=0.03),
    with_pair(weight_decay=1e-4),
    with_student("resnet14"),
    with_student(widths=[8, 8, 16, 16]),
]


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_suite_is_another_table(suite, tmp_path, edit):
    found = boards(tmp_path / "r", rows(cells(suite, "kd")) + rows(cells(edit(suite), "dkd"), 1.0))
    assert len(found) == 2
    assert deltas(found) == []
    assert len({each.table.heading for each in found}) == 2


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
@pytest.mark.slow
def test_unlike_identities_are_never_subtracted(suite, data):
    check_unlike(suite, data)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_unlike_identities_are_never_subtracted_long(suite, data):
    check_unlike(suite, data)


def check_unlike(suite, data):
    """Runs of several methods under randomly edited suites: every difference shown is between equal settings."""
    methods = ["ce", "kd", "dkd", "mlkd", "crld"]
    edits = [*EDITS, with_view("strong", magnitude=5), lambda same: same]
    found, by_id = [], {}
    for n in range(data.draw(st.integers(2, 6))):
        changed = suite
        for edit in data.draw(st.lists(st.sampled_from(edits), max_size=2)):
            changed = edit(changed)
        method = data.draw(st.sampled_from(methods))
        cache, split = data.draw(st.booleans()), data.draw(st.sampled_from(["a" * 12, "a" * 11 + "c"]))
        for cell in cells(changed, method, split, cache):
            by_id[cell.id] = cell
            found += rows([cell], gain=n)
    with tempfile.TemporaryDirectory() as folder:
        for each in scenarios.boards(Path(folder), found):
            for _, alike in each.table.finished.groupby(["pair", "seed"]):
                chosen = [by_id[cell_id] for cell_id in alike["cell_id"]]
                assert all(comparable(one, other) for one in chosen for other in chosen)


def comparable(one, other):
    """By the identities themselves: equal but for method, parameters, teacher, seed and views that only one reads."""
    first, second = one.identity(), other.identity()
    same = all(first[key] == second[key] for key in ("split", "normalise", "recipe", "student"))
    views = all(
        first["views"][v] == second["views"][v] for v in first["views"].keys() & second["views"].keys()
    )
    caches = {each.facts.get("teacher_logits") for each in (one, other)} - {None}
    return same and views and len(caches) < 2


def test_a_method_of_one_view_joins_both_strong_views(suite, tmp_path):
    edited = with_view("strong", magnitude=5)(suite)
    found = boards(
        tmp_path / "r",
        rows(cells(suite, "kd")) + rows(cells(suite, "mlkd"), 1.0) + rows(cells(edited, "crld"), 2.0),
    )
    assert [sorted(each.labels) for each in found] == [["crld", "kd"], ["kd", "mlkd"]]
    assert (deltas(found, "crld"), deltas(found, "mlkd")) == ([2.0], [1.0])
    assert found[0].table.setting == "view strong: magnitude 5"
    assert found[1].table.setting == "view strong: magnitude 10"


def test_the_newest_setting_comes_first_and_says_what_differs(suite, tmp_path):
    edited = with_student(widths=[8, 8, 16, 16])(suite)
    first, second = boards(tmp_path / "r", rows(cells(suite, "kd")) + rows(cells(edited, "kd")))
    assert 'student s: ["s", "resnet8", {"widths": [8, 8, 16, 16]}]' in first.table.setting
    assert any("have another setting" in line and "student s" in line for line in notes(second))


def test_a_pair_that_was_not_edited_is_in_both_tables(suite, tmp_path):
    edited = with_student("resnet14")(suite)
    found = boards(tmp_path / "r", rows(cells(suite, "kd")) + rows(cells(edited, "dkd"), 1.0))
    assert [sorted(each.table.pairs) for each in found] == [["t -> s", "t -> s2"]] * 2
    assert deltas(found, pair="t -> s2") == [1.0, 1.0]


def test_plain_training_joins_only_pairs_of_its_recipe(suite, tmp_path):
    two = dataclasses.replace(suite, pairs=(Pair("t", "s"), Pair("u", "s", {"lr": 0.03})))
    ids = {"t": "b" * 12, "u": "c" * 12}
    found = plan_cells(Selection(two, ["ce", "kd"], two.pairs, SEEDS), "a" * 12, ids)
    by_lr = [row for cell in found for row in rows([cell], gain=100 * cell.recipe.lr)]
    (one,) = boards(tmp_path / "r", by_lr)
    assert one.entries.loc[("ce", "t -> s"), "mean"] == pytest.approx(70.5 + 100 * suite.recipe.lr)
    assert one.entries.loc[("ce", "u -> s"), "mean"] == pytest.approx(73.5)


def test_rows_of_unknown_setting_stand_apart(suite, tmp_path):
    unknown = rows(cells(suite, "dkd"), 1.0, setting="", facts="")
    found = boards(tmp_path / "r", rows(cells(suite, "kd")) + unknown)
    assert deltas(found) == []
    assert any("results upgrade" in line for line in notes(found[0]))


def test_unknown_settings_alone_are_compared(suite, tmp_path):
    both = rows(cells(suite, "kd"), setting="", facts="") + rows(
        cells(suite, "dkd"), 1.0, setting="", facts=""
    )
    (one,) = boards(tmp_path / "r", both)
    assert deltas([one]) == [1.0]


def test_cached_teachers_are_another_setting(suite, tmp_path):
    both = (
        rows(cells(suite, "kd")) + rows(cells(suite, "dkd", cache=True), 1.0) + rows(cells(suite, "crd"), 2.0)
    )
    found = boards(tmp_path / "r", both)
    assert deltas(found) == []
    assert deltas(found, "crd") == [2.0]  # its features are never cached


def test_facts_and_id_agree(suite):
    kd, dkd = cells(suite, "kd")[0], cells(suite, "dkd")[0]
    assert kd.facts == dkd.facts
    assert kd.id != dkd.id
    identity = kd.identity()
    assert kd.facts == {
        **{key: identity[key] for key in identity.keys() - {"method", "teacher", "seed"}},
        "teacher_logits": "computed",
    }
    assert setting.parse(json.dumps(kd.facts)) == json.loads(json.dumps(kd.facts))


CODES = ["1" * 12, "2" * 12]


def coded(method, code, seeds, gain):
    return [scenarios.run(method, 70.0 + gain, seed=seed, code_hash=code) for seed in seeds]


def test_runs_of_several_codes_are_never_averaged(tmp_path):
    older, newer = coded("dkd", CODES[0], range(3), 0.0), coded("dkd", CODES[1], range(3, 6), 8.0)
    (one,) = boards(tmp_path / "r", coded("kd", CODES[0], range(6), 1.0) + older + newer)
    means = one.entries["mean"].droplevel("pair").to_dict()
    assert means == {"kd": 71.0, "dkd": 78.0, "dkd (code 1111)": 70.0}
    assert one.table.codes == ("dkd (code 1111)",)
    assert any("dkd (code 1111)" in line and "--force" in line for line in notes(one))


def test_a_cell_that_was_trained_again_counts_once(tmp_path):
    older = coded("kd", CODES[0], range(2), 0.0)
    newer = [{**row, "code_hash": CODES[1], "top1": 72.0} for row in older]
    (one,) = boards(tmp_path / "r", older + newer)
    assert one.labels == ["kd"]
    assert one.entries["mean"].tolist() == [72.0]


@pytest.mark.parametrize(("column", "values"), [("device", ["gpu", "cpu"]), ("threads", [1, 2])])
def test_mixed_machines_are_named(tmp_path, column, values):
    mixed = [scenarios.run(seed=seed, **{column: value}) for seed, value in enumerate(values)]
    (one,) = boards(tmp_path / "r", mixed)
    assert any("rounding" in line and str(values[0]) in line for line in notes(one))
    (same,) = boards(tmp_path / "s", [{**row, column: values[0]} for row in mixed])
    assert not any("rounding" in line for line in notes(same))
