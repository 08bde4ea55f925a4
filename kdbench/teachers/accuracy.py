"""Measure a teacher on the evaluation split, and say how its accuracy compares with what is expected."""

from __future__ import annotations

import contextlib
from pathlib import Path

import torch
from torch import Tensor

from kdbench.data.dataset import Split
from kdbench.data.streaming import open_feed
from kdbench.errors import KdbenchError
from kdbench.method import Needs
from kdbench.metrics import predictions, top_k
from kdbench.models.wrapper import Network, to_device
from kdbench.suites import DataSpec
from kdbench.teachers.class_order import chance_remark, permutation_warnings
from kdbench.teachers.expected import falls_short
from kdbench.teachers.weights import Teacher
from kdbench.utils.files import file_stem
from kdbench.utils.hashing import digest
from kdbench.utils.state_dicts import load_weights, save_weights


def teacher_logits(teacher: Teacher, net: Network, split: Split, work: Path, device: torch.device) -> Tensor:
    """Return the logits [N, C] on the evaluation split, in fp32.

    They are saved in ``work`` under a hash of everything they depend on, and read from there the next time.
    """
    path = logits_path(teacher, net.mean, net.std, split.id, work)
    if path.is_file():
        with contextlib.suppress(KdbenchError):  # damaged: they are measured again
            return load_weights(path)["logits"].to(device)
    logits = predictions(lambda images: net(images, Needs()).logits, open_feed(split.evaluation, device))
    with contextlib.suppress(OSError):  # they are then measured again next time
        save_weights(path, {"logits": logits})
    return logits


def logits_path(teacher: Teacher, mean: Tensor, std: Tensor, split_id: str, work: Path) -> Path:
    """The file of a teacher's logits on a split, for a network that normalises images by ``mean`` and ``std``."""
    key = digest([teacher.id, split_id, mean.flatten().tolist(), std.flatten().tolist()])
    return work / "teachers" / f"{file_stem(teacher.name)}-{key}.logits.safetensors"


def measure(teacher: Teacher, data: DataSpec, split: Split, work: Path, device: torch.device) -> float:
    """Return the teacher's top-1 accuracy on the evaluation split, in percent."""
    return top_k(*_evaluate(teacher, data, split, work, device), 1)


def assess(
    teacher: Teacher, data: DataSpec, split: Split, work: Path, device: torch.device
) -> tuple[float, list[str]]:
    """Return what `measure` does, and warnings if the teacher's classes seem to be in another order than the data's."""
    logits, targets = _evaluate(teacher, data, split, work, device)
    top1 = top_k(logits, targets, 1)
    return top1, permutation_warnings(teacher.name, top1, logits, targets)


def accuracy_lines(teacher: Teacher, top1: float, split: str, classes: int) -> list[str]:
    """Say what the teacher reaches on ``split``, with a warning if that is less than expected.

    Without an expected accuracy, the warning is given for one that chance reaches.
    """
    doubt = chance_remark(top1, classes)
    lines = [f"teacher {teacher.name} ({teacher.id}) reaches {top1:.2f} % top-1 on {split}"]
    if teacher.expected is not None:
        lines[0] += f" (expected {teacher.expected:.2f})"
        if falls_short(top1, teacher.expected):
            lines.append(
                f"WARNING: the suite expects {teacher.expected:.2f} % of {teacher.name}; this teacher is "
                f"{teacher.expected - top1:.2f} points below, so results are not comparable with published ones"
                + (f"; it is {doubt}" if doubt else "")
            )
    elif doubt:
        lines[0] += f" (WARNING: {doubt})"
    return lines


def _evaluate(
    teacher: Teacher, data: DataSpec, split: Split, work: Path, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return logits [N, C] and targets [N] on the evaluation split, on the CPU."""
    net = to_device(teacher.net(data), device)
    return teacher_logits(teacher, net, split, work, device).cpu(), split.evaluation.targets.cpu()
