"""A suite that trains in a second: 96 made-up images of 8 px in 3 classes, two small networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from kdbench import models

SUITE = """
description = "tiny"
methods = ["ce", "kd"]
seeds = [0]
[dataset]
name = "tiny"
classes = 3
size = 8
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
holdout = 0.25
[views.weak]
pad = 1
[views.strong]
pad = 1
ops = 2
magnitude = 10
cutout = 0.5
[recipe]
epochs = 4
reference_epochs = 240
batch_size = 32
lr = 0.05
momentum = 0.9
nesterov = false
weight_decay = 5e-4
schedule = "step"
milestones = [150]
precision = "fp32"
eval_every = 2
[models.large]
arch = "resnet8"
[models.small]
arch = "resnet8"
args = { widths = [4, 4, 4, 8] }
[teachers.large]
top1 = 99.9
[[pairs]]
teacher = "large"
student = "small"
"""


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [count, 8, 8, 3] whose channel ``label`` is brighter, and labels; every image another one."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = draw.integers(0, 140, (count, 8, 8, 3))
    pixels[np.arange(count), :, :, labels] += 90
    return pixels.astype(np.uint8), labels.astype(np.int64)


def make(folder: Path) -> Path:
    """Write tiny.toml, data/tiny.npz and teachers/large.pth into ``folder``."""
    (folder / "data").mkdir(parents=True)
    (folder / "teachers").mkdir()
    (folder / "tiny.toml").write_text(SUITE)
    x_train, y_train = images(96, 0)
    x_test, y_test = images(48, 1)
    np.savez(folder / "data" / "tiny.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(models.create("resnet8", 3).state_dict(), folder / "teachers" / "large.pth")
    return folder


def rows(place: Path) -> pd.DataFrame:
    """The results that `kdbench run` of this suite wrote below ``place``."""
    return pd.read_csv(place / "results" / "tiny.csv")


RUN = ["run", "--suite", "tiny.toml", "--data-dir", "data", "--teacher-weights", "teachers"]
# columns that a repetition of the same cell on the same machine gives again
NUMBERS = ["cell_id", "method", "seed", "status", "top1", "top5", "nll", "ece", "train_top1", "final_loss"]
