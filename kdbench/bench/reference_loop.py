"""A conventional training loop to compare with, as RepDistiller and mdistiller have it.

PIL images through torchvision's transforms in a DataLoader; fp32 (cuDNN in TF32 where it can, as torch has it); default
memory format; cuDNN chooses by trial; torch's default SGD; one method per run; the teacher computed and loss and
accuracy read back in every step.
Networks, initial weights and the training step itself are kdbench's, so that both loops do the same work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdbench import models
from kdbench.bench.timing import Seconds, now, watched
from kdbench.data.dataset import ImageSet
from kdbench.data.loading import load_split
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Context, Views, overrides
from kdbench.models.wrapper import Normalised
from kdbench.plan.cells import Cell
from kdbench.suites import DataSpec
from kdbench.suites.schema import View
from kdbench.teachers.weights import Teacher
from kdbench.train.cell_trainer import build_net
from kdbench.train.job import Job
from kdbench.train.optimizers import Optimisation
from kdbench.train.step import Step
from kdbench.utils.timer import Stopwatch


def workers() -> int:
    """Loading processes: 2 as in mdistiller, or 1 where there is one core."""
    return min(2, len(os.sched_getaffinity(0)))


class Images(Dataset):
    """uint8 images as PIL images through ``transform``: (image, target, index)."""

    def __init__(self, images: ImageSet, transform: transforms.Compose) -> None:
        self.images, self.targets, self.transform = images.images.numpy(), images.targets, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index], index


def transform(view: View, data: DataSpec) -> transforms.Compose:
    """Crop and flip of ``view``, then the normalisation. Raises KdbenchError for a view that does more."""
    if view.ops or view.cutout:
        raise KdbenchError(
            "the plain loop crops and flips alone; give the suite's weak view no ops and no cutout"
        )
    steps: list = []
    if view.scale:
        steps.append(transforms.RandomResizedCrop(data.size, view.scale, view.ratio))
    if view.pad:
        steps.append(transforms.RandomCrop(data.size, padding=view.pad))
    if view.flip:
        steps.append(transforms.RandomHorizontalFlip())
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(data.mean, data.std)])


def batches(job: Job) -> Iterator[list[Tensor]]:
    """Endless shuffled batches of (images, targets, indices)."""
    cell = job.cells[0]
    train = load_split(cell.dataset, cell.split, job.data_dir).train
    images = Images(train, transform(cell.views["weak"], cell.dataset))
    loader = DataLoader(
        images, cell.recipe.batch_size, shuffle=True, num_workers=workers(), persistent_workers=True
    )
    while True:
        yield from loader


class ReferenceLoop:
    """One method's run. Raises KdbenchError for a method with several views or a `prepare`."""

    def __init__(self, cell: Cell, teacher: Teacher | None, train: ImageSet, device: torch.device) -> None:
        self.method, self.device = cell.build_method(), device
        if self.method.needs.views != ("weak",) or overrides(self.method, "prepare"):
            raise KdbenchError(
                f"the plain loop has one view a sample and no pass before training; leave out {cell.method}"
            )
        spec, data, recipe = cell.student_model, cell.dataset, cell.recipe
        student = models.create(spec.arch, data.classes, **spec.args)
        student.load_state_dict(build_net(cell, torch.device("cpu"), Path()).model.state_dict())
        self.student, self.teacher = Normalised(student).to(device), None
        if teacher is not None and cell.teacher:
            self.teacher = Normalised(teacher.net(data).model).to(device).eval()
        context = Context(
            num_classes=data.classes,
            train_size=len(train),
            train_targets=train.targets.to(device),
            batch_size=recipe.batch_size,
            epochs=recipe.epochs,
            student=self.student.facts(data.size),
            teacher=self.teacher.facts(data.size) if self.teacher else None,
        )
        self.modules = self.method.build(context).to(device)
        optimisation = Optimisation.of(recipe, fused=False)
        self.train = Step(self.method, self.student, self.modules, optimisation, recipe.label_smoothing)
        self.student_watch, self.teacher_watch, self.loss_watch = (Stopwatch(device) for _ in range(3))
        watched(self.method, "loss", self.loss_watch)
        if self.teacher:
            watched(self.teacher, "forward", self.teacher_watch)
        self.generator = torch.Generator(device).manual_seed(0)
        self.epoch = recipe.reference_epochs / recipe.epochs
        self.log: list[tuple[float, float, float]] = []

    def block(self, loader: Iterator[list[Tensor]], steps: int) -> Seconds:
        """Train for ``steps`` steps."""
        before = self._read()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            for _ in range(steps):
                self._step(*next(loader))
        return Seconds(*(after - start for after, start in zip(self._read(), before, strict=True)))

    def _read(self) -> tuple[float, float, float, float]:
        watches = self.teacher_watch, self.student_watch, self.loss_watch
        return now(self.device), *(watch.seconds for watch in watches)  # type: ignore[return-value]

    def _step(self, images: Tensor, target: Tensor, index: Tensor) -> None:
        images, target = images.to(self.device), target.to(self.device)
        needs, teacher = self.method.needs, None
        if self.teacher:
            other = needs.of("teacher")
            with torch.no_grad():
                teacher = Views({"weak": self.teacher(images, other)}, other)
        batch = Batch(
            target=target,
            epoch=self.epoch,
            last=False,
            progress=torch.tensor(0.0, device=self.device),
            generator=self.generator,
            sample_index=index.to(self.device) if needs.index else None,
        )
        with self.student_watch.running():
            own = needs.of("student")
            student = Views({"weak": self.student(images, own)}, own)
            loss = self.train(batch, [(student, teacher)]).total
        right = student.logits.topk(min(5, student.logits.shape[1])).indices == target[:, None]
        self.log.append((loss.item(), right[:, 0].float().mean().item(), right.any(1).float().mean().item()))
