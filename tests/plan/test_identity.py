"""What is in a cell's id and what is out, one test per entry."""

import dataclasses
import hashlib
import json
from dataclasses import field
from typing import ClassVar

import numpy as np
import pytest
import torch

import kdbench
from kdbench import registry
from kdbench.data.loading import load_split
from kdbench.method import Method, Needs
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import Selection
from kdbench.suites import ModelSpec, Pair, Recipe
from kdbench.suites.schema import View, Weights
from kdbench.teachers.weights import open_teacher

# --- the cell ---


@pytest.fixture
def cell(lab):
    """The id of one cell of the laboratory's suite, changed as asked."""

    def make(method="kd", suite=None, pair=None, seed=0, params=None, split_id="split0", teacher_id="abc"):
        pair = pair or Pair("teacher", "student")
        sets = {method: {key: [value] for key, value in (params or {}).items()}}
        selection = Selection(suite or lab.suite, [method], [pair], [seed], sets)
        cells = plan_cells(selection, split_id, {pair.teacher: teacher_id})
        assert len(cells) == 1
        return cells[0]

    return make


@pytest.fixture
def suite(lab):
    """The laboratory's suite with some fields changed."""

    def make(**changes):
        return dataclasses.replace(lab.suite, **changes)

    return make


def test_the_id_is_the_hash_of_this_text(cell):
    """By hand: a change of this text orphans every row that was ever written."""
    assert cell().identity() == {
        "split": "split0",
        "normalise": [(0.4, 0.4, 0.4), (0.3, 0.3, 0.3)],
        "views": {"weak": {"pad": 1, "flip": True, "ops": 0, "magnitude": 0, "cutout": 0.0}},
        "recipe": cell().recipe.identity(),
        "teacher": ["teacher", "abc"],
        "student": ["student", "resnet8", {"widths": [4, 4, 8, 8]}],
        "method": ["kd", 1, {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9}],
        "seed": 0,
    }
    text = json.dumps(cell().identity(), sort_keys=True, separators=(",", ":"))
    assert cell().id == hashlib.sha256(text.encode()).hexdigest()[:12]


# --- in ---


def test_in_split_hash(cell):
    assert cell(split_id="split1").id != cell().id


def test_in_one_pixel_and_one_label_of_the_data(lab, cell, tmp_path):
    """Through real files: the split's hash is of the content, whatever the order of the rows."""
    arrays = dict(np.load(lab.data / "tiny.npz"))

    def cell_of(name, **changes):
        folder = tmp_path / name
        folder.mkdir()
        np.savez(folder / "tiny.npz", **(arrays | changes))
        return cell(split_id=load_split(lab.suite.dataset, "test", folder).id).id

    pixel, label = arrays["x_train"].copy(), arrays["y_test"].copy()
    pixel[3, 0, 0, 0] ^= 1
    label[0], label[1] = label[1], label[0]
    same = cell_of("same")
    assert cell_of("pixel", x_train=pixel) != same
    assert cell_of("label", y_test=label) != same
    turned = {key: value[::-1] for key, value in arrays.items()}
    assert cell_of("turned", **turned) == same


def test_in_test_or_holdout(lab, cell):
    splits = [load_split(lab.suite.dataset, name, lab.data).id for name in ("test", "holdout")]
    assert cell(split_id=splits[0]).id != cell(split_id=splits[1]).id


@pytest.mark.parametrize("key", ["mean", "std"])
def test_in_normalisation(cell, suite, lab, key):
    dataset = dataclasses.replace(lab.suite.dataset, **{key: (0.4, 0.4, 0.41)})
    assert cell(suite=suite(dataset=dataset)).id != cell().id


@pytest.mark.parametrize(
    "changes", [{"pad": 2}, {"flip": False}, {"ops": 1}, {"magnitude": 5}, {"cutout": 0.5}]
)
def test_in_each_field_of_a_view_that_the_method_uses(cell, suite, lab, changes):
    weak = dataclasses.replace(lab.suite.views["weak"], **changes)
    assert cell(suite=suite(views={**lab.suite.views, "weak": weak})).id != cell().id


def test_in_the_second_view_of_a_two_view_method(cell, suite, lab):
    changed = suite(views={**lab.suite.views, "strong": View(pad=2)})
    assert cell("mlkd", suite=changed).id != cell("mlkd").id


RECIPE_CHANGES = {
    "epochs": 3, "reference_epochs": 200, "batch_size": 32, "lr": 0.1, "momentum": 0.8, "nesterov": True,
    "weight_decay": 1e-4, "schedule": "onecycle", "precision": "bf16", "milestones": (150, 180),
    "decay": 0.2, "peak": 0.5, "eval_every": 2, "train_views": ("strong",), "optimizer": "adamw",
    "optimizer_args": {"eps": 1e-6}, "warmup_epochs": 5.0, "clip": 5.0, "label_smoothing": 0.1, "mixup": 0.2,
    "ema": 0.99, "trains": "head",
}  # fmt: skip


def test_every_field_of_the_recipe_is_in_the_table_above():
    assert set(RECIPE_CHANGES) == {f.name for f in dataclasses.fields(Recipe)}


@pytest.mark.parametrize("key", sorted(set(RECIPE_CHANGES) - {"eval_every"}))
def test_in_each_field_of_the_recipe(cell, suite, lab, key):
    schedule = "onecycle" if key == "peak" else "step"
    optimizer = "adamw" if key == "optimizer_args" else "sgd"
    base = suite(recipe=dataclasses.replace(lab.suite.recipe, schedule=schedule, optimizer=optimizer))
    changed = suite(recipe=dataclasses.replace(base.recipe, **{key: RECIPE_CHANGES[key]}))
    assert cell(suite=changed).id != cell(suite=base).id


WEIGHTS = Weights("resnet8.x", "0123456789ab", "a.safetensors", 1000, 224, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def started(cell, suite, lab):
    """The laboratory's cell whose student starts from weights, some fields of which are changed."""

    def make(**changes):
        student = dataclasses.replace(
            lab.suite.models["student"], weights=dataclasses.replace(WEIGHTS, **changes)
        )
        return cell(suite=suite(models={**lab.suite.models, "student": student}))

    return make


def test_in_the_weights_that_a_student_starts_from(started):
    assert started().identity()["student"] == [
        "student",
        "resnet8",
        {"widths": [4, 4, 8, 8]},
        {"weights": "0123456789ab", "normalise": [(0.5,) * 3, (0.5,) * 3]},
    ]


@pytest.mark.parametrize(
    ("changes", "matters"),
    [
        ({"id": "1123456789ab"}, True),
        ({"mean": (0.4, 0.5, 0.5)}, True),
        ({"std": (0.4, 0.5, 0.5)}, True),
        ({"source": "local-dir:elsewhere"}, False),
        ({"file": "b.safetensors"}, False),
        ({"license": "mit"}, False),
    ],
)
def test_in_their_tensors_and_normalisation_alone(started, changes, matters):
    assert (started(**changes).id != started().id) == matters


@pytest.mark.parametrize("key", ["momentum", "nesterov"])
def test_out_momentum_of_another_optimizer(cell, suite, lab, key):
    base = suite(recipe=dataclasses.replace(lab.suite.recipe, optimizer="adamw"))
    changed = suite(recipe=dataclasses.replace(base.recipe, **{key: RECIPE_CHANGES[key]}))
    assert cell(suite=changed).id == cell(suite=base).id


def test_in_a_pairs_own_recipe(cell):
    assert cell(pair=Pair("teacher", "student", recipe={"lr": 0.01})).id != cell().id


def test_in_teacher_name(cell):
    assert cell(pair=Pair("other", "student")).id != cell().id


def test_in_teacher_hash(cell):
    assert cell(teacher_id="abd").id != cell().id


def test_in_student_name(cell, suite, lab):
    """Its stream of initial weights hangs on the name, so two names of one network are two students."""
    twins = suite(models={**lab.suite.models, "twin": lab.suite.models["student"]})
    assert cell(suite=twins, pair=Pair("teacher", "twin")).id != cell(suite=twins).id


@pytest.mark.parametrize(
    "model",
    [ModelSpec("resnet8", {"widths": [4, 4, 8, 12]}), ModelSpec("resnet14", {"widths": [4, 4, 8, 8]})],
)
def test_in_student_architecture_and_arguments(cell, suite, lab, model):
    assert cell(suite=suite(models={**lab.suite.models, "student": model})).id != cell().id


def test_in_method(cell):
    """mlkd and crld, say, may have equal parameters: the name counts by itself."""
    assert cell("dkd", params={"temperature": 4.0}).id != cell("kd", params={"temperature": 4.0}).id


def _method(version: int, default: float):
    class Fake(Method):
        scale: float = default
        later: bool = field(default=False, metadata={"neutral": False})

    Fake.version = version
    return registry.register(Fake)


def test_in_method_version(cell):
    _method(1, 2.0)
    before = cell("fake").id
    _method(2, 2.0)
    assert cell("fake").id != before


def test_in_a_default_that_was_changed(cell):
    """All resolved parameters are in, also those that nobody set."""
    _method(1, 2.0)
    before, explicit = cell("fake").id, cell("fake", params={"scale": 3.0}).id
    _method(1, 3.0)
    assert cell("fake").id == explicit != before


@pytest.mark.parametrize("key", ["temperature", "ce_weight", "kd_weight"])
def test_in_each_parameter(cell, key):
    assert cell(params={key: 0.25}).id != cell().id


def test_in_a_later_field_that_left_its_neutral_value(cell):
    _method(1, 2.0)
    assert cell("fake", params={"later": True}).id != cell("fake").id


def test_in_seed(cell):
    assert cell(seed=1).id != cell().id


# --- out ---


def test_out_suite_name_and_description(cell, suite):
    assert cell(suite=suite(name="another", description="another")).id == cell().id


def test_out_what_else_the_suite_runs(cell, suite):
    others = suite(methods=("dkd",), seeds=(0, 1, 2, 3), pairs=(Pair("a", "b"), Pair("teacher", "student")))
    assert cell(suite=others).id == cell().id


def test_out_recipe_of_other_pairs_and_of_the_teacher(cell, suite):
    changed = suite(teacher_recipe={"lr": 0.3}, pairs=(Pair("a", "b", recipe={"lr": 0.3}),))
    assert cell(suite=changed).id == cell().id


def test_out_where_a_value_comes_from(cell, suite, lab):
    """The same lr from the suite and from the pair, the same temperature from suite, pair and user."""
    slow = suite(recipe=dataclasses.replace(lab.suite.recipe, lr=0.01))
    assert cell(suite=slow).id == cell(pair=Pair("teacher", "student", recipe={"lr": 0.01})).id
    ways = [
        cell(suite=suite(params={"kd": {"temperature": 2.0}})),
        cell(pair=Pair("teacher", "student", params={"kd": {"temperature": 2.0}})),
        cell(params={"temperature": 2.0}),
    ]
    assert len({c.id for c in ways}) == 1
    assert [c.variant for c in ways] == ["", "", "temperature=2"]  # the text differs and is out


def test_out_an_int_where_a_float_is_meant(cell, suite):
    assert cell(suite=suite(params={"kd": {"temperature": 2}})).id == cell(params={"temperature": 2.0}).id


def test_out_a_later_field_at_its_neutral_value(cell):
    """A field that is added to a method does not orphan the rows that it had before."""
    _method(1, 2.0)
    with_field = cell("fake").id

    class Fake(Method):
        scale: float = 2.0

    registry.register(Fake)
    assert cell("fake").id == with_field


def test_out_eval_every(cell, suite, lab):
    often = suite(recipe=dataclasses.replace(lab.suite.recipe, eval_every=7))
    assert cell(suite=often).id == cell().id


@pytest.mark.parametrize(
    ("schedule", "changes"), [("step", {"peak": 0.5}), ("onecycle", {"milestones": (3,), "decay": 0.5})]
)
def test_out_settings_of_the_schedule_that_is_not_used(cell, suite, lab, schedule, changes):
    base = dataclasses.replace(lab.suite.recipe, schedule=schedule)
    changed = dataclasses.replace(base, **changes)
    assert cell(suite=suite(recipe=changed)).id == cell(suite=suite(recipe=base)).id


def test_out_the_strong_view_for_a_one_view_method(cell, suite, lab):
    changed = suite(views={**lab.suite.views, "strong": View(pad=2), "third": View()})
    assert cell(suite=changed).id == cell().id
    assert cell(suite=suite(views={"weak": lab.suite.views["weak"]})).id == cell().id


def test_out_the_teacher_of_a_method_that_needs_none(cell):
    alone = cell("ce")
    assert (alone.teacher, alone.teacher_id) == (None, None)
    assert cell("ce", pair=Pair("other", "student"), teacher_id="123").id == alone.id


def test_out_expected_accuracy(cell, suite):
    assert cell(suite=suite(teachers={"teacher": None})).id == cell().id


def test_out_name_and_place_of_the_teacher_file(cell, lab, tmp_path):
    """A .pth elsewhere with the same numbers is the same teacher."""
    spec = lab.suite.models["teacher"]
    torch.save({"model": lab.teacher.net(lab.suite.dataset).model.state_dict()}, tmp_path / "somewhere.pth")
    moved = open_teacher("teacher", spec, tmp_path / "somewhere.pth", lab.suite.dataset, 99.0)
    assert cell(teacher_id=moved.id).id == cell(teacher_id=lab.teacher.id).id


def test_out_place_of_the_data(cell, lab, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "tiny.npz").write_bytes((lab.data / "tiny.npz").read_bytes())
    ids = [load_split(lab.suite.dataset, "test", folder).id for folder in (lab.data, tmp_path / "elsewhere")]
    assert cell(split_id=ids[0]).id == cell(split_id=ids[1]).id


def test_out_cohort(lab, cell):
    """Which methods, seeds and pairs are asked for beside it."""
    ids = {"teacher": "abc", "other": "xyz"}
    pairs = [Pair("other", "student"), Pair("teacher", "student")]
    crowd = plan_cells(Selection(lab.suite, ["ce", "dkd", "kd"], pairs, [1, 0]), "split0", ids)
    assert cell().id in {c.id for c in crowd}


def test_out_folders_and_device(lab, tmp_path):
    """The whole way from a command line: another results folder, data folder, teacher folder, device."""
    state = lab.teacher.net(lab.suite.dataset).model.state_dict()
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        torch.save(state, folder / "teacher.pth")
    (tmp_path / "moved").symlink_to(lab.data)
    here = lab.inputs(teacher_weights=tmp_path / "one")
    there = lab.inputs(
        teacher_weights=tmp_path / "two", results=tmp_path / "r", data_dir=tmp_path / "moved", device="auto"
    )
    assert [c.id for c in here.cells()] == [c.id for c in there.cells()]


def test_out_threads_versions_and_commit(cell, monkeypatch):
    before = cell().id
    monkeypatch.setattr(torch, "__version__", "9.9")
    monkeypatch.setattr(kdbench, "__version__", "9.9")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert cell().id == before


def test_out_the_code_of_the_method(cell, tmp_path):
    """Its version is in; an edit that gives the same numbers is only warned of."""
    for number, body in enumerate(("1.0 * x", "x")):
        file = tmp_path / f"v{number}" / "edited.py"
        file.parent.mkdir()
        file.write_text(
            "from kdbench.method import Method\nfrom kdbench.registry import register\n"
            f"@register\nclass Edited(Method):\n    def loss(self, x, *rest):\n        return {body}\n"
        )
    ids, hashes = [], []
    for folder in ("v0", "v1"):
        registry._entries.pop("edited", None)
        registry.load(tmp_path / folder)
        ids.append(cell("edited").id)
        hashes.append(registry.code_hash("edited"))
    assert ids[0] == ids[1]
    assert hashes[0] != hashes[1]


def test_needs_of_a_method_are_out_but_for_views_and_teacher(cell):
    class Fake(Method):
        needs: ClassVar[Needs] = Needs(stages=True, index=True)
        scale: float = 2.0

    registry.register(Fake)
    wide = cell("fake").id
    registry._entries.pop("fake")
    _method(1, 2.0)
    assert cell("fake").id == wide


def test_an_untrained_teacher_has_no_id_and_its_cells_no_rows(cell):
    assert cell(teacher_id=None).id != cell(teacher_id="abc").id
