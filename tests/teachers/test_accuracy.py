"""A teacher's logits on the evaluation split: measured once, saved under everything they depend on."""

import dataclasses

import pytest
import torch

from kdbench.method import Needs
from kdbench.teachers.accuracy import measure, teacher_logits
from kdbench.train.teacher_outputs import table_key
from kdbench.utils.hashing import canonical
from tests.support.teachers import tanh_inputs


@pytest.fixture
def counted(lab):
    """The teacher's net and the number of batches it has seen."""
    net = lab.teacher.net(lab.suite.dataset)
    calls = []
    net.register_forward_pre_hook(lambda *args: calls.append(1))
    return net, calls


def logits_of(lab, net, teacher=None, split=None, work=None):
    return teacher_logits(
        teacher or lab.teacher, net, split or lab.split, work or lab.work, torch.device("cpu")
    )


def test_logits_are_those_of_the_net_on_the_plain_images(lab, counted):
    net, _ = counted
    images = lab.split.evaluation.images.permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = net((images), Needs()).logits
    assert torch.equal(logits_of(lab, net), expected)


def test_logits_are_measured_once_and_read_the_same(lab, counted):
    net, calls = counted
    first = logits_of(lab, net)
    seen = len(calls)
    assert seen > 0
    assert torch.equal(logits_of(lab, net), first)
    assert len(calls) == seen


def test_logits_are_saved_by_content(lab, counted, tmp_path):
    """The same weights from another file are the same logits; other weights, images or statistics are not."""
    net, calls = counted
    logits_of(lab, net)
    seen = len(calls)
    moved = dataclasses.replace(lab.teacher, path=tmp_path / "elsewhere.pth", expected=12.0)
    logits_of(lab, net, teacher=moved)
    assert len(calls) == seen
    logits_of(lab, net, teacher=dataclasses.replace(lab.teacher, id="another"))
    logits_of(lab, net, split=dataclasses.replace(lab.split, id="another"))
    net.mean.add_(0.1)
    logits_of(lab, net)
    assert len(calls) == seen + 3


def test_logits_that_cannot_be_saved_are_still_measured(lab, counted, tmp_path):
    net, _ = counted
    (tmp_path / "file").write_text("")
    assert torch.equal(logits_of(lab, net, work=tmp_path / "file"), logits_of(lab, net))


def test_accuracy_is_counted_on_the_evaluation_split(lab):
    top1 = measure(lab.teacher, lab.suite.dataset, lab.split, lab.work, torch.device("cpu"))
    net, images = lab.teacher.net(lab.suite.dataset), lab.split.evaluation
    correct = 0
    for image, target in zip(images.images, images.targets.tolist(), strict=True):
        with torch.no_grad():
            logits = net(image.permute(2, 0, 1)[None].float() / 255, Needs()).logits
        correct += logits.argmax().item() == target
    assert top1 == pytest.approx(100 * correct / len(images.targets), abs=1e-4)


def test_another_activation_has_its_own_logits_and_table(lab, tmp_path):
    keys, logits = set(), []
    for inputs in tanh_inputs(lab, tmp_path / "given", methods=["kd"]):
        teacher, (cell,) = inputs.teachers["teacher"], inputs.cells()
        net = teacher.net(inputs.workspace.suite.dataset)
        logits.append(logits_of(lab, net, teacher=teacher))
        assert torch.equal(logits[-1], net(lab.split.evaluation.images.permute(0, 3, 1, 2) / 255).logits)
        keys.add(canonical(table_key(cell, cell.views["weak"], torch.device("cpu"))))
    assert not torch.equal(*logits)
    assert len(keys) == 2
