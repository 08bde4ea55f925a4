"""A suite file as a user writes one, over 96 toy images of 3 classes, and a teacher whose weights are at hand."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from kdbench.contract import toy_suite
from kdbench.suites import ModelSpec

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


def make(folder: Path) -> Path:
    """Write tiny.toml, data/tiny.npz and teachers/large.pth into ``folder``."""
    toy_suite.write_images(folder / "data" / "tiny.npz", classes=3, size=8, train=96, test=48)
    (folder / "teachers").mkdir()
    (folder / "tiny.toml").write_text(SUITE)
    weights = toy_suite.random_weights(ModelSpec("resnet8"), classes=3)
    torch.save(weights, folder / "teachers" / "large.pth")
    return folder


def rows(place: Path) -> pd.DataFrame:
    """The results that `kdbench run` of this suite wrote below ``place``."""
    return pd.read_csv(place / "results" / "tiny.csv")


RUN = ["run", "--suite", "tiny.toml", "--data-dir", "data", "--teacher-weights", "teachers"]
TUNE = ["tune", *RUN[1:]]
# columns that a repetition of the same cell on the same machine gives again
NUMBERS = ["cell_id", "method", "seed", "status", "top1", "top5", "nll", "ece", "train_top1", "final_loss"]
