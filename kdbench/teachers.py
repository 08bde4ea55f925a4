"""Teachers: weights from a file or from the cache of those trained here, checked, hashed and measured."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdbench import checkpoint, models
from kdbench.class_order import like_chance, permuted
from kdbench.data import open_feed
from kdbench.data.sets import Split
from kdbench.errors import KdbenchError
from kdbench.evaluate import predictions, top_k
from kdbench.identity import digest, weights_digest
from kdbench.method import Needs
from kdbench.models.net import Net, place
from kdbench.suites import DataSpec, ModelSpec

SUFFIXES = (".pth", ".pt", ".safetensors")
TOLERANCE = 0.05  # points that a teacher may be below the expected accuracy, which is told with two digits


@dataclass(frozen=True)
class Teacher:
    """A teacher whose weights lie at ``path``; ``id`` hashes their content. ``expected``: top-1 on test, percent."""

    name: str
    model: ModelSpec
    path: Path
    id: str
    expected: float | None

    def net(self, data: DataSpec) -> Net:
        """The frozen network, in eval mode. Raises KdbenchError when the file is not what it was."""
        model = _filled(self.name, self.model, self.path, data)
        if _content(model) != self.id:
            raise KdbenchError(
                f"{self.path} changed while it was in use; run again to train with the new weights"
            )
        return Net(model, data.mean, data.std).eval().requires_grad_(False)


def open_teacher(name: str, model: ModelSpec, path: Path, data: DataSpec, expected: float | None) -> Teacher:
    """Check the weights at ``path`` against the architecture. Raises KdbenchError with what does not fit."""
    return Teacher(name, model, path, _content(_filled(name, model, path, data)), expected)


def _filled(name: str, spec: ModelSpec, path: Path, data: DataSpec) -> nn.Module:
    model = models.create(spec.arch, data.classes, **spec.args)
    fill(model, checkpoint.load_weights(path), name, path)
    return model


def _content(model: nn.Module) -> str:
    """The hash of all that can change an output."""
    return weights_digest(
        {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    )


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
    """Load ``state`` into ``model``: all keys, all shapes. Counters that old checkpoints lack may be missing."""
    state, own = unwrapped(state), model.state_dict()
    if problems := misfit(own, state):
        raise KdbenchError(f"{path} does not fit {name}: it {told(problems[:1])}; is it another model?")
    model.load_state_dict({**own, **state})


def unwrapped(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """``state`` without the prefix before every key: DataParallel's, torch.compile's, that of mdistiller's Vanilla."""
    for prefix in ("module.", "_orig_mod.", "student."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


Problems = list[tuple[str, list[str]]]


def misfit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Problems:
    """What keeps ``state`` from being the weights of a model whose state dict is ``own``: (what, keys); [] if nothing.

    Only names and shapes are looked at.
    """
    shapes = [
        f"{k} is {tuple(state[k].shape)} instead of {tuple(own[k].shape)}"
        for k in own
        if k in state and state[k].shape != own[k].shape
    ]
    found = (
        ("lacks", [k for k in own if k not in state and not k.endswith("num_batches_tracked")]),
        ("has the unknown", [k for k in state if k not in own]),
        ("differs in shape:", shapes),
    )
    return [(what, keys) for what, keys in found if keys]


def told(problems: Problems) -> str:
    """Problems in words, the first three keys of each."""
    return ", ".join(
        f"{what} {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        for what, keys in problems
    )


def teacher_logits(teacher: Teacher, net: Net, split: Split, work: Path, device: torch.device) -> Tensor:
    """Logits [N, C] on the evaluation split, fp32; kept in ``work`` by the hash of all it depends on."""
    key = digest([teacher.id, split.id, net.mean.flatten().tolist(), net.std.flatten().tolist()])
    path = work / "teachers" / f"{teacher.name}-{key}.logits.safetensors"
    if path.is_file():
        return checkpoint.load_weights(path)["logits"].to(device)
    logits = predictions(lambda images: net(images, Needs()).logits, open_feed(split.evaluation, device))
    with contextlib.suppress(OSError):  # then it is measured again next time
        checkpoint.save_weights(path, {"logits": logits})
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


def order_lines(
    teacher: Teacher, top1: float, data: DataSpec, split: Split, work: Path, device: torch.device
) -> list[str]:
    """A warning where the teacher's classes seem to be in another order than the data's."""
    logits = teacher_logits(teacher, place(teacher.net(data), device), split, work, device)
    return permuted(teacher.name, top1, logits.cpu(), split.evaluation.targets.cpu())


def measure(teacher: Teacher, data: DataSpec, split: Split, work: Path, device: torch.device) -> float:
    """Top-1 of the teacher on the evaluation split, in percent."""
    net = place(teacher.net(data), device)
    logits = teacher_logits(teacher, net, split, work, device)
    return top_k(logits.cpu(), split.evaluation.targets.cpu(), 1)
