"""The whole plug-in interface through the real loop, CNN to CNN and CNN to ViT: facts that methods may rely on."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from kdbench import models, registry
from kdbench.contract.toy_suite import CLASSES, TRAIN, Steps, ToyRuns, difference
from kdbench.contract.training_lab import EPOCHS, STEPS, TRAINED
from kdbench.data.augment import plain
from kdbench.data.loading import load_split
from kdbench.method import Needs
from kdbench.models import count_parameters
from kdbench.suites import ModelSpec, Pair
from kdbench.train.cohort import Cohort, train_cohort
from kdbench.train.job import Result

FILE = Path(__file__).parents[1] / "support" / "interface_methods.py"
VIT = {"img_size": 8, "patch_size": 2, "depth": 4, "embed_dim": 16, "num_heads": 2}
PAIRS = {name: Pair("teacher", name) for name in ("student", "vit", "timm")}
BATCH = TRAINED.recipe.batch_size
METHODS = ("everything", "maps", "bank", "means", "reuse", "clock", "choosy", "early", "ce", "kd")
SNEAKS = ("stages", "embedding", "features", "preact", "classify", "index", "strong")
FAULTS = ("build", "no module", "loss", "nan", "shape", "none", "empty", "update", "predict")


@pytest.fixture(scope="module")
def methods():
    """The module of test-only methods, registered while these tests run."""
    registry.load()
    before = dict(registry._entries)
    registry.load(FILE)
    name = registry.get("everything").__module__
    yield sys.modules[name]
    registry._entries.clear()
    registry._entries.update(before)
    del sys.modules[name]


@pytest.fixture(scope="module")
def toy(methods, tmp_path_factory):
    more = {"vit": ModelSpec("vit_tiny_patch16_224", VIT), "timm": ModelSpec("test_resnet")}
    models = {**TRAINED.models, **more}
    suite = dataclasses.replace(TRAINED, models=models, pairs=tuple(PAIRS.values()))
    return ToyRuns(tmp_path_factory.mktemp("interface"), suite)


@pytest.fixture(scope="module")
def runs(toy, methods):
    """Pair -> (result by method, what the methods noted), each pair one cohort."""
    found = {}
    for name in ("student", "vit"):
        methods.SEEN.clear()
        found[name] = toy.train(toy.cells(METHODS, PAIRS[name]), name), dict(methods.SEEN)
    return found


both = pytest.mark.parametrize("pair", ["student", "vit"])


@both
def test_all_but_the_choosy_are_trained(runs, pair):
    results, _ = runs[pair]
    assert {name: r.row["status"] for name, r in results.items()} == dict.fromkeys(METHODS, "ok") | {
        "choosy": "skipped"
    }
    assert results["choosy"].row["error"] == f"{CLASSES} classes are not the right number"


def test_shapes_on_a_cnn(runs):
    _, seen = runs["student"]
    assert seen["shapes student weak"][0] == {
        "logits": (BATCH, CLASSES),
        "embedding": (BATCH, 8),
        "features": (BATCH, 8, 2, 2),
        "stages": [(BATCH, 8, 8, 8), (BATCH, 8, 4, 4), (BATCH, 8, 2, 2)],
        "preact": [(BATCH, 8, 8, 8), (BATCH, 8, 4, 4), (BATCH, 8, 2, 2)],
    }


def test_shapes_on_a_vit(runs):
    _, seen = runs["vit"]
    four = [(BATCH, 16, 4, 4)] * 4
    assert seen["shapes student weak"][0] == {
        "logits": (BATCH, CLASSES),
        "embedding": (BATCH, 16),
        "features": (BATCH, 16, 4, 4),
        "stages": four,
        "preact": four,
    }


@both
def test_the_teacher_is_the_same_cnn_on_all_views_and_pairs(runs, pair):
    _, seen = runs[pair]
    for view in ("weak", "strong"):
        assert seen[f"shapes teacher {view}"][0]["stages"] == [
            (BATCH, 10, 8, 8), (BATCH, 10, 4, 4), (BATCH, 12, 2, 2)
        ]  # fmt: skip


@both
def test_outputs_agree_with_each_other(runs, pair):
    _, seen = runs[pair]
    for role in ("student", "teacher"):
        assert len(seen[f"head {role}"]) == EPOCHS * STEPS
        assert max(seen[f"head {role}"]) == 0  # classify(embedding) are the logits
        assert all(seen[f"first {role}"])  # no view named: the first of needs.views
        assert min(seen[f"views {role}"]) > 0  # the views differ
    assert max(seen["mean teacher"]) < 1e-5
    assert max(seen["relu teacher"]) == 0
    assert set(seen["learns"]) == {(True, False)}  # the student's head is live, the teacher's outputs are not


def test_the_embedding_is_the_last_maps_mean_where_stated(runs):
    for pair, linear in (("student", True), ("vit", False)):
        _, seen = runs[pair]
        student, teacher = seen["facts"][0]
        assert (student.linear_head, teacher.linear_head) == (linear, True)
        assert (max(seen["mean student"]) < 1e-5) is linear


def test_preact_precedes_the_relu_and_on_a_vit_is_the_stage(runs):
    assert max(runs["student"][1]["relu student"]) == 0
    assert min(runs["vit"][1]["relu student"]) > 0
    for pair in ("student", "vit"):
        assert runs[pair][1]["facts"][0][0].has_preact


def test_no_preact_is_a_skip_with_the_reason(toy):
    results = toy.train(toy.cells(["early", "ce", "reviewkd"], PAIRS["timm"]), "timm")
    assert results["early"].row["status"] == "skipped"
    assert results["early"].row["error"] == "the student has no pre-activation stages"
    assert results["ce"].row["status"] == "ok"
    assert (
        results["reviewkd"].row["status"] == "ok"
    )  # it reads the teacher's alone, unless it is told otherwise
    asked = {"reviewkd": {"student_preact": [True]}}
    results = toy.train(toy.cells(["reviewkd"], PAIRS["timm"], **asked), "timm")
    assert results["reviewkd"].row["error"] == "the student has no pre-activation stages"


@both
def test_the_facts_are_those_of_the_outputs(runs, pair):
    _, seen = runs[pair]
    for role, facts in zip(("student", "teacher"), seen["facts"][0], strict=True):
        shapes = seen[f"shapes {role} weak"][0]
        assert [(BATCH, s.channels, *s.size) for s in facts.stages] == shapes["stages"]
        assert (BATCH, facts.feature_channels, *facts.feature_size) == shapes["features"]
        assert (BATCH, facts.embedding_size) == shapes["embedding"]


@both
def test_modules_are_trained_and_counted_beside_the_student(runs, pair):
    results, _ = runs[pair]
    outputs = [10, 10, 12]
    inputs = [8, 8, 8] if pair == "student" else [16, 16, 16]
    expected = sum(i * o + o for i, o in zip(inputs, outputs, strict=True))
    assert results["maps"].row["extra_params"] == expected
    assert results["maps"].row["student_params"] == results["ce"].row["student_params"]
    losses = [value for _, term, value in results["maps"].curves if term == "loss_maps"]
    assert losses[-1] < losses[0]


@both
def test_predict_is_evaluated_and_its_modules_count(runs, pair):
    results, seen = runs[pair]
    row = results["reuse"].row
    size = 8 if pair == "student" else 16
    assert row["student_params"] - results["ce"].row["student_params"] == size * 12 + 12
    assert row["extra_params"] == 0
    # the last call, on one image, counts operations
    logits, own, training = seen["predicted"][-2]
    assert not torch.equal(logits, own)
    assert training is False
    targets = results["reuse"].details["confusion"].sum(axis=1)
    assert targets.sum() == len(logits)
    right = results["reuse"].details["confusion"].trace() / len(logits) * 100
    assert row["top1"] == pytest.approx(right)
    predicted = logits.argmax(dim=1).bincount(minlength=CLASSES)
    assert results["reuse"].details["confusion"].sum(axis=0).tolist() == predicted.tolist()


@both
def test_prepare_sees_each_train_sample_once_per_pass(runs, toy, pair):
    _, seen = runs[pair]
    assert seen["prepare grad"] == [False]
    first, second = seen["prepare"]
    assert sorted(first.tolist()) == list(range(TRAIN))
    assert torch.equal(first, second)
    assert seen["prepare last"][0] == [False] * (STEPS - 1) + [True]
    target, expected = seen["prepare target"][0]
    assert torch.equal(target, expected[first])
    assert all(torch.equal(means, seen["prepare means"][0]) for means in seen["means in loss"])


def test_prepare_means_are_those_of_the_plain_images(runs, toy):
    split = load_split(toy.suite.dataset, "test", toy.folder)
    net = toy.teacher("teacher").net(toy.suite.dataset).to(memory_format=torch.channels_last)
    with torch.no_grad():
        embedding = net(plain(split.train.images), Needs(embedding=True)).embedding
    for label in range(CLASSES):
        expected = embedding[split.train.targets == label].mean(dim=0)
        torch.testing.assert_close(runs["student"][1]["prepare means"][0][label], expected)


@both
def test_the_memory_changes_exactly_where_samples_were_seen(toy, methods, pair):
    methods.SEEN.clear()
    steps = Steps()
    cohort = Cohort(toy.job(toy.cells(["bank"], PAIRS[pair]), f"{pair} bank"), steps)
    cohort.run(lambda: steps.done == 3)
    (trainee,) = cohort.trainees
    index = torch.cat([index for index, _ in methods.SEEN["index"]])
    target = torch.cat([target for _, target in methods.SEEN["index"]])
    assert len(index.unique()) == len(index) == 3 * BATCH
    assert torch.equal(cohort.train.targets[index], target)
    seen = torch.zeros(TRAIN, dtype=torch.int64).index_fill(0, index, 1)
    assert torch.equal(trainee.modules.written, seen)
    assert torch.equal((trainee.modules.rows != 0).any(dim=1), seen.bool())


@both
def test_private_terms_reach_update_detached_only(runs, pair):
    results, seen = runs[pair]
    assert set(map(str, seen["terms"])) == {"(['_new', 'ce', 'pull'], False, False)"}
    curves = {(epoch, term): value for epoch, term, value in results["bank"].curves}
    assert not any(term == "loss__new" for _, term in curves)
    for epoch in range(1, EPOCHS + 1):
        total = curves[epoch, "loss_ce"] + curves[epoch, "loss_pull"]
        assert curves[epoch, "loss"] == pytest.approx(total, rel=1e-6)


@both
def test_a_batch_tells_the_time(runs, pair):
    _, seen = runs[pair]
    clock = seen["clock"]
    assert [epoch for epoch, *_ in clock] == [
        e * 240 / EPOCHS for e in range(1, EPOCHS + 1) for _ in range(STEPS)
    ]
    assert [p for _, p, *_ in clock] == pytest.approx([i / (EPOCHS * STEPS) for i in range(EPOCHS * STEPS)])
    assert [last for _, _, last, _ in clock] == ([False] * (STEPS - 1) + [True]) * EPOCHS
    assert len({drawn for *_, drawn in clock}) == EPOCHS * STEPS
    assert all(seen["no teacher"])


@both
def test_company_changes_no_method_that_draws_or_remembers(runs, toy, pair):
    results, _ = runs[pair]
    for name in ("clock", "bank", "means", "reuse"):
        alone = toy.train(toy.cells([name], PAIRS[pair]), f"{pair} {name} alone", stop_after=STEPS + 2)
        assert difference(results[name], alone[name]) is None


def together(toy, method, key, values, work) -> tuple[dict[str, Result], Result]:
    """kd in one cohort with a cell of ``method`` for each value."""
    cells = toy.cells(["kd", method], PAIRS["student"], **{method: {key: list(values)}})
    results = {r.cell.params.get(key, "kd"): r for r in train_cohort(toy.job(cells, work))[0]}
    return results, results.pop("kd")


@pytest.fixture(scope="module")
def kd_alone(toy):
    return toy.train(toy.cells(["kd"], PAIRS["student"]), "kd alone")["kd"]


def test_what_was_not_declared_closes_the_cell_and_no_other(toy, kd_alone):
    results, kd = together(toy, "sneaky", "what", SNEAKS, "sneaks")
    for what, result in results.items():
        name = "the view 'strong'" if what == "strong" else f"'{what}'"
        assert result.row["status"] == "error"
        assert result.row["error"] == (
            f"sneaky: the method reads {name} but does not declare it; add it to its `needs`"
        )
    assert difference(kd, kd_alone) is None


def test_faults_close_their_cell_and_leave_kd_bit_for_bit(toy, kd_alone):
    results, kd = together(toy, "faulty", "how", FAULTS, "faults")
    assert {how: result.row["status"] for how, result in results.items()} == dict.fromkeys(
        FAULTS, "error"
    ) | {"nan": "diverged"}
    parts = {
        "build": "faulty failed in build: ValueError: no module today",
        "no module": "must return a torch.nn.Module, got dict",
        "loss": "KeyError: 'nothing'",
        "nan": "the training loss became nan in epoch 1",
        "shape": f"the term 'ce' must be a 0-dim tensor, got ({BATCH}, {CLASSES})",
        "none": "must return a dict of named scalar tensors, got None",
        "empty": "must return a dict of named scalar tensors, got {}",
        "update": "RuntimeError: no update today",
        "predict": "predict must return logits",
    }
    for how, part in parts.items():
        assert part in results[how].row["error"]
    assert difference(kd, kd_alone) is None


def test_the_student_on_disk_is_bare(runs):
    for pair in ("student", "vit"):
        results, _ = runs[pair]
        for name in ("maps", "bank", "means", "reuse"):
            assert results[name].student.keys() == results["ce"].student.keys()


def test_the_projector_is_in_no_count_of_the_bare_student(runs, toy):
    spec = toy.suite.models["student"]
    bare = models.create(spec.arch, CLASSES, **spec.args)
    assert runs["student"][0]["ce"].row["student_params"] == count_parameters(bare)
