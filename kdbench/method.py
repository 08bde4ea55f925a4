"""The plug-in interface: all that a method file needs to know of kdbench.

B samples in a batch, C classes, D size of an embedding, N train samples. A method is a frozen dataclass of its
hyperparameters. Whatever learns or remembers is in the ``modules`` that it builds. A method never runs a model and
never sees an optimiser, a loader, a device name or a configuration.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError, unknown
from kdbench.utils.papers import Family, Fidelity, Paper

Terms = dict[str, Tensor]
Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class Needs:
    """What the harness must supply to a method; reading anything else raises `UndeclaredNeed`.

    ``preact`` may name the one model that must have it: not every network does.
    """

    views: tuple[str, ...] = ("weak",)
    teacher: bool = True
    embedding: bool = False
    features: bool = False
    stages: bool = False
    preact: bool | Role = False
    classifier: bool = False
    index: bool = False

    def __or__(self, other: Needs) -> Needs:
        """The union: what one forward must yield to serve both."""
        flags = (f.name for f in dataclasses.fields(self) if f.name != "views")
        either: dict[str, Any] = {name: _either(getattr(self, name), getattr(other, name)) for name in flags}
        return Needs(views=tuple(dict.fromkeys(self.views + other.views)), **either)

    def of(self, role: Role) -> Needs:
        """What is needed of one model, with every flag a bool."""
        return dataclasses.replace(self, preact=self.preact in (True, role))


def union(needs: Iterable[Needs]) -> Needs:
    """What one forward must yield to serve all of them; without any, no view."""
    return functools.reduce(operator.or_, needs, Needs(views=(), teacher=False))


def _either(one: bool | Role, other: bool | Role) -> bool | Role:
    """What serves both; of both models where each names another."""
    return True if one and other and one != other else one or other


class UndeclaredNeed(KdbenchError):
    """A method read what its ``needs`` did not declare."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the method reads {what} but does not declare it; add it to its `needs`")


@dataclass(frozen=True)
class Outputs:
    """What one model yields on one view; fields that no method needs are None."""

    logits: Tensor
    embedding: Tensor | None = None
    features: Tensor | None = None
    stages: tuple[Tensor, ...] | None = None
    preact: tuple[Tensor, ...] | None = None
    classify: Callable[[Tensor], Tensor] | None = None


class Views:
    """One model's outputs by view, restricted to what the method declared.

    ``student.logits`` is the first view of ``needs.views``; ``student["strong"].logits`` is another.
    """

    def __init__(self, outputs: Mapping[str, Outputs], needs: Needs, view: str | None = None) -> None:
        self._outputs, self._needs = outputs, needs
        self._view = needs.views[0] if view is None else view

    def __getitem__(self, view: str) -> Views:
        if view not in self._needs.views:
            raise UndeclaredNeed(f"the view {view!r}")
        return Views(self._outputs, self._needs, view)

    def _read(self, field: str, need: str) -> Any:
        if not getattr(self._needs, need):
            raise UndeclaredNeed(f"'{field}'")
        return getattr(self._outputs[self._view], field)

    @property
    def logits(self) -> Tensor:
        """[B, C]."""
        return self._outputs[self._view].logits

    @property
    def embedding(self) -> Tensor:
        """[B, D]: the input of the head's last linear layer."""
        return self._read("embedding", "embedding")

    @property
    def features(self) -> Tensor:
        """[B, channels, height, width]: the map that the head pools."""
        return self._read("features", "features")

    @property
    def stages(self) -> tuple[Tensor, ...]:
        """The map after each resolution stage, stem excluded; four even blocks of an isotropic network, as NCHW."""
        return self._read("stages", "stages")

    @property
    def preact(self) -> tuple[Tensor, ...]:
        """The same maps as ``stages``, before each one's last ReLU."""
        return self._read("preact", "preact")

    @property
    def classify(self) -> Callable[[Tensor], Tensor]:
        """embedding [B, D] -> logits [B, C]: the model's own head, live in a student, frozen in a teacher."""
        return self._read("classify", "classifier")


@dataclass(frozen=True)
class Batch:
    """One training batch, without the models' outputs.

    target: [B] int64.  epoch: counts from 1 in units of the recipe's reference length (1..240 on CIFAR-100 however
    short the run), so warm-ups and phases keep their share of the schedule.  last: the last batch of its epoch.
    progress: 0-dim tensor, the share of training already done, in [0, 1).  generator: the cell's own, on the device.
    """

    target: Tensor
    epoch: float
    last: bool
    progress: Tensor
    generator: torch.Generator
    sample_index: Tensor | None = None

    @property
    def index(self) -> Tensor:
        """[B] int64: the samples' positions in the train set, 0..N-1."""
        if self.sample_index is None:
            raise UndeclaredNeed("'index'")
        return self.sample_index


@dataclass(frozen=True)
class StageFacts:
    """One stage of a model: its channels, its (height, width) and the affine terms of its last BatchNorm, if any."""

    channels: int
    size: tuple[int, int]
    bn_weight: Tensor | None = None
    bn_bias: Tensor | None = None


@dataclass(frozen=True)
class ModelFacts:
    """What a method may know of a model before training.

    linear_head is measured: logits == classify(mean over space of features).  has_preact: ``preact`` is available.
    """

    stages: tuple[StageFacts, ...]
    feature_channels: int
    feature_size: tuple[int, int]
    embedding_size: int
    classify: Callable[[Tensor], Tensor]
    linear_head: bool
    has_preact: bool


@dataclass(frozen=True)
class Context:
    """Static facts of a cell, for `Method.skip`, `Method.build` and `Method.prepare`."""

    num_classes: int
    train_size: int
    train_targets: Tensor
    batch_size: int
    epochs: int
    student: ModelFacts
    teacher: ModelFacts | None


class Method:
    """A distillation method: hyperparameters as annotated fields, facts as bare attributes, and the functions below.

    Fields are bool, int, float, str or a Literal of strings; `field(metadata={"neutral": v})` keeps a field that was
    added later out of a run's identity while it equals v. Attributes without an annotation (`needs`, the tags, `paper`
    ...) are no hyperparameters.
    """

    name: ClassVar[str]  # set by registry.register
    version: ClassVar[int] = 1  # bump when the same hyperparameters give different numbers
    needs: ClassVar[Needs] = Needs()

    # Where it comes from; each method says all three itself, and none of them counts for its code's hash.
    paper: ClassVar[Paper | None] = None  # None: it is in no paper
    family: ClassVar[Family | None] = None
    fidelity: ClassVar[Fidelity | None] = None

    # Honest tags; `kdbench check` tests each in both directions.
    coupled: ClassVar[bool] = False  # a sample's loss depends on its batch mates
    order_dependent: ClassVar[bool] = False  # ... and on their order
    min_batch: ClassVar[int] = 1  # smaller last batches are dropped
    min_classes: ClassVar[int] = 2
    zero_at_match: ClassVar[tuple[str, ...]] = ()  # terms that vanish when student equals teacher
    shift_invariant: ClassVar[bool] = True  # adding a constant to a row of logits changes nothing
    partial_gradient: ClassVar[bool] = False  # the gradient is on purpose not that of the value
    keeps_modules: ClassVar[bool] = False  # `predict` uses the modules: they stay in the deployed student
    alias_of: ClassVar[str | None] = None  # the method that this one is another form of
    # field -> the term(s) that its 0 switches off
    weights: ClassVar[Mapping[str, str | tuple[str, ...]]] = {}
    positive: ClassVar[tuple[str, ...]] = ()  # fields that must be greater than 0
    # field -> values that `kdbench ablate` tries in addition to the default
    ablate: ClassVar[Mapping[str, tuple]] = {}

    def __post_init__(self) -> None:
        kinds = field_types(type(self))
        for key, kind in kinds.items():
            value = coerce(kind, getattr(self, key), f"{self.name}.{key}")
            if key in self.positive and not value > 0:
                raise KdbenchError(f"{self.name}.{key} must be greater than 0, got {value!r}")
            object.__setattr__(self, key, value)

    @property
    def params(self) -> dict[str, Any]:
        """The hyperparameters that count for a run's identity: all but fields at their neutral value."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {f.name: getattr(self, f.name) for f in fields}
        neutral = {f.name: f.metadata["neutral"] for f in fields if "neutral" in f.metadata}
        return {k: v for k, v in values.items() if not (k in neutral and v == neutral[k])}

    def skip(self, context: Context) -> str | None:
        """Why this method cannot train this pair, which is then recorded as skipped; None where it can."""
        return None

    def build(self, context: Context) -> nn.Module:
        """Return everything that learns or remembers; all parameters are optimised, frozen tensors must be buffers."""
        return nn.Module()

    def prepare(self, context: Context, teacher_batches: Iterable[tuple[Batch, Views]], modules: Any) -> None:
        """Compute what needs a pass over the unaugmented train set with the teacher's outputs, without gradients.

        Called once after `build`, only where overridden; ``teacher_batches`` can be iterated several times.
        """

    def loss(self, batch: Batch, student: Views, teacher: Any, modules: Any) -> Terms:
        """Return the weighted terms, name -> scalar tensor; the harness sums and back-propagates them. Pure.

        The names are the same in every phase. Those that begin with ``_`` are not summed: they are detached and handed
        to `update`. teacher: `Views`; None where ``needs.teacher`` is False. modules: what `build` returned.
        """
        raise NotImplementedError(f"{type(self).__name__} must define loss(batch, student, teacher, modules)")

    def update(self, batch: Batch, student: Views, teacher: Any, modules: Any, terms: Terms) -> None:
        """Update memory banks, running means, priors: after the gradients, before the optimiser's step, no gradient."""

    def predict(self, student: Views, modules: Any) -> Tensor:
        """Return the logits [B, C] that are evaluated."""
        return student.logits


def overrides(method: Method, member: str) -> bool:
    """Whether the method defines ``member`` itself."""
    return getattr(type(method), member) is not getattr(Method, member)


def field_types(cls: type[Method]) -> dict[str, Any]:
    """Hyperparameter -> its annotated type."""
    return _field_types(cls)  # type: ignore[arg-type]  # a class has a hash


@functools.cache  # a plan asks for each cell
def _field_types(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def coerce(kind: Any, value: Any, what: str) -> Any:
    """``value`` as the field type ``kind``; an int is accepted for a float, nothing else is converted.

    Raises KdbenchError naming ``what`` and the type.
    """
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise unknown("value", str(value), map(str, get_args(kind)), f" for {what}")
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    raise KdbenchError(f"{what} takes a {'finite ' if kind is float else ''}{kind.__name__}, got {value!r}")


def parse(kind: Any, text: str, what: str) -> Any:
    """The command line's ``text`` as a value of the field type ``kind``."""
    try:
        if kind is bool:
            value: Any = {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        elif kind in (int, float):
            value = kind(text)
        else:
            value = text
    except (KeyError, ValueError):
        raise KdbenchError(f"{what} takes a {kind.__name__}, got {text!r}") from None
    return coerce(kind, value, what)
