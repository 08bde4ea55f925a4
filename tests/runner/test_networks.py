"""Pretrained networks as teachers and students, through training and rows."""

import dataclasses

import pytest
import torch

from kdbench.models import pretrained
from kdbench.plan.selection import teacher_recipe
from kdbench.runner import run as driver
from kdbench.runner.inputs import complete_inputs
from kdbench.runner.teachers import locate_teacher, teacher_cell
from kdbench.suites import ModelSpec
from kdbench.train.cell_trainer import build_net
from kdbench.train.cohort import train_cohort
from kdbench.utils.state_dicts import load_weights
from tests.support.heard import Heard, never
from tests.support.local_networks import MEAN, STD, network, write

SMALL = {"widths": [4, 4, 8, 8]}


@pytest.fixture
def folders(tmp_path):
    """Names of a network of the data's 4 classes, and of one of 6."""
    return [
        write(tmp_path / f"net{classes}", network("test_resnet", classes, seed=classes)) for classes in (4, 6)
    ]


def opened(lab, pair, *replaced, **options):
    heard = Heard()
    return lab.open(*replaced, say=heard.say, pairs=pair, **options), heard.said


def finetuned(text):
    return ("[[pairs]]", f"[finetune_recipe]\n{text}\n[[pairs]]")


def test_every_doubtful_name_is_explained(lab, folders):
    _, said = opened(lab, ["resnet18->timm:resnet18", "resnet8->timm/resnet34"])
    assert said == [
        "resnet18 is kdbench's network for small images (cifar:resnet18); timm's is timm:resnet18",
        "timm:resnet18 is timm's network; kdbench's for small images is cifar:resnet18",
        "timm/resnet34 is timm's network; kdbench's for small images is cifar:resnet34",
    ]
    _, said = opened(lab, f"{folders[1]}->student")
    assert said[0].endswith(
        "is timm's test_resnet with pretrained weights: 6 classes, a new head for 4; 160 px, here 8 px; images "
        "normalised by mean 0.1 0.2 0.3 and std 0.5 0.6 0.7"
    )
    assert "is fine-tuned: all of it, 1 epochs, lr" in said[1]


def test_a_teacher_of_these_classes_is_used_as_it_is(lab, folders):
    workspace, said = opened(lab, f"{folders[0]}->student")
    teacher = locate_teacher(workspace, folders[0])
    net = teacher.net(workspace.suite.dataset)
    assert "is used as it is" in said[1]
    images = torch.rand(2, 3, 8, 8)
    bare = network("test_resnet", 4, seed=4).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    assert torch.allclose(net(images).logits, bare((images - mean) / std), atol=1e-5)


def test_the_normalisation_is_part_of_a_teachers_identity(lab, folders, tmp_path):
    write(tmp_path / "other", network("test_resnet", 4, seed=4), mean=(0.3, 0.3, 0.3))
    names = [folders[0], f"local-dir:{tmp_path / 'other'}"]
    workspaces = [opened(lab, f"{name}->student")[0] for name in names]
    teachers = [locate_teacher(workspace, name) for workspace, name in zip(workspaces, names, strict=True)]
    states = [load_weights(teacher.path) for teacher in teachers]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert teachers[0].id != teachers[1].id


@pytest.mark.parametrize("trains", ["all", "head"])
def test_a_teacher_of_other_classes_gets_a_new_head(lab, folders, trains):
    name, recipe = folders[1], f'trains = "{trains}"\nepochs = 2\nlr = 0.3'
    workspace, said = opened(lab, f"{name}->student", finetuned(recipe))
    assert locate_teacher(workspace, name) is None
    inputs = complete_inputs(driver.find_inputs(workspace, said.append), Heard(), never)
    trained = load_weights(inputs.teachers[name].path)
    start = network("test_resnet", 6, seed=6).state_dict()
    changed = {
        key
        for key in start
        if start[key].shape != trained[key].shape or not torch.equal(start[key], trained[key])
    }
    assert {"fc.weight", "fc.bias"} <= changed
    assert (changed == {"fc.weight", "fc.bias"}) == (trains == "head")
    assert inputs.complete


def test_how_a_teacher_is_fine_tuned_is_part_of_its_identity(lab, folders):
    changes = ["lr = 0.1", "lr = 0.2", 'lr = 0.1\ntrains = "head"']
    cells = [
        teacher_cell(opened(lab, f"{folders[1]}->student", finetuned(c))[0], folders[1]) for c in changes
    ]
    assert len({cell.id for cell in cells}) == 3


def test_with_a_finetune_recipe_known_classes_are_trained_on(lab, folders):
    workspace, _ = opened(lab, f"{folders[0]}->student", finetuned("epochs = 1"))
    assert locate_teacher(workspace, folders[0]) is None


def test_fine_tuning_is_a_tenth_by_default(lab):
    suite = dataclasses.replace(lab.suite, teacher_recipe={"epochs": 35, "lr": 0.2})
    weights = pretrained.Weights("x", "0" * 12, "x", 5, 8, MEAN, STD)
    plain, tuned = (teacher_recipe(suite, ModelSpec("resnet8", SMALL, w)) for w in (None, weights))
    assert (plain.epochs, plain.lr) == (35, 0.2)
    assert (tuned.epochs, tuned.lr) == (3, pytest.approx(0.02))


def test_a_student_starts_from_weights_of_its_own_normalisation(lab, folders):
    workspace, _ = opened(lab, f"teacher->{folders[1]}", methods=["ce"], seeds="0-1")
    cells = driver.find_inputs(workspace, print).cells()
    assert [cell.seed for cell in cells] == [0, 1]
    nets = [build_net(cell, torch.device("cpu"), workspace.paths.work) for cell in cells]
    start = network("test_resnet", 6, seed=6).state_dict()
    for net in nets:
        state = net.model.state_dict()
        assert {key for key in start if not torch.equal(start[key], state[key])} == {"fc.weight", "fc.bias"}
        assert net.mean.flatten().tolist() == pytest.approx(MEAN)
    assert not torch.equal(nets[0].model.fc.weight, nets[1].model.fc.weight)


def test_a_row_of_a_started_student_and_its_export(lab, folders):
    outcome = driver.run(
        str(lab.suite_file()), ["ce"], pairs=f"teacher->{folders[1]}", data_dir=lab.data,
        results=lab.folder / "results", device="cpu", progress=Heard(),
    )  # fmt: skip
    (row,) = outcome.rows.to_dict("records")
    assert (row["status"], row["student"]) == ("ok", folders[1])
    assert '"normalise":[[0.1,0.2,0.3],[0.5,0.6,0.7]]' in row["facts"]


def test_only_the_head_of_a_probed_student_changes(lab):
    (cell,) = lab.using(trains="head").cells("ce")
    before = build_net(cell, torch.device("cpu"), lab.work).model.state_dict()
    results, _ = train_cohort(lab.job([cell]))
    assert {key for key, value in results[0].student.items() if not torch.equal(value, before[key])} == {
        "fc.weight",
        "fc.bias",
    }


def test_a_vit_of_another_size_names_the_remedy(lab, tmp_path):
    name = write(tmp_path / "vit", network("test_vit", 4, img_size=32))
    with pytest.raises(driver.KdbenchError, match=f"model '{name}' does not work on 8 px images"):
        opened(lab, f"teacher->{name}")
