"""The command line as a user meets it: the main path, interruption, and every kind of bad input."""

from __future__ import annotations

import ctypes
import os
import pickle
import re
import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kdbench import models
from kdbench.results.store import COLUMNS
from tests.support.cli_process import kdbench, refused, spawn
from tests.support.tiny import RUN, SUITE, make

NUMBERS = ["cell_id", "method", "seed", "status", "top1", "top5", "nll", "ece", "train_top1", "final_loss"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place")


def rows(place: Path) -> pd.DataFrame:
    return pd.read_csv(place / "results" / "tiny.csv")


# --- the main path ---


def test_run_then_report_then_nothing_is_left_to_do(place):
    first = kdbench(*RUN, "--methods", "ce,kd,mlkd", cwd=place)
    assert first.code == 0, first.err
    assert re.search(r"^ *kd +\d+\.\d\d", first.out, re.M), first.out
    assert "WARNING: the suite expects 99.90 %" in first.err
    table = rows(place)
    assert list(table.columns) == COLUMNS
    assert sorted(table["method"]) == ["ce", "kd", "mlkd"]
    again = kdbench(*RUN, "--methods", "ce,kd,mlkd", cwd=place)
    assert again.code == 0
    assert len(rows(place)) == 3
    report = kdbench("report", "--print", cwd=place)
    assert report.code == 0, report.err
    assert "mlkd" in report.out
    made = {file.name for file in (place / "reports" / "tiny").iterdir()}
    assert {"leaderboard.md", "leaderboard.csv", "curves.png"} <= made
    assert "forest.png" not in made  # one seed has no interval
    page = (place / "reports" / "tiny" / "leaderboard.md").read_text()
    drawn = {name for name in made if name.endswith(".png")}
    assert set(re.findall(r"\]\((\S+)\)|`(\S+png)`", page)) == {
        (name, "") if name in ("curves.png", "cost.png") else ("", name) for name in drawn
    }
    assert "3 ok" in kdbench("status", cwd=place).out
    details = np.load(place / "results" / "tiny.details" / f"{table['cell_id'][1]}.npz")
    assert details["confusion"].sum() == 48
    students = list((place / "results" / ".work" / "students").glob("*.safetensors"))
    assert len(students) == 3
    assert not list((place / "results" / ".work").glob("*.pt"))


def test_force_adds_a_row_with_the_same_numbers(place):
    kdbench(*RUN, cwd=place)
    assert kdbench(*RUN, "--force", cwd=place).code == 0
    table = rows(place)
    assert list(table["attempt"]) == [1, 1, 2, 2]
    pd.testing.assert_frame_equal(table[NUMBERS][:2], table[NUMBERS][2:].reset_index(drop=True))


def test_a_dry_run_prints_the_plan_and_trains_nothing(place):
    done = kdbench(*RUN, "--set", "kd.temperature=2,4,8", "--seeds", "0-1", "--dry-run", cwd=place)
    assert done.code == 0, done.err
    assert "8 cells = 0 done + 8 missing" in done.out
    assert (
        "cohort 2: seed 1, large: ce (small), kd temperature=2 (small), kd (small), kd temperature=8"
        in done.out
    )
    assert not (place / "results" / "tiny.csv").exists()


def test_set_multiplies_the_matrix_and_names_the_variant(place):
    kdbench(*RUN, "--methods", "kd", "--set", "kd.temperature=2,4", cwd=place)
    table = rows(place)
    assert [v if isinstance(v, str) else "" for v in table["variant"]] == ["temperature=2", ""]
    assert table["top1"].nunique() + table["nll"].nunique() > 2


def test_the_teacher_is_trained_once_where_no_weights_are_given(place):
    command = ["run", "--suite", "tiny.toml", "--data-dir", "data", "--methods", "kd"]
    first = kdbench(*command, cwd=place)
    assert first.code == 0, first.err
    assert "training the teacher large" in first.err
    second = kdbench(*command, "--seeds", "1", cwd=place)
    assert "training the teacher" not in second.err
    table = rows(place)
    assert table["teacher_id"].nunique() == 1
    listed = kdbench("teachers", "list", "--suite", "tiny.toml", "--data-dir", "data", cwd=place)
    assert table["teacher_id"][0] in listed.out
    assert "99.90" in listed.out


def test_help_does_not_import_torch(tmp_path):
    process = spawn("--help", cwd=tmp_path)
    assert process.wait() == 0
    code = "import sys, kdbench.cli.main; sys.exit('torch' in sys.modules)"
    assert os.spawnl(os.P_WAIT, shutil.which("python") or "", "python", "-c", code) == 0


def test_progress_is_quiet_without_a_terminal(place):
    done = kdbench(*RUN, cwd=place)
    assert "\r" not in done.err
    assert "it/s" not in done.err
    assert "%|" not in done.err


# --- interruption ---


def _wait_for(pattern: str, folder: Path, process) -> None:
    deadline = time.time() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.time() < deadline
        time.sleep(0.01)


def test_kill_9_and_the_same_command_give_the_numbers_of_an_uninterrupted_run(place, tmp_path):
    command = [*RUN, "--methods", "ce,kd,mlkd", "--epochs", "30"]
    process = spawn(*command, cwd=place)
    _wait_for("results/.work/*.pt", place, process)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (place / "results" / "tiny.csv").exists() or len(rows(place)) < 3
    assert kdbench(*command, cwd=place).code == 0
    whole = make(tmp_path / "whole")
    assert kdbench(*command, cwd=whole).code == 0
    pd.testing.assert_frame_equal(rows(place)[NUMBERS], rows(whole)[NUMBERS])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_state_and_says_so(place, number, code):
    command = [*RUN, "--methods", "kd", "--epochs", "2000"]
    process = spawn(*command, cwd=place)
    _wait_for("results/.work/*.pt", place, process)
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == code
    assert "type the same command to go on" in err
    assert "Traceback" not in err
    assert list(rows(place)["status"]) == ["interrupted"]
    assert list((place / "results" / ".work").glob("*.pt"))


def test_max_hours_stops_saved_with_exit_code_3(place):
    done = kdbench(*RUN, "--epochs", "5000", "--max-hours", "0.0005", cwd=place)
    assert done.code == 3
    assert "state saved" in done.err


def test_two_shells_share_the_work_and_train_nothing_twice(place):
    command = [*RUN, "--seeds", "0-3", "--epochs", "10"]
    processes = [spawn(*command, cwd=place) for _ in range(2)]
    for process in processes:
        _, err = process.communicate()
        assert process.returncode == 0, err
    table = rows(place)
    assert len(table) == 8
    assert table["cell_id"].is_unique


# --- bad input: names ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "dkdd"], ["unknown method 'dkdd'", "'dkd'"]),
        (["--methods", "zz*"], ["unknown method"]),
        (["--suite", "cifar1000"], ["unknown suite", "cifar100"]),
        (["--suite", "nowhere.toml"], ["nowhere.toml does not exist"]),
        (["--pairs", "large-small"], ["teacher:student"]),
        (["--pairs", "large:resnet21"], ["unknown model 'resnet21'", "did you mean 'resnet"]),
        (["--pairs", "larg:small"], ["larg"]),
        (["--seeds", "a-b"], ["seeds"]),
        (["--set", "kd.temp=2"], ["unknown parameter 'temp' for kd", "temperature, ce_weight, kd_weight"]),
        (["--set", "kd.temperature=warm"], ["kd.temperature takes a float"]),
        (["--set", "kd.temperature=0"], ["greater than 0"]),
        (["--set", "dkd.beta=2"], ["dkd is not among the methods"]),
        (["--set", "temperature=2"], ["method.parameter=value"]),
        (["--device", "cuda:7"], ["there is no device cuda:7"]),
        (["--device", "gpu"], ["unknown device"]),
        (["--epochs", "0"], ["epochs must be greater than 0"]),
        (["--split", "train"], ["holdout"]),
        (["--plugins", "nowhere"], ["nowhere does not exist"]),
        (["--no-such-flag"], ["--no-such-flag"]),
    ],
)
def test_a_wrong_name_or_value_is_told_with_the_right_one(place, arguments, words):
    refused(kdbench(*RUN, *arguments, cwd=place), *words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 4", "epoch = 4", ["unknown key 'epoch'", "tiny.toml", "epochs"]),
        ("lr = 0.05\n", "", ["missing key 'lr'", "tiny.toml", "recipe"]),
        ("lr = 0.05", 'lr = "fast"', ["recipe: lr must be of type float"]),
        ('schedule = "step"', 'schedule = "cosinus"', ["unknown value 'cosinus'"]),
        ("classes = 3", "classes = 4", ["4"]),
        ('arch = "resnet8"', 'arch = "resnet8"\nargs = { wide = 2 }', ["wide"]),
        ("[recipe]", "[recipe", ["not valid TOML"]),
    ],
)
def test_a_mistake_in_a_suite_file_names_file_key_and_remedy(place, old, new, words):
    assert old in SUITE
    (place / "tiny.toml").write_text(SUITE.replace(old, new, 1))
    refused(kdbench(*RUN, cwd=place), *words)


# --- bad input: teachers ---


class _Code:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


def _broken_teacher(place: Path, kind: str) -> None:
    file = place / "teachers" / "large.pth"
    if kind == "missing":
        file.unlink()
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[:2000])
    elif kind == "another":
        torch.save(models.create("resnet14", 3).state_dict(), file)
    elif kind == "classes":
        torch.save(models.create("resnet8", 5).state_dict(), file)
    elif kind == "code":
        file.write_bytes(pickle.dumps(_Code()))
    elif kind == "text":
        torch.save({"accuracy": 71.0}, file)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["large.pth", "teachers"]),
        ("truncated", ["large.pth"]),
        ("another", ["large.pth does not fit large", "layer1.1"]),
        ("classes", ["fc.weight is (5, 64) instead of (3, 64)"]),
        ("code", ["large.pth is not a plain weights file"]),
        ("text", ["holds no state dict"]),
    ],
)
def test_a_bad_teacher_file_is_told_and_never_run(place, kind, words):
    _broken_teacher(place, kind)
    refused(kdbench(*RUN, cwd=place), *words)
    assert not (place / "owned").exists()


# --- bad input: data ---


def _npz(place: Path, **changes) -> None:
    file = place / "data" / "tiny.npz"
    arrays = dict(np.load(file))
    np.savez(file, **{**arrays, **changes})


def _broken_data(place: Path, kind: str) -> None:
    data = place / "data"
    if kind == "missing":
        shutil.rmtree(data)
    elif kind == "empty":
        (data / "tiny.npz").unlink()
    elif kind == "labels":
        labels = np.load(data / "tiny.npz")["y_train"]
        labels[0] = 3
        _npz(place, y_train=labels)
    elif kind == "dtype":
        _npz(place, x_train=np.load(data / "tiny.npz")["x_train"] / 255)
    elif kind == "truncated":
        content = (data / "tiny.npz").read_bytes()
        (data / "tiny.npz").write_bytes(content[: len(content) // 2])
    elif kind == "image":
        from PIL import Image

        (data / "tiny.npz").unlink()
        for part in ("train", "test"):
            for label in "abc":
                folder = data / part / label
                folder.mkdir(parents=True)
                for i in range(8):
                    noise = np.random.default_rng(i + ord(label) + len(part)).integers(
                        0, 255, (8, 8, 3), np.uint8
                    )
                    Image.fromarray(noise).save(folder / f"{i}.png")
        (data / "train" / "b" / "3.png").write_bytes(b"\x89PNG not an image")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["data", "does not exist"]),
        ("empty", ["data", "tiny.npz"]),
        ("labels", ["3"]),
        ("dtype", ["uint8"]),
        ("truncated", ["tiny.npz"]),
        ("image", ["b/3.png"]),
    ],
)
def test_bad_data_is_named(place, kind, words):
    _broken_data(place, kind)
    refused(kdbench(*RUN, cwd=place), *words)


# --- bad input: results ---


def test_a_foreign_header_is_refused_before_training_and_left_alone(place):
    file = place / "results" / "tiny.csv"
    file.parent.mkdir()
    file.write_text("a,b\n1,2\n")
    refused(kdbench(*RUN, cwd=place), "tiny.csv", "another header")
    assert file.read_text() == "a,b\n1,2\n"


def test_a_torn_last_line_costs_only_that_line(place):
    kdbench(*RUN, cwd=place)
    file = place / "results" / "tiny.csv"
    whole = file.read_bytes()
    lines = whole.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:40])
    assert kdbench(*RUN, cwd=place).code == 0
    table = rows(place)
    assert sorted(table["method"]) == ["ce", "kd"]
    assert table["top1"].notna().all()


def _bound_by_permissions() -> None:
    """Permissions do not bind root: give up its capabilities, all of them (capset, version 3)."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    none = (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None, use_errno=True).capset(header, none) == 0


def test_read_only_results_are_told(place):
    kdbench(*RUN, "--methods", "ce", cwd=place)
    results = place / "results"
    before = (results / "tiny.csv").read_bytes()
    for path in [results, *results.glob("**/*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    done = kdbench(*RUN, "--methods", "kd", cwd=place, before=_bound_by_permissions)
    refused(done, "Permission denied")
    assert (results / "tiny.csv").read_bytes() == before


def test_a_full_disk_is_told_and_the_next_run_completes(place):
    kdbench(*RUN, "--methods", "ce", cwd=place)
    before = (place / "results" / "tiny.csv").read_bytes()

    def full():
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50,) * 2)

    done = kdbench(*RUN, "--methods", "kd", cwd=place, before=full)
    assert "cannot save a checkpoint" in done.err
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "cannot write" in done.err
    assert (place / "results" / "tiny.csv").read_bytes() == before
    assert kdbench(*RUN, "--methods", "kd", cwd=place).code == 0
    assert sorted(rows(place)["method"]) == ["ce", "kd"]


def test_no_results_yet_says_what_to_type(tmp_path):
    refused(kdbench("report", cwd=tmp_path), "kdbench run")
    refused(kdbench("report", "--suite", "digits", cwd=tmp_path), "kdbench run --suite digits")


# --- bad input: plug-ins ---

PLUGIN = """
import torch
from torch.nn.functional import cross_entropy
from kdbench.method import Method
from kdbench.registry import register

{top}

@register
class Mine(Method):
    weight: float = 1.0

    def build(self, context):
        {build}
        return torch.nn.Module()

    def loss(self, batch, student, teacher, modules):
        ce = cross_entropy(student.logits, batch.target)
        {loss}
"""


@pytest.mark.parametrize(
    ("broken", "code", "words"),
    [
        ({"top": "import no_such_module"}, 1, ["'mine'", "fails at import", "no_such_module"]),
        ({"build": "raise RuntimeError('no bricks')"}, 3, ["mine failed in build", "no bricks"]),
        ({"build": "return None"}, 3, ["mine.build must return a torch.nn.Module"]),
        ({"loss": "raise ValueError('lost')"}, 3, ["mine failed in a training step", "lost"]),
        ({"loss": "return {'ce': ce * float('nan')}"}, 3, ["diverged", "nan"]),
        ({"loss": "return {'ce': ce.expand(2)}"}, 3, ["'ce' must be a 0-dim tensor, got (2,)"]),
        ({"loss": "pass"}, 3, ["mine.loss must return a dict"]),
        ({"loss": "return {'ce': ce + student.embedding.sum()}"}, 3, ["'embedding'", "needs"]),
    ],
)
def test_a_broken_plug_in_is_told_and_its_neighbours_finish(place, broken, code, words):
    (place / "plugins").mkdir()
    text = PLUGIN.format(**{"top": "", "build": "pass", "loss": "return {'ce': ce}", **broken})
    (place / "plugins" / "mine.py").write_text(text)
    done = kdbench(*RUN, "--methods", "kd,mine", "--plugins", "plugins", cwd=place)
    refused(done, *words, code=code)
    if code == 3:
        table = rows(place).set_index("method")
        assert table.loc["kd", "status"] == "ok"
        assert table.loc["mine", "status"] in ("error", "diverged")


def test_a_working_plug_in_runs_like_any_method(place):
    (place / "plugins").mkdir()
    text = PLUGIN.format(top="", build="pass", loss="return {'ce': self.weight * ce}")
    (place / "plugins" / "mine.py").write_text(text)
    done = kdbench(
        *RUN, "--methods", "ce,mine", "--plugins", "plugins", "--set", "mine.weight=1,2", cwd=place
    )
    assert done.code == 0, done.err
    table = rows(place)
    plain = table[table["method"] == "ce"].iloc[0]
    same = table[(table["method"] == "mine") & table["variant"].isna()].iloc[0]
    assert same["nll"] == plain["nll"]  # the same loss on the same batches from the same weights
    assert "mine" in kdbench("methods", "--plugins", "plugins", cwd=place).out
