"""Teachers whose weights timm has: fetched once, never trained unless the user says so."""

from types import SimpleNamespace

import pytest
import timm

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.runner.teachers import locate_teacher, trained_path
from kdbench.runner.train_teachers import obtain_teachers
from kdbench.train.callbacks import Progress
from tests.support.heard import Heard, never, throw

TAGGED = ("[[pairs]]", '[teachers.teacher]\ntop1 = 60.0\npretrained = "resnet18.tv_in1k"\n[[pairs]]')


@pytest.fixture
def hub(monkeypatch, lab):
    """A fake of timm's hub: a dict tag -> weights, and the list of requested tags."""
    weights, requested, create = {}, [], timm.create_model
    spec = lab.suite.models["teacher"]

    def answer(name, pretrained=False, **kwargs):
        if not pretrained:
            return create(name, **kwargs)
        requested.append(name)
        if name not in weights:
            raise OSError("We couldn't connect to the hub\nand more lines")
        model = models.create(spec.arch, 4, **spec.args)
        model.load_state_dict(weights[name])
        return model

    monkeypatch.setattr(timm, "create_model", answer)
    facts = SimpleNamespace(num_classes=4, mean=(0.4,) * 3, std=(0.3,) * 3)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda tag: facts)
    return weights, requested


def test_a_teacher_with_a_tag_is_fetched_once_and_not_trained(lab, hub, teacher_state):
    weights, requested = hub
    weights["resnet18.tv_in1k"] = teacher_state
    workspace, heard = lab.open(TAGGED), Heard()
    assert locate_teacher(workspace, "teacher") is None
    found = obtain_teachers(workspace, heard, never, throw)["teacher"]
    assert heard.said == ["fetching the teacher teacher: resnet18.tv_in1k from timm"]
    assert (found.id, found.expected) == (lab.teacher.id, 60.0)
    assert found.path.name == "teacher-resnet18.tv_in1k.safetensors"
    assert lab.inputs(TAGGED).teachers["teacher"].id == lab.teacher.id
    assert requested == ["resnet18.tv_in1k"]


def test_offline_one_sentence_gives_the_reason_and_remedies(lab, hub):
    with pytest.raises(KdbenchError) as caught:
        obtain_teachers(lab.open(TAGGED), Progress(), never, throw)
    text = str(caught.value)
    assert (
        "timm.create_model('resnet18.tv_in1k', pretrained=True) says: We couldn't connect to the hub;" in text
    )
    for way in (
        "kdbench teachers import FILE --name teacher",
        "--teacher-weights",
        "teachers train",
    ):
        assert way in text
    assert "\n" not in text


def test_an_unknown_tag_is_an_error_with_the_nearest(lab, hub):
    wrong = (TAGGED[0], TAGGED[1].replace("tv_in1k", "tv_in2k"))
    with pytest.raises(KdbenchError, match=r"'resnet18\.tv_in2k'.*did you mean 'resnet18\.tv_in1k'"):
        obtain_teachers(lab.open(wrong), Progress(), never, throw)
    assert hub[1] == []


def test_a_teacher_with_a_tag_that_the_user_trains_is_used(lab, hub, teacher_state):
    hub[0]["resnet18.tv_in1k"] = teacher_state
    assert obtain_teachers(lab.open(TAGGED), Progress(), never, throw, train=True)
    assert hub[1] == []
    found = lab.inputs(TAGGED).teachers["teacher"]
    assert found.path == trained_path(lab.open(TAGGED), "teacher")
    assert found.id != lab.teacher.id


def test_weights_for_other_classes_or_normalisation_are_refused(lab):
    """ImageNet's 1000 classes and statistics, on four classes with statistics of their own."""
    with pytest.raises(KdbenchError) as caught:
        lab.open(TAGGED)
    text = str(caught.value)
    assert "know 1000 classes, of images with mean 0.485 0.456 0.406 and std 0.229 0.224 0.225" in text
    assert "the suite has 4, with 0.4 0.4 0.4 and 0.3 0.3 0.3" in text
    assert "name the network timm:resnet18.tv_in1k" in text
