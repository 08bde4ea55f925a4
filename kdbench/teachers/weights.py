"""Teachers: weights from a file or from the cache of those trained here, checked, hashed and measured."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench import models
from kdbench.data.dataset import Split
from kdbench.data.streaming import open_feed
from kdbench.errors import KdbenchError
from kdbench.method import Needs
from kdbench.metrics import predictions, top_k
from kdbench.models.cifar.base import ENTRIES
from kdbench.models.wrapper import Net, to_device
from kdbench.suites import DataSpec, ModelSpec
from kdbench.teachers.class_order import like_chance, permuted
from kdbench.teachers.fitting import Part, choose, parts
from kdbench.utils.hashing import digest
from kdbench.utils.state_dicts import load_weights, save_weights, state_dicts, weights_digest

SUFFIXES = (".pth", ".pt", ".safetensors")
TOLERANCE = 0.05  # points that a teacher may be below the expected accuracy, which is told with two digits


# Networks that share the names and shapes of their tensors with another one.
TWINS = ("mobilenetv2", "mobilenetv2_stride1")


@dataclass(frozen=True)
class Teacher:
    """A teacher whose weights are in the file ``path``. ``expected``: top-1 on test, percent.

    ``id`` hashes all that its outputs depend on but the images: weights and network. ``remark``: which of the file's
    weights were taken, where that is a choice.
    """

    name: str
    model: ModelSpec
    path: Path
    id: str
    expected: float | None
    remark: str = ""

    def net(self, data: DataSpec) -> Net:
        """The frozen network, in eval mode. Raises KdbenchError when the file is not what it was."""
        model, _ = _filled(self.name, self.model, self.path, data)
        if _identity(model, self.model) != self.id:
            raise KdbenchError(
                f"{self.path} changed while it was in use; run again to train with the new weights"
            )
        return Net(model, data.mean, data.std).eval().requires_grad_(False)


def open_teacher(name: str, model: ModelSpec, path: Path, data: DataSpec, expected: float | None) -> Teacher:
    """Check the weights at ``path`` against the architecture. Raises KdbenchError with what does not fit."""
    filled, remark = _filled(name, model, path, data)
    return Teacher(name, model, path, _identity(filled, model), expected, remark)


def _filled(name: str, spec: ModelSpec, path: Path, data: DataSpec) -> tuple[nn.Module, str]:
    model = models.create(spec.arch, data.classes, **spec.args)
    return model, _fill(model, parts(state_dicts(path)), name, path)


def _identity(model: nn.Module, spec: ModelSpec) -> str:
    """The hash of the weights; of the network too, unless they belong to one alone of kdbench's own."""
    weights = weights_digest(
        {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    )
    arch, own = models.full_name(spec.arch), {full for name, full in ENTRIES.items() if name not in TWINS}
    return weights if arch in own and not spec.args else digest([weights, arch, dict(spec.args)])


def find_file(name: str, folder: Path) -> Path:
    """``<name>.pth``, ``.pt`` or ``.safetensors`` in a folder that the user gave."""
    if not folder.is_dir():
        raise KdbenchError(
            f"--teacher-weights {folder} is not a folder; it should hold {name}.pth or {name}.safetensors"
        )
    for suffix in SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise KdbenchError(
        f"there is no {' or '.join(name + s for s in SUFFIXES)} in {folder}; put the file there, or leave out "
        "--teacher-weights and the teacher is trained by the suite's recipe"
    )


def fill(model: nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> None:
    """Load ``state``: all keys, all shapes, finite floats. Counters that old checkpoints lack may be missing."""
    _fill(model, parts({(): state}), name, path)


def _fill(model: nn.Module, found: Sequence[Part], name: str, path: Path) -> str:
    """Load the part of a file that fits; returns the sentence on the choice. Raises KdbenchError with what is wrong."""
    own = model.state_dict()
    part, remark = choose(own, found, name, path)
    model.load_state_dict({**own, **part.state})
    return remark


def teacher_logits(teacher: Teacher, net: Net, split: Split, work: Path, device: torch.device) -> Tensor:
    """Logits [N, C] on the evaluation split, fp32; kept in ``work`` by the hash of all it depends on."""
    key = digest([teacher.id, split.id, net.mean.flatten().tolist(), net.std.flatten().tolist()])
    path = work / "teachers" / f"{teacher.name}-{key}.logits.safetensors"
    if path.is_file():
        return load_weights(path)["logits"].to(device)
    logits = predictions(lambda images: net(images, Needs()).logits, open_feed(split.evaluation, device))
    with contextlib.suppress(OSError):  # then it is measured again next time
        save_weights(path, {"logits": logits})
    return logits


def verdict(teacher: Teacher, top1: float, split: str, classes: int) -> list[str]:
    """What a teacher reaches on ``split``, in words, with a warning where that is below what is expected of it.

    Without an expectation there is one where chance reaches as much.
    """
    doubt = like_chance(top1, classes)
    lines = [f"teacher {teacher.name} ({teacher.id}) reaches {top1:.2f} % top-1 on {split}"]
    if teacher.expected is not None:
        lines[0] += f" (expected {teacher.expected:.2f})"
        if top1 < teacher.expected - TOLERANCE:
            lines.append(
                f"WARNING: the suite expects {teacher.expected:.2f} % of {teacher.name}; this teacher is "
                f"{teacher.expected - top1:.2f} points below, so results are not comparable with published ones"
                + (f"; it is {doubt}" if doubt else "")
            )
    elif doubt:
        lines[0] += f" (WARNING: {doubt})"
    return lines


def assess(
    teacher: Teacher, data: DataSpec, split: Split, work: Path, device: torch.device
) -> tuple[float, list[str]]:
    """Top-1 as `measure` has it, and a warning where the classes seem to be in another order than the data's."""
    logits, targets = _evaluation(teacher, data, split, work, device)
    top1 = top_k(logits, targets, 1)
    return top1, permuted(teacher.name, top1, logits, targets)


def measure(teacher: Teacher, data: DataSpec, split: Split, work: Path, device: torch.device) -> float:
    """Top-1 of the teacher on the evaluation split, in percent."""
    return top_k(*_evaluation(teacher, data, split, work, device), 1)


def _evaluation(
    teacher: Teacher, data: DataSpec, split: Split, work: Path, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Logits [N, C] and targets [N] on the evaluation split, on the CPU."""
    net = to_device(teacher.net(data), device)
    return teacher_logits(teacher, net, split, work, device).cpu(), split.evaluation.targets.cpu()
