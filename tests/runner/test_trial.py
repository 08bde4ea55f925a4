"""What cannot train is refused before anything trains, teachers included."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.runner import trial
from kdbench.runner.run import run
from kdbench.train import trial as train_trial
from kdbench.train.trial import FEW

VIT = (
    '[[pairs]]\nteacher = "teacher"',
    '[models.wide]\narch = "vit_tiny_patch16_224"\n[[pairs]]\nstudent = "wide"\nteacher = "teacher"\n'
    '[[pairs]]\nteacher = "teacher"',
)


@pytest.fixture
def sizes(scratch_registry):
    """A method that notes the batch sizes it sees; it raises where ``least`` images are more, or as ``bad`` says."""

    @registry.register
    class Picky(Method):
        bad: bool = False
        least: int = 0
        scale: float = 1.0

        def loss(self, batch, student, teacher, modules):
            seen.append(len(batch.target))
            if self.bad or len(batch.target) < self.least:
                raise IndexError("no such neighbour")
            return {"ce": cross_entropy(student.logits, batch.target) * self.scale}

    seen: list[int] = []
    return seen


@pytest.mark.parametrize(
    ("replaced", "methods", "sentence"),
    [
        ([VIT], ["ce"], "does not work on 8 px images: .*img_size = 8"),
        (
            [],
            ["kd", "picky"],
            "^picky bad=true cannot train teacher:student: IndexError: no such neighbour; fix that, or leave",
        ),
    ],
)
def test_nothing_is_trained_before_the_refusal(lab, sizes, replaced, methods, sentence):
    where = {"data_dir": lab.data, "results": lab.folder / "results", "device": "cpu"}
    sets = ["picky.bad=true"] if "picky" in methods else []
    with pytest.raises(KdbenchError, match=sentence):
        run(lab.suite_file(*replaced), methods, sets=sets, **where)
    assert not (lab.folder / "results").exists() or not list((lab.folder / "results").rglob("*.pt"))
    assert not list(lab.folder.glob("results/**/*.safetensors"))


def tried(lab, methods, **options):
    inputs = lab.inputs(methods=methods, **options)
    trial.try_methods(inputs.workspace, inputs.cells())


def test_what_fails_on_few_images_is_tried_on_more(lab, sizes):
    tried(lab, ["picky"], sets="picky.least=9")
    assert sizes == [FEW, 16, 16]  # first epoch; then first and last


def test_more_images_than_a_batch_are_not_tried(lab, sizes):
    with pytest.raises(KdbenchError, match="no such neighbour"):
        tried(lab, ["picky"], sets="picky.least=17")


def test_a_loss_that_is_not_finite_is_left_to_training(lab, sizes):
    """Networks that have learned nothing give all images equal logits, which correlate with nothing."""
    tried(lab, ["picky"], sets="picky.scale=1e39")
    assert sizes == [FEW, FEW]


def test_seeds_and_settings_do_not_multiply_the_cost(lab, sizes):
    """Two pairs, three seeds, three settings: one setting on each pair, each further one on one pair."""
    pair = '[[pairs]]\nteacher = "teacher"\nstudent = "student"'
    assert pair in lab.suite_file().read_text()
    other = pair.replace('"student"', '"other"')
    models = '[models.other]\narch = "resnet8"\nargs = { widths = [4, 4, 4, 4] }\n'
    inputs = lab.inputs(
        (pair, f"{models}{pair}\n{other}"), methods=["picky"], seeds="0-2", sets="picky.scale=1,2,3"
    )
    assert len(inputs.cells()) == 18
    trial.try_methods(inputs.workspace, inputs.cells())
    assert len(sizes) == 2 * (2 + 2)


def test_finished_cells_are_not_tried(lab, sizes, monkeypatch):
    weights = lab.folder / "weights"
    weights.mkdir()
    (weights / "teacher.safetensors").write_bytes(lab.teacher.path.read_bytes())
    where = {
        "data_dir": lab.data,
        "results": lab.folder / "results",
        "device": "cpu",
        "teacher_weights": weights,
    }
    run(lab.suite_file(), ["ce"], epochs=1, **where)
    built = []
    monkeypatch.setattr(trial, "Trial", lambda *arguments: built.append(arguments))
    assert run(lab.suite_file(), ["ce"], epochs=1, **where).exit_code == 0
    assert built == []


def test_a_trial_leaves_the_random_streams_alone(lab):
    inputs = lab.inputs(methods=["kd", "fitnet"])
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    trial.try_methods(inputs.workspace, inputs.cells())
    assert torch.equal(torch.rand(2), expected)


def test_large_modules_are_tried_on_shapes(lab, monkeypatch):
    """semckd between stages of 512 channels has 69 million parameters: none is given a value."""
    entered, shapes = [], train_trial.shapes
    monkeypatch.setattr(train_trial, "LARGE", 0)
    monkeypatch.setattr(train_trial, "shapes", lambda: entered.append(1) or shapes())
    tried(lab, ["semckd", "crd"])
    assert len(entered) == 3  # both counted (crd in vain: it builds by the labels), one tried


@pytest.mark.parametrize(
    ("build", "loss", "said"),
    [
        (lambda s, c: nn.Module(), lambda m: setattr(m, "late", nn.Linear(4, 4)), "makes parameters in loss"),
        (lambda s, c: nn.LazyLinear(4), lambda m: None, "builds lazy modules"),
    ],
)
def test_parameters_that_nothing_would_train_are_refused(lab, scratch_registry, build, loss, said):
    def own(self, batch, student, teacher, modules):
        loss(modules)
        return {"ce": cross_entropy(student.logits, batch.target)}

    registry.register(type("Late", (Method,), {"build": build, "loss": own, "__module__": __name__}))
    with pytest.raises(KdbenchError, match=said):
        tried(lab, ["late"])


def test_a_skip_that_is_no_text_is_refused(lab, scratch_registry):
    def own(self, batch, student, teacher, modules):
        return {"ce": cross_entropy(student.logits, batch.target)}

    skip = lambda self, context: False  # noqa: E731
    registry.register(type("Shy", (Method,), {"skip": skip, "loss": own, "__module__": __name__}))
    with pytest.raises(KdbenchError, match=r"shy\.skip must return the reason as a text, or None, got False"):
        tried(lab, ["shy"])
