"""Teachers, data and results that are missing, damaged, foreign or cannot be written."""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kdbench import models
from tests.support.cli_process import kdbench, refused
from tests.support.tiny import RUN, make, rows


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return make(tmp_path / "place")


# --- teachers ---


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


# --- data ---


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


# --- results ---


def test_a_foreign_header_is_refused_before_training(place):
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
