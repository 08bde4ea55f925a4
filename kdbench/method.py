"""The plug-in interface: all that a method file needs to know of kdbench.

B samples in a batch, C classes, D size of an embedding, N train samples. A method is a frozen dataclass of its
hyperparameters. Whatever learns or remembers is in the ``modules`` that it builds. A method never runs a model and
never sees an optimiser, a loader, a device name or a configuration.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, get_type_hints

import torch
from torch import Tensor, nn

from kdbench.errors import KdbenchError
from kdbench.utils.field_values import coerce
from kdbench.utils.needs import Needs
from kdbench.utils.papers import Family, Fidelity, Paper
from kdbench.utils.search_space import Space
from kdbench.utils.search_space import choice as choice
from kdbench.utils.search_space import linear_range as linear_range
from kdbench.utils.search_space import log_range as log_range

Terms = dict[str, Tensor]
TASK = "ce"  # the name of the term that compares the student with the labels


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

    def with_logits(self, change: Callable[[Tensor], Tensor]) -> Views:
        """Return the same views with ``change(logits)`` in place of each view's logits."""
        changed = copy.copy(self)
        changed._outputs = {
            view: dataclasses.replace(outputs, logits=change(outputs.logits))
            for view, outputs in self._outputs.items()
        }
        return changed

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


class TeacherBatches(Protocol):
    """The train set with the teacher's outputs, for `Method.prepare`. Neither pass has a graph.

    Iterating is a pass over the unaugmented images in their order, as the first declared view.
    """

    def __iter__(self) -> Iterator[tuple[Batch, Views]]: ...

    def epoch(self, number: int) -> Iterator[tuple[Batch, Views]]:
        """A pass over all declared views in random order; each ``number`` from 0 on has random choices of its own."""


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


def _option(neutral: Any, meaning: str) -> Any:
    """A field that every method inherits; at its neutral value it is no part of a run's identity."""
    return field(default=neutral, kw_only=True, metadata={"neutral": neutral, "meaning": meaning})


@dataclass(frozen=True)
class Method:
    """A distillation method: hyperparameters as annotated fields, facts as bare attributes, and the functions below.

    Fields are bool, int, float, str or a Literal of strings; `field(metadata={"neutral": v})` keeps a field that was
    added later out of a run's identity while it equals v. Attributes without an annotation (`needs`, the tags, `paper`
    ...) are no hyperparameters.
    """

    name: ClassVar[str]  # set by registry.register
    version: ClassVar[int] = 1  # bump when the same hyperparameters give different numbers
    needs: ClassVar[Needs] = Needs()

    # What a method says of itself without an annotation does not count for its code's hash: these five. The first
    # three each method says.
    paper: ClassVar[Paper | None] = None  # None: it is in no paper
    family: ClassVar[Family | None] = None
    fidelity: ClassVar[Fidelity | None] = None
    # field -> where `kdbench tune` searches. All loss weights but that of the labels (only ratios of weights count
    # beside the learning rate), temperatures, and what else is known to matter.
    space: ClassVar[Space] = {}
    # Whether the loss of a batch is the mean over parts of it, weighted by their sizes, where BatchNorm in the modules
    # sees the whole batch; several processes then compute a part each. None: where it is not `coupled`. True: it is
    # coupled through BatchNorm alone. False: it draws random numbers. What has an `update` is never separable.
    separable: ClassVar[bool | None] = None

    # Honest tags; `kdbench check` tests each in both directions.
    coupled: ClassVar[bool] = False  # a sample's loss depends on its batch mates
    order_dependent: ClassVar[bool] = False  # ... and on their order, beyond who gets which random numbers
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
    decayed: ClassVar[str] = TASK  # where momenta differ: the term whose buffer takes the weight decay

    # Options: what every method inherits, beside the parameters of its own; see `refusal`.
    momentum_gap: float = _option(
        0.0,
        "DOT (arXiv:2307.08436): the term `ce` trains with the recipe's momentum less this number, all other terms "
        "with the momentum plus it, each side with a momentum buffer of its own",
    )
    teacher_fix: Literal["none", "swap", "sort"] = _option(
        "none",
        "corrects the teacher's logits where its top class is not the label, in training only: `swap` exchanges the "
        "two values (SLD, arXiv:2504.20108), `sort` gives the label the largest value and moves the classes before "
        "it down by one (Sort-KD, arXiv:2508.16544)",
    )

    def __init__(self, *values: Any, **named: Any) -> None:
        # `registry.register` gives each method an __init__ of its own
        if values or named or not hasattr(self, "name"):
            raise KdbenchError(
                f"{type(self).__name__} is not registered: write @kdbench.register above the class"
            )
        self.__post_init__()

    def __post_init__(self) -> None:
        for key, kind in parameter_types(type(self)).items():
            value = coerce(kind, getattr(self, key), f"{self.name}.{key}")
            if key in self.positive and not value > 0:
                raise KdbenchError(f"{self.name}.{key} must be greater than 0, got {value!r}")
            object.__setattr__(self, key, value)
        for option in OPTIONS:
            if option in self.params and (reason := refusal(self, option)):
                raise KdbenchError(f"{self.name}.{option} cannot be set: {reason}")

    @property
    def momentum_offsets(self) -> Mapping[str, float]:
        """Term -> what its momentum differs by from the recipe's; terms that are not named differ by 0.

        Terms with equal offsets share one gradient and one momentum buffer; without any, one buffer serves all.
        """
        return {}

    @property
    def leading_term(self) -> str | None:
        """The term that the others may not work against; None: all gradients are added as they are.

        A term whose gradient has a negative product with the leading one's loses its part along it, by a backward pass
        per term.
        """
        return None

    @property
    def params(self) -> dict[str, Any]:
        """The hyperparameters that count for a run's identity: all but fields at their neutral value."""
        fields = dataclasses.fields(self)
        values = {f.name: getattr(self, f.name) for f in fields}
        neutral = {f.name: f.metadata["neutral"] for f in fields if "neutral" in f.metadata}
        return {k: v for k, v in values.items() if not (k in neutral and v == neutral[k])}

    def skip(self, context: Context) -> str | None:
        """Why this method cannot train this pair, which is then recorded as skipped; None where it can."""
        return None

    def build(self, context: Context) -> nn.Module:
        """Return everything that learns or remembers; all parameters are optimised, frozen tensors must be buffers."""
        return nn.Module()

    def prepare(self, context: Context, teacher_batches: TeacherBatches, modules: Any) -> None:
        """Compute what needs passes over the train set with the teacher's outputs, before the student is trained.

        Called once after `build`, only where overridden, without gradients: to train modules of its own here, a method
        enables them (`torch.enable_grad`). ``teacher_batches`` can be read several times.
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


def is_separable(method: Method) -> bool:
    """Whether parts of a batch can be computed apart, as the tag ``separable`` says."""
    declared = not method.coupled if method.separable is None else method.separable
    return declared and not overrides(method, "update")


def field_types(cls: type[Method]) -> dict[str, Any]:
    """Hyperparameter of the method's own -> its annotated type; the options that all methods inherit are not in it."""
    return {key: kind for key, kind in _hints(cls).items() if key not in OPTIONS}  # type: ignore[arg-type]  # a class has a hash


def parameter_types(cls: type[Method]) -> dict[str, Any]:
    """All that can be set of a method: its own hyperparameters, then the options that all methods inherit."""
    hints = _hints(cls)  # type: ignore[arg-type]
    return {**field_types(cls), **{key: hints[key] for key in OPTIONS}}


@functools.cache  # a plan asks for each cell
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


# option -> its meaning
OPTIONS: Mapping[str, str] = {f.name: f.metadata["meaning"] for f in dataclasses.fields(Method)}


def values(method: Method) -> dict[str, Any]:
    """The method's own hyperparameters, and the options that are set."""
    set_options = [option for option in OPTIONS if option in method.params]
    return {key: getattr(method, key) for key in [*field_types(type(method)), *set_options]}


def refusal(method: Method, option: str) -> str | None:
    """Why ``option`` (of `OPTIONS`) cannot be set for this method, as half a sentence; None where it can."""
    return {"momentum_gap": _no_two_sides, "teacher_fix": _no_teacher_logits}[option](method)


def _no_two_sides(method: Method) -> str | None:
    if method.momentum_offsets:
        return "the method has momentum offsets of its own"
    if method.leading_term:
        return f"the method aligns its gradients to that of {method.leading_term!r}"
    names = [names if isinstance(names, tuple) else (names,) for names in method.weights.values()]
    terms = {name for each in names for name in each}
    if TASK in terms and len(terms) > 1:
        return None
    return f"it is for methods with the term {TASK!r} and another one in their `weights`"


def _no_teacher_logits(method: Method) -> str | None:
    if not method.needs.teacher:
        return "the method has no teacher"
    if method.family in (None, "logit") and not method.needs.classifier:  # else it may make logits of its own
        return None
    adds_kd = hasattr(method, "kd_weight") and method.weights.get("kd_weight", "kd") == "kd"
    if adds_kd and method.kd_weight > 0:  # type: ignore[attr-defined]
        return None
    return "the method does not read the teacher's logits" + (" while kd_weight is 0" if adds_kd else "")


def momentum_offset(method: Method, term: str) -> float:
    """What the momentum of ``term`` differs by from the recipe's."""
    if method.momentum_gap:
        return -method.momentum_gap if term == TASK else method.momentum_gap
    return float(method.momentum_offsets.get(term, 0.0))


def momentum_range(method: Method) -> tuple[float, float]:
    """The smallest and the largest momentum offset of the method's terms; (0, 0): plain SGD."""
    offsets = (0.0, method.momentum_gap, -method.momentum_gap, *method.momentum_offsets.values())
    return min(offsets), max(offsets)
