"""A distillation method in one's own training loop: plain PyTorch, Lightning, or any other.

B images, C classes, N training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import Batch, Context, Method, ModelFacts, Views, momentum_range, overrides
from kdbench.models.flops import device_of
from kdbench.train.own_networks import adapted, run
from kdbench.train.schedule import moment
from kdbench.train.skip_rules import skip_reason
from kdbench.train.step import Call, build_modules, call_loss, call_update, summed
from kdbench.utils.field_values import as_int
from kdbench.utils.rng import Streams, stream

Images = Tensor | Mapping[str, Tensor]


class Distiller(nn.Module):
    """A method, a student and a teacher as one module, whose `loss` a training loop back-propagates.

    method: a registered name, a Method class, or an object with values of its own. student, teacher: timm models, or
    any modules from images to logits (or to an object that has them as ``logits``) where the method reads logits alone.
    Both get the images as the loop has them: normalised. teacher: None where the method has none; it is frozen and
    always in evaluation mode. epochs, steps: of the loop; steps are those of an epoch. reference_epochs: what a
    method's warm-up refers to, 240 on CIFAR-100; None: epochs. size: pixels per side, where the method reads more than
    logits. targets: [N] labels of the training images, where it remembers images. classes: None: as the student says.
    seed: of the networks' dropout and of the method's random numbers, which differ from rank to rank; None: torch's, as
    `torch.manual_seed` set it.

    `parameters` has the student's, the method's and the frozen teacher's. Raises KdbenchError for what these networks
    or one optimiser cannot train.
    """

    def __init__(
        self,
        method: str | Method | type[Method],
        student: nn.Module,
        teacher: nn.Module | None = None,
        *,
        epochs: int,
        steps: int,
        batch_size: int = 64,
        reference_epochs: int | None = None,
        size: int | None = None,
        targets: Sequence[int] | Tensor | None = None,
        classes: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.method = _method(method)
        epochs, steps, batch_size = (
            _count(key, value)
            for key, value in {"epochs": epochs, "steps": steps, "batch_size": batch_size}.items()
        )
        if not self.method.needs.teacher:
            teacher = None
        self._check(student, teacher, targets)
        self._epochs, self._steps, self._reference = epochs, steps, reference_epochs or epochs
        device = device_of(student)
        labels = torch.as_tensor([] if targets is None else targets, dtype=torch.int64, device=device)
        self.student, student_facts = adapted(self.method, "student", student, size)
        self.teacher: nn.Module | None = None
        teacher_facts: ModelFacts | None = None
        if teacher is not None:
            self.teacher, teacher_facts = adapted(self.method, "teacher", teacher, size)
            self.teacher.requires_grad_(False)
        context = Context(
            num_classes=classes or _classes(student),
            train_size=len(labels) or steps * batch_size,
            train_targets=labels,
            batch_size=batch_size,
            epochs=epochs,
            student=student_facts,
            teacher=teacher_facts,
        )
        if reason := skip_reason(self.method, context):
            raise KdbenchError(f"{self.method.name} cannot train these networks: {reason}")
        self._context, self._seed = context, torch.initial_seed() if seed is None else seed
        self._batches = 0  # that were trained on
        self._streams = Streams(self._seed, device)
        with self._streams.active():  # on all ranks alike
            self.extra = build_modules(self.method, context).to(device)
        if _rank():
            self._streams = self._new_streams(device)
        self._prepared = not overrides(self.method, "prepare")
        self._call: Call | None = None  # of the last loss, until `update`
        self.terms: dict[str, Tensor] = {}  # of the last loss, detached
        self.train()

    def _check(self, student: nn.Module, teacher: nn.Module | None, targets: Any) -> None:
        name, needs = self.method.name, self.method.needs
        if momentum_range(self.method) != (0.0, 0.0) or self.method.leading_term:
            raise KdbenchError(
                f"{name} treats the gradients of its terms differently, which one loss cannot; use kdbench.run"
            )
        if needs.teacher and teacher is None:
            raise KdbenchError(f"{name} needs a teacher; give teacher=")
        for role, model in (("student", student), ("teacher", teacher)):
            if model is not None and not (
                isinstance(model, nn.Module) and any(True for _ in model.parameters())
            ):
                raise KdbenchError(f"the {role} must be a torch.nn.Module with parameters, got {model!r:.80}")
        if teacher is not None and {*map(id, student.parameters())} & {*map(id, teacher.parameters())}:
            raise KdbenchError(
                "student and teacher share parameters; give a copy as the teacher, which is frozen"
            )
        if needs.index and targets is None:
            raise KdbenchError(f"{name} remembers images; give the labels of all training images as targets=")

    def train(self, mode: bool = True) -> Distiller:
        """Set the mode of the student and of what the method learns."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    def forward(self, images: Images, target: Tensor, index: Tensor | None = None) -> Tensor:
        """As `loss`: what wrappers such as DistributedDataParallel call."""
        return self.loss(images, target, index)

    def loss(self, images: Images, target: Tensor, index: Tensor | None = None) -> Tensor:
        """The sum of the method's terms on a batch, to be back-propagated; in training mode it counts as a step.

        images: [B, 3, H, W], or by view where the method reads several. target: [B]. index: [B] places of the images
        in ``targets``, where the method remembers images. Raises KdbenchError for what is missing.
        """
        needs = self.method.needs
        shown = self.by_view(images)
        _check_batch(shown, target)
        if target.device != self._streams.device:  # the module was moved
            self._streams = self._new_streams(target.device)
        batch = self._batch(target, index)
        with self._streams.active():
            student = Views(run(self.student, shown, needs.of("student")), needs.of("student"))
            with torch.no_grad():
                outputs = run(self.teacher, shown, needs.of("teacher")) if self.teacher is not None else {}
            teacher = Views(outputs, needs.of("teacher")) if needs.teacher else None
            self._check_classes(student, teacher)
            with torch.autocast(target.device.type, enabled=False):
                call = call_loss(self.method, batch, student, teacher, self.extra)
                losses = summed([call])
        self.terms = losses.detached().terms
        if self.training:
            self._batches += 1
            self._call = call if overrides(self.method, "update") else None
        return losses.total

    def _check_classes(self, student: Views, teacher: Views | None) -> None:
        counts = {"student": student.logits.shape[1], "teacher": teacher.logits.shape[1] if teacher else None}
        for role, count in counts.items():
            if count not in (None, self._context.num_classes):
                raise KdbenchError(f"the {role} has {count} classes instead of {self._context.num_classes}")

    def update(self) -> None:
        """Renew what the method remembers: call it after `backward` and before the optimiser's step."""
        if self._call is not None:
            with self._streams.active():
                call_update(self.method, [self._call], self.extra)
            self._call = None

    @torch.no_grad()
    def prepare(self, batches: Any) -> None:
        """Show the training images, unaugmented, to a method that needs them before training; others do nothing.

        batches: what yields (images, target) or (images, target, index), each time it is iterated: a DataLoader. images
        are by view where the method reads several.
        """
        if not self._prepared:
            with self._streams.active():
                self.method.prepare(self._context, _TeacherBatches(self, batches), self.extra)
            self._prepared = True

    def predict(self, images: Tensor) -> Tensor:
        """The logits [B, C] of the student, with what it keeps of the method."""
        needs = self.method.needs.of("student")
        view = {needs.views[0]: images}
        return self.method.predict(Views(run(self.student, view, needs), needs), self.extra)

    def get_extra_state(self) -> dict[str, Any]:
        """What a checkpoint needs beyond tensors: the place in training and the random streams."""
        device = str(self._streams.device)
        streams = {"device": device, "streams": self._streams.state()}
        return {"batches": self._batches, "prepared": self._prepared, **streams}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `get_extra_state` returned; without its device the random streams begin anew."""
        self._batches, self._prepared = state["batches"], state["prepared"]
        device = torch.device(state["device"])
        if device.type == "cpu" or torch.cuda.is_available():
            self._streams = self._new_streams(device)
            if not _rank():  # a checkpoint is the first rank's
                self._streams.load(state["streams"])

    def _new_streams(self, device: torch.device) -> Streams:
        """Of this rank, at this place in training."""
        rank = _rank()
        return Streams(stream("rank", self._seed, rank, self._batches) if rank else self._seed, device)

    def _batch(self, target: Tensor, index: Tensor | None) -> Batch:
        name = self.method.name
        if self._call is not None and self.training:
            raise KdbenchError(
                f"{name} remembers: call update() after backward() and before the optimiser's step"
            )
        if not self._prepared:
            raise KdbenchError(
                f"{name} looks at the training images first: call prepare(loader) before training"
            )
        if self.method.needs.index and index is None:
            raise KdbenchError(
                f"{name} remembers images: give loss the places of the batch's images as index"
            )
        epoch, step = divmod(self._batches, self._steps)
        reference, progress = moment(epoch, step, self._steps, self._epochs, self._reference)
        return Batch(
            target=target,
            epoch=reference,
            last=step == self._steps - 1,
            progress=torch.full((), progress, device=target.device),
            generator=self._streams.generator,
            sample_index=index if self.method.needs.index else None,
        )

    def by_view(self, images: Images) -> Mapping[str, Tensor]:
        """The images of each view that the method reads. Raises KdbenchError where one is missing."""
        views = self.method.needs.views
        if not isinstance(images, Mapping) and len(views) == 1:
            return {views[0]: images}
        if not isinstance(images, Mapping) or set(views) - set(images):
            raise KdbenchError(
                f"{self.method.name} reads several views: give images as a dict of {', '.join(views)}"
            )
        return {view: images[view] for view in views}


class _TeacherBatches:
    """`kdbench.method.TeacherBatches` of a loader."""

    def __init__(self, distiller: Distiller, batches: Any) -> None:
        self._distiller, self._batches = distiller, batches

    def __iter__(self) -> Iterator[tuple[Batch, Views]]:
        first = self._distiller.method.needs.views[0]
        for batch, images in self._read():
            yield batch, self._shown({first: images[first] if isinstance(images, Mapping) else images})

    def epoch(self, number: int) -> Iterator[tuple[Batch, Views]]:
        """Yield all declared views, as the loader draws them."""
        for batch, images in self._read():
            yield batch, self._shown(self._distiller.by_view(images))

    def _read(self) -> Iterator[tuple[Batch, Images]]:
        needs = self._distiller.method.needs
        for place, (images, target, *index) in enumerate(self._batches, start=1):
            batch = Batch(
                target=target,
                epoch=0.0,
                last=place == len(self._batches),
                progress=torch.tensor(0.0, device=target.device),
                generator=self._distiller._streams.generator,
                sample_index=index[0] if needs.index else None,
            )
            yield batch, images

    def _shown(self, images: Mapping[str, Tensor]) -> Views:
        teacher, needs = self._distiller.teacher, self._distiller.method.needs.of("teacher")
        with torch.no_grad():
            return Views(run(teacher, images, needs) if teacher is not None else {}, needs)


def _method(method: str | Method | type[Method]) -> Method:
    registry.load()
    if isinstance(method, str):
        return registry.create(method, {})
    if isinstance(method, type) and issubclass(method, Method):
        return registry.adopt(method)()
    if not isinstance(method, Method):
        raise KdbenchError(f"method is a name, a Method class or an object of one, got {method!r}")
    return method


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def _count(key: str, value: Any) -> int:
    number = as_int(value)
    if number is None or number < 1:
        raise KdbenchError(f"{key} must be a whole number of at least 1, got {value!r}")
    return number


def _check_batch(images: Mapping[str, Any], target: Any) -> None:
    """Refuse what torch would answer with an error about a tensor of its own, or take for class probabilities."""
    if not (isinstance(target, Tensor) and target.dtype == torch.int64 and target.ndim == 1):
        raise KdbenchError(
            f"target must be the labels of the batch, an int64 tensor [B], got {_kind(target)}"
        )
    for view in images.values():
        if not (isinstance(view, Tensor) and view.ndim > 1 and len(view) == len(target)):
            raise KdbenchError(
                f"images must be a tensor with an image per label, {len(target)}, got {_kind(view)}"
            )


def _kind(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _classes(student: nn.Module) -> int:
    count = getattr(student, "num_classes", None)
    if not isinstance(count, int):
        raise KdbenchError("the student does not say its number of classes; give classes=")
    return count
