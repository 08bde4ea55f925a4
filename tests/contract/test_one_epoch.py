"""`kdbench bench epoch`: the table, and that what was measured is not measured again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kdbench import registry
from kdbench.contract import one_epoch, toy_suite, whole_schedule
from kdbench.errors import KdbenchError
from kdbench.method import Method
from kdbench.suites import ModelSpec
from kdbench.utils.state_dicts import save_weights


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two training images and one test image of each of CIFAR-100's classes, made up."""
    folder = tmp_path_factory.mktemp("pictures")
    toy_suite.write_images(folder / "cifar100.npz", classes=100, size=32, train=200, test=100)
    return folder


def row(method, status="ok", seconds=2.0, memory=100.0, **more):
    fixed = {"pair": "t:s", "student_params": 5, "extra_params": 0, "final_loss": 1.0, "images": 1000}
    facts = {"method": method, "status": status, "epoch_s": seconds, "peak_mem_mb": memory}
    return {**fixed, **facts, "device": "a machine", "code_hash": "c", **more}


def test_time_and_memory_stand_beside_kd_s_of_the_same_pair():
    rows = [row("kd"), row("at", seconds=3.0, memory=140.0), row("kd", seconds=8.0, pair="t:u")]
    rows += [row("fsp", "skipped", None, None, error="unequal"), row("at", seconds=4.0, pair="t:u")]
    found = one_epoch.table(rows).set_index(["pair", "method"])
    assert found.loc[("t:s", "at"), ["x_kd", "mem_over_kd"]].tolist() == [1.5, 40.0]
    assert found.loc[("t:u", "at"), "x_kd"] == 0.5
    assert found.loc[("t:s", "fsp"), ["x_kd", "epoch_s", "mem_over_kd"]].isna().all()
    text = one_epoch.markdown(one_epoch.table(rows))
    assert "| at | ok | 3.0 | 1.50 | 140 | +40 | 5 | 0 | 1 |" in text
    assert "| fsp | skipped | – | – | – | – | 5 | 0 | 1 |" in text
    assert "- fsp: unequal" in text
    assert text.count("\n## ") == 2
    assert "Device: a machine." in text


def test_a_few_real_images_per_class_for_the_first_epoch(pictures, tmp_path):
    world = one_epoch.world(tmp_path, 100, pictures, None, None)
    with np.load(tmp_path / "cifar100.npz") as arrays:
        assert np.bincount(arrays["y_train"]).tolist() == [1] * 100
    recipe = world.suite.recipe
    assert (recipe.epochs, recipe.reference_epochs) == (1, 20)  # 240 / 12: the first of twelve
    assert recipe.lr == pytest.approx(0.1 * (1 / 12) / 0.3)  # of a climb to 0.1 over 0.3 of all
    with pytest.raises(KdbenchError, match="--images must be 100 or more"):
        one_epoch.world(tmp_path, 99, pictures, None, None)


def test_each_is_measured_once_and_again_where_its_code_changed(pictures, tmp_path, monkeypatch):
    trained = []

    def here(job):  # in this process: what is tested is who is trained
        trained.append((job.cells[0].method, job.cells[0].student))
        return one_epoch.train(job)

    monkeypatch.setattr(one_epoch, "alone", here)
    options = {"pairs": ["resnet8:resnet8"], "images": 100, "data_dir": pictures}
    text, passed = one_epoch.report("fsp", None, tmp_path, **options)
    assert passed
    assert trained == [("ce", "resnet8"), ("kd", "resnet8"), ("fsp", "resnet8")]
    kept = pd.read_csv(tmp_path / "bench" / "real_images.csv")
    assert kept["status"].tolist() == ["ok", "ok"]
    assert kept.set_index("method").loc["kd", "epoch_s"] > 0
    assert (tmp_path / "bench" / "real_images.md").read_text() == text
    one_epoch.report("fsp", None, tmp_path, **options)
    assert len(trained) == 3
    code = registry.code_hash
    monkeypatch.setattr(registry, "code_hash", lambda name: "new" if name == "fsp" else code(name))
    one_epoch.report("fsp", None, tmp_path, **options)
    assert trained[3:] == [("ce", "resnet8"), ("fsp", "resnet8")]
    assert len(pd.read_csv(tmp_path / "bench" / "real_images.csv")) == 2


# --- the whole schedule ---


def test_the_whole_schedule_trains_and_says_who_did_not(pictures, tmp_path, monkeypatch, scratch_registry):
    """ab goes through both of its stages; a method that breaks down in its second one is named with the reason."""

    class Breaks(Method):
        def loss(self, batch, student, teacher, modules):
            if batch.epoch > 150:
                raise KdbenchError("the second stage")
            return {"ce": student.logits.square().mean()}

    registry.register(Breaks)
    monkeypatch.setattr(registry, "names", lambda: ["ab", "breaks"])
    save_weights(tmp_path / "resnet8.safetensors", toy_suite.random_weights(ModelSpec("resnet8"), 100))
    text, passed = whole_schedule.report(None, None, ["resnet8:resnet8"], 100, pictures, tmp_path)
    assert not passed
    assert text.splitlines() == [
        "resnet8:resnet8: 1 ok, 1 error",
        "  breaks (error): breaks: the second stage",
    ]


@pytest.mark.slow
def test_every_method_trains_the_whole_schedule(pictures):
    text, passed = whole_schedule.report(None, None, data_dir=pictures)
    assert passed, text


@pytest.mark.slow
def test_a_cell_alone_in_its_process_has_its_own_peak(pictures, tmp_path):
    """Hundreds of MB held here are not seen there."""
    ballast = np.ones(10**8)  # 800 MB
    _, passed = one_epoch.report("ce", None, tmp_path, ["resnet8:resnet8"], 100, pictures)
    assert passed
    found = pd.read_csv(tmp_path / "bench" / "real_images.csv")
    assert found["peak_mem_mb"].max() < ballast.nbytes / 2**20
