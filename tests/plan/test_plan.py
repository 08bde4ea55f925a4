"""From a selection to cells and from cells to cohorts."""

import dataclasses
from typing import ClassVar

import pandas as pd
import pytest

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method, Needs
from kdbench.plan.cells import plan_cells
from kdbench.plan.cohorts import form_cohorts
from kdbench.plan.selection import Selection
from kdbench.runner import describe
from kdbench.suites import Pair
from tests.support.scenarios import run

SIX = ["ce", "kd", "dkd", "mlkd", "ctkd", "bickd"]


# --- the matrix ---


def test_seeds_are_outermost_then_pairs_then_methods(lab):
    pairs = [Pair("teacher", "student"), Pair("teacher", "resnet8")]
    cells = plan_cells(Selection(lab.suite, ["kd", "dkd"], pairs, [1, 0]), "s", {"teacher": "t"})
    expected = [(seed, p.student, m) for seed in (1, 0) for p in pairs for m in ("kd", "dkd")]
    assert [(c.seed, c.student, c.method) for c in cells] == expected


def test_several_values_multiply_the_matrix(lab):
    cells = lab.cells("ce", "kd", sets={"kd": {"temperature": [1.0, 2.0], "kd_weight": [0.5, 0.9]}})
    assert [c.variant for c in cells] == [
        "",
        "temperature=1 kd_weight=0.5",
        "temperature=1",
        "temperature=2 kd_weight=0.5",
        "temperature=2",
    ]
    assert len({c.id for c in cells}) == 5


def test_parameters_suite_below_pair_below_user(lab):
    suite = dataclasses.replace(
        lab.suite, params={"kd": {"temperature": 2.0, "ce_weight": 0.2, "kd_weight": 0.2}}
    )
    pair = Pair("teacher", "student", params={"kd": {"ce_weight": 0.3, "kd_weight": 0.3}})
    sets = {"kd": {"kd_weight": [0.4]}}
    (cell,) = plan_cells(Selection(suite, ["kd"], [pair], [0], sets), "s", {"teacher": "t"})
    assert cell.params == {"temperature": 2.0, "ce_weight": 0.3, "kd_weight": 0.4}
    assert cell.build_method().params == cell.params


def test_the_variant_tells_only_what_differs_from_suite_and_pair(lab):
    """The default 4 is a variant here, and the suite's 2 and the pair's 0.3 are not, though the user typed them."""
    suite = dataclasses.replace(lab.suite, params={"kd": {"temperature": 2.0}})
    pair = Pair("teacher", "student", params={"kd": {"ce_weight": 0.3}})
    sets = {"kd": {"temperature": [4.0, 2.0], "ce_weight": [0.3]}}
    cells = plan_cells(Selection(suite, ["kd"], [pair], [0], sets), "s", {"teacher": "t"})
    assert [c.variant for c in cells] == ["temperature=4", ""]


def test_variants_of_different_cells_are_different_texts(lab):
    """Reports group rows by this text."""
    cells = lab.cells("kd", sets={"kd": {"temperature": [4.0000001, 4.0000002]}})
    assert len({c.id for c in cells}) == 2
    assert len({c.variant for c in cells}) == 2


def test_values_in_a_variant_read_as_they_are_typed(lab):
    cells = lab.cells("mlkd", "ctkd", sets={"mlkd": {"form": ["code"]}, "ctkd": {"standardize": [True]}})
    assert [str(c) for c in cells] == ["mlkd form=code", "ctkd standardize=true"]


def test_one_id_is_one_cell(lab):
    """ce needs no teacher: with two teachers of one student it is still one run."""
    pairs = [Pair("teacher", "student"), Pair("other", "student")]
    ids = {"teacher": "t", "other": "o"}
    cells = plan_cells(Selection(lab.suite, ["ce", "kd"], pairs, [0, 0]), "s", ids)
    assert [(c.method, c.teacher) for c in cells] == [("ce", None), ("kd", "teacher"), ("kd", "other")]


def test_a_pairs_recipe_is_over_the_suites_not_its_id(lab):
    (cell,) = lab.cells("kd", recipe={"lr": 0.01})
    (plain,) = lab.cells("kd")
    assert (cell.recipe.lr, plain.recipe.lr) == (0.01, 0.05)
    assert cell.recipe_id == plain.recipe_id == lab.suite.recipe.id


def test_what_the_user_types_is_over_the_pairs_recipe(lab):
    own = 'student = "student"\nrecipe = { epochs = 4, lr = 0.01 }\n'
    replaced = ('student = "student"\n', own)
    assert [c.recipe.epochs for c in lab.inputs(replaced, methods=["ce"]).cells()] == [4]
    (cell,) = lab.inputs(replaced, methods=["ce"], epochs=1).cells()
    assert (cell.recipe.epochs, cell.recipe.lr) == (1, 0.01)


def test_a_view_that_the_suite_lacks_names_method_and_table(lab):
    suite = dataclasses.replace(lab.suite, views={"weak": lab.suite.views["weak"]})
    with pytest.raises(
        KdbenchError, match=r"mlkd needs the view 'strong'; add \[views\.strong\] to suite tiny"
    ):
        plan_cells(Selection(suite, ["mlkd"], suite.pairs, [0]), "s", {"teacher": "t"})

    class Turned(Method):
        needs: ClassVar[Needs] = Needs(views=("strong@1",))

    registry.register(Turned)
    with pytest.raises(KdbenchError, match=r"needs the view 'strong@1'; add \[views\.strong\] to suite tiny"):
        plan_cells(Selection(suite, ["turned"], suite.pairs, [0]), "s", {"teacher": "t"})


def test_turned_views_need_no_table_and_count_for_the_id(lab):
    (cell,) = lab.cells("sskd")
    weak = lab.suite.views["weak"].identity()
    turned = {f"weak@{turn}": {**weak, "turn": turn} for turn in (1, 2, 3)}
    assert cell.identity()["views"] == {"weak": weak, **turned}


def test_an_unknown_parameter_in_the_suite_names_the_fields(lab):
    with pytest.raises(KdbenchError, match="unknown parameter 'temp' for kd; it has temperature"):
        lab.cells("kd", params={"kd": {"temp": 2.0}})


def test_parameters_of_an_unknown_method_are_an_error(lab):
    """A slip of the pen must not train the method with its defaults."""
    slip = ('student = "student"\n', 'student = "student"\nparams = { kdd = { temperature = 2.0 } }\n')
    with pytest.raises(KdbenchError, match=r"unknown method 'kdd'.*did you mean 'kd"):
        lab.inputs(slip, methods=["ce"])


# --- cohorts ---


def _names(cohorts):
    return [[(c.method, c.seed) for c in cohort] for cohort in cohorts]


def test_a_seed_and_a_teacher_make_a_cohort(lab):
    pairs = [Pair("teacher", "student"), Pair("other", "student")]
    ids = {"teacher": "t", "other": "o"}
    cells = plan_cells(Selection(lab.suite, ["kd", "dkd"], pairs, [0, 1]), "s", ids)
    cohorts = form_cohorts(cells, {})
    assert [{(c.seed, c.teacher) for c in group} for group in cohorts] == [
        {(0, "teacher")},
        {(0, "other")},
        {(1, "teacher")},
        {(1, "other")},
    ]
    assert [len(group) for group in cohorts] == [2, 2, 2, 2]


def test_cells_without_a_teacher_join_one_that_has(lab):
    pairs = [Pair("teacher", "student"), Pair("other", "student")]
    ids = {"teacher": "t", "other": "o"}
    cells = plan_cells(Selection(lab.suite, ["kd", "ce"], pairs, [0]), "s", ids)
    cohorts = form_cohorts(cells, {})
    assert sorted(len(group) for group in cohorts) == [1, 2]
    assert _names(form_cohorts([c for c in cells if c.method == "ce"], {})) == [[("ce", 0)]]


def test_two_files_of_one_teacher_name_are_two_cohorts(lab):
    cells = [
        plan_cells(Selection(lab.suite, ["kd"], lab.suite.pairs, [0]), "s", {"teacher": t})[0] for t in "ab"
    ]
    assert len(form_cohorts(cells, {})) == 2


def test_another_position_is_another_cohort(lab):
    cells = lab.cells("ce", "kd", "dkd")
    positions = {cells[0].id: (1, 0), cells[2].id: (1, 0)}
    assert _names(form_cohorts(cells, positions)) == [[("ce", 0), ("dkd", 0)], [("kd", 0)]]
    assert len(form_cohorts(cells, {cells[0].id: (1, 0), cells[1].id: (1, 3)})) == 3


def test_an_explicit_start_is_the_same_position_as_none(lab):
    cells = lab.cells("ce", "kd")
    assert len(form_cohorts(cells, {cells[0].id: (0, 0)})) == 1


@pytest.mark.parametrize(
    "recipe",
    [{"lr": 0.01}, {"weight_decay": 0.0}, {"momentum": 0.0}, {"schedule": "onecycle"}, {"decay": 0.5}],
)
def test_cells_of_different_rates_train_side_by_side(lab, recipe):
    assert len(form_cohorts(lab.cells("kd") + lab.cells("kd", recipe=recipe), {})) == 1


@pytest.mark.parametrize(
    "recipe", [{"epochs": 3}, {"reference_epochs": 200}, {"batch_size": 8}, {"precision": "bf16"}]
)
def test_cells_that_cannot_share_batches_are_apart(lab, recipe):
    assert len(form_cohorts(lab.cells("kd") + lab.cells("kd", recipe=recipe), {})) == 2


def test_students_and_methods_may_differ_in_a_cohort(lab):
    cells = lab.cells("kd", "mlkd") + lab.cells("kd", student="resnet8")
    assert [len(group) for group in form_cohorts(cells, {})] == [3]


def test_every_cell_is_in_exactly_one_cohort(lab):
    pairs = [Pair("teacher", "student"), Pair("other", "student", recipe={"batch_size": 8})]
    ids = {"teacher": "t", "other": "o"}
    cells = plan_cells(Selection(lab.suite, SIX, pairs, [0, 1, 2]), "s", ids)
    positions = {cell.id: (number % 3, 0) for number, cell in enumerate(cells)}
    trained = [c.id for group in form_cohorts(cells, positions) for c in group]
    assert sorted(trained) == sorted(c.id for c in cells)
    assert len(trained) == 2 * 3 * 6


@pytest.mark.parametrize(
    ("at_least", "sizes"), [(0, [6]), (1, [6]), (2, [3, 3]), (3, [2, 1, 3]), (4, [2, 1, 2, 1]), (9, [1] * 6)]
)
def test_the_largest_cohorts_are_halved_until_each_device_has_one(lab, at_least, sizes):
    cells = lab.cells(*SIX)
    cohorts = form_cohorts(cells, {}, at_least)
    assert [len(cohort) for cohort in cohorts] == sizes
    assert [cell for cohort in cohorts for cell in cohort] == form_cohorts(cells, {})[0]
    assert form_cohorts([], {}, at_least) == []


def test_a_cohort_needs_no_teacher_where_no_cell_does(scratch_registry, lab):
    class Solo(Method):
        needs: ClassVar[Needs] = Needs(teacher=False)

    registry.register(Solo)
    cells = lab.cells("solo", "ce")
    assert [c.teacher for c in cells] == [None, None]
    assert len(form_cohorts(cells, {})) == 1


# --- how long it takes ---


def test_hours_come_from_rows_of_the_method_or_the_student(lab):
    """kd took 10 s an epoch (the median), dkd never ran: 2 cells x 8 epochs x 10 s."""
    cells = plan_cells(
        Selection(lab.using(epochs=8).suite, ["kd", "dkd"], lab.suite.pairs, [0]), "s", {"teacher": "t"}
    )
    past = [
        run("kd", pair=("t", "student"), train_s=seconds, eval_s=0.0, epochs_done=2)
        for seconds in (18.0, 20.0, 90.0)
    ]
    rows = pd.DataFrame(past)
    assert describe.estimate(rows, cells) == "about 3 min of the students' own training, by earlier runs here"
    assert describe.estimate(rows[:0], cells).startswith("no earlier runs to estimate the time from")
    assert describe.estimate(rows[:0], []) == "about 0 s of the students' own training, by earlier runs here"
