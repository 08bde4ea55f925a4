"""What a suite says, as frozen dataclasses: data set, views, recipe, models, pairs, parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kdbench.errors import KdbenchError
from kdbench.suites.pairs import pair_name
from kdbench.utils.hashing import digest

SGD = "sgd"
MAGNITUDES = 31  # RandAugment's strengths are 0..30
NOT_OF_FILE = {"file": False}  # metadata of a field that no suite file sets


@dataclass(frozen=True)
class View:
    """The augmentation of an image: resized crop, crop, flip, RandAugment, cutout, turn, in this order. Default: none.

    ``scale``, ``ratio``: cut out a random part of the image, its share of the area uniform in ``scale`` and its
    width to height log-uniform in ``ratio``, and resize it (bilinear, antialiased) to the set's size:
    torchvision's RandomResizedCrop (Szegedy et al., CVPR 2015, 6). ``scale`` None: the whole image.
    ``pad``: black pixels put around the image before a random crop of the old size (He et al., CVPR 2016,
    4.2).
    ``flip``: mirror left and right with probability 1/2.
    ``ops``, ``magnitude``: RandAugment's number of operations and strength, 0..30 (see ``randaugment``).
    ``cutout``: largest side of a black square as a share of the image's shorter side (DeVries & Taylor, 2017,
    arXiv:1708.04552, with a random side): side uniform in [0, cutout * shorter side], centre uniform over the
    image, clipped at the border; a pixel is black when its centre is inside.
    ``turn``: quarter turns counter-clockwise, 0..3. A suite need not list turned views: see `find_view`.
    """

    pad: int = 0
    flip: bool = False
    ops: int = 0
    magnitude: int = 0
    cutout: float = 0.0
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    turn: int = 0

    def __post_init__(self) -> None:
        if self.pad < 0 or self.ops < 0:
            raise KdbenchError(f"a view's pad and ops must be 0 or more, got pad={self.pad}, ops={self.ops}")
        if not 0 <= self.magnitude < MAGNITUDES:
            raise KdbenchError(f"a view's magnitude must be in 0..{MAGNITUDES - 1}, got {self.magnitude}")
        if not 0.0 <= self.cutout <= 1.0:
            raise KdbenchError(f"a view's cutout is a share of the image side in 0..1, got {self.cutout}")
        if self.turn not in range(4):
            raise KdbenchError(f"a view's turn is a number of quarter turns in 0..3, got {self.turn}")
        for name, pair in (("scale", self.scale or (1.0, 1.0)), ("ratio", self.ratio)):
            if len(pair) != 2 or not 0.0 < pair[0] <= pair[1] or (name == "scale" and pair[1] > 1.0):
                limits = "0 < low <= high <= 1" if name == "scale" else "0 < low <= high"
                raise KdbenchError(f"a view's {name} is [low, high] with {limits}, got {list(pair)}")

    def identity(self) -> dict[str, Any]:
        """The fields that can change a pixel; those of the resized crop and of the turn only where there is one."""
        fields = dict(vars(self))
        if self.scale is None:
            del fields["scale"], fields["ratio"]
        if not self.turn:
            del fields["turn"]
        return fields


def drawn_as(name: str) -> str:
    """The view whose random choices ``name`` shares: its own name, or "weak" for "weak@1"."""
    return name.partition("@")[0]


def find_view(views: Mapping[str, View], name: str) -> View | None:
    """The view ``name`` of a suite's ``views``; "NAME@1", "NAME@2" and "NAME@3" are NAME and so many quarter turns.

    None where there is no such view.
    """
    if name in views:
        return views[name]
    of, _, turn = name.partition("@")
    if of not in views or turn not in ("1", "2", "3"):
        return None
    return dataclasses.replace(views[of], turn=(views[of].turn + int(turn)) % 4)


def _unused(value: Any) -> Any:
    """A field that does nothing at ``value``, its default, and is then no part of an identity."""
    return field(default=value, metadata={"unused": value})


@dataclass(frozen=True)
class Recipe:
    """How every cell of a suite is trained: one optimiser, one schedule, no selection.

    Epoch-like numbers (milestones, methods' warm-ups) are in units of ``reference_epochs``, so ``epochs`` may be
    shortened and the schedule keeps its shape. ``eval_every`` only sets how often curves are measured
    (after the last milestone: always).
    """

    epochs: int
    reference_epochs: int
    batch_size: int
    lr: float
    momentum: float = field(metadata={"optimizer": SGD})
    nesterov: bool = field(metadata={"optimizer": SGD})
    weight_decay: float
    schedule: Literal["step", "onecycle", "cosine"]
    precision: Literal["fp32", "bf16", "tf32"]
    eval_every: int = field(metadata={"identity": False})
    # step: lr is multiplied by `decay` after each milestone
    milestones: tuple[int, ...] = field(default=(), metadata={"schedule": "step"})
    decay: float = field(default=0.1, metadata={"schedule": "step"})
    # onecycle: the share of training at which lr is highest
    peak: float = field(default=0.3, metadata={"schedule": "onecycle"})
    # all: every parameter; head: the last layer alone, on the features of the others in evaluation mode
    trains: Literal["all", "head"] = _unused("all")
    # a method that reads one view trains on each of these, its losses summed; () leaves it its own view
    train_views: tuple[str, ...] = _unused(())
    # sgd: torch's, with momentum, nesterov and the decay of all parameters; else a name of timm's factory, with the
    # decay of all but biases, norms and what the network exempts
    optimizer: str = _unused(SGD)
    # of timm's factory: betas, eps, momentum
    optimizer_args: Mapping[str, Any] = field(default_factory=dict, metadata={"unused": {}})
    warmup_epochs: float = _unused(0.0)  # in reference epochs: the rate rises linearly from 0 to lr
    clip: float = _unused(0.0)  # largest norm of the gradient of all parameters; 0: none
    label_smoothing: float = _unused(0.0)  # of the cross-entropy with the labels alone
    mixup: float = _unused(0.0)  # parameter of the Beta distribution; 0: none
    # of the averaged weights, which are evaluated: the decay per step that 1 - (1 + steps)^(-2/3) rises to; 0: none
    ema: float = _unused(0.0)

    def identity(self) -> dict[str, Any]:
        """The fields that can change a number; those of another schedule or optimiser and unused ones cannot."""
        fields = (f for f in dataclasses.fields(self) if f.metadata.get("identity", True))
        return {f.name: getattr(self, f.name) for f in fields if self._uses(f)}

    def _uses(self, known: dataclasses.Field) -> bool:
        facts, value = known.metadata, getattr(self, known.name)
        if facts.get("schedule", self.schedule) != self.schedule:
            return False
        if facts.get("optimizer", self.optimizer) != self.optimizer:
            return False
        return "unused" not in facts or value != facts["unused"]

    @property
    def id(self) -> str:
        """Hash of the identity; for a suite's recipe, before pairs change parts of it: the recipe_id of its rows."""
        return digest(self.identity())

    def views(self, declared: tuple[str, ...]) -> tuple[str, ...]:
        """The views that a method which declares ``declared`` is trained on."""
        return self.train_views if self.train_views and len(declared) == 1 else declared


@dataclass(frozen=True)
class DataSpec:
    """The data set, its normalisation (per channel, of values in 0..1) and the share held out for tuning.

    Its images come from ``folder`` (class folders; resized to ``size``, where that is given), from the file ``npz``, or
    by ``name`` from the data folder (`kdbench.data.places`). 0 classes or size and () mean or std: measured on loading.

    ``stream``: class folders too large for memory, decoded during training (`kdbench.data.streaming`). ``eval_resize``:
    the shorter side before the centre crop of ``size`` pixels in evaluation (0: ``size``). ``workers``: processes that
    decode (None: one per processor, at most 8).
    """

    name: str
    classes: int = 0
    size: int = 0  # pixels per side
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    holdout: float = 0.1
    train_per_class: int | None = None  # use only the first N of each class
    test_per_class: int | None = None
    folder: str | None = None
    npz: str | None = None
    stream: bool = False
    eval_resize: int = 0
    workers: int | None = None
    subset: str = (
        ""  # in words, the part of the set that the command line selected: its rows are tabled separately
    )

    @property
    def shown(self) -> str:
        """The name that rows carry."""
        return f"{self.name} ({self.subset})" if self.subset else self.name


@dataclass(frozen=True)
class Weights:
    """Pretrained weights that are here, and what timm knows of them.

    source: their name, such as ``resnet18.a1_in1k``. id: hash of the state dict. file: its name in the folder of
    pretrained weights. classes: of their head. size: pixels per side of the images that they were trained on, mean and
    std those of these images. class_names: of the head; empty where they are not known.
    """

    source: str
    id: str
    file: str
    classes: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    license: str = ""
    class_names: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """What can change a number."""
        return {"weights": self.id, "normalise": [self.mean, self.std]}


@dataclass(frozen=True)
class ModelSpec:
    """The architecture behind a name of the suite, with its keyword arguments.

    arch: as `kdbench.models.naming` has it. weights: those that ``arch`` named, once they are here; it then names the
    network alone.
    """

    arch: str
    args: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = field(default=None, metadata=NOT_OF_FILE)

    def normalisation(self, data: DataSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and std by which the network normalises images: those of its weights, else those of the data."""
        known = self.weights or data
        return known.mean, known.std

    def identity(self) -> list[Any]:
        """What can change a number: network and arguments, and the weights it starts from where it has any."""
        weights = [self.weights.identity()] if self.weights else []
        return [self.arch, dict(self.args), *weights]


@dataclass(frozen=True)
class TeacherSpec:
    """The top-1 that a teacher of this name is expected to reach, in percent on the test split.

    pretrained: timm's tag of the weights to download, where the teacher is not trained here.
    """

    top1: float
    pretrained: str | None = None


@dataclass(frozen=True)
class Pair:
    """A teacher and a student, with the recipe fields and method parameters of this pair."""

    teacher: str
    student: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return pair_name(self.teacher, self.student)


@dataclass(frozen=True)
class Suite:
    """The content of a suite file."""

    description: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    dataset: DataSpec
    views: Mapping[str, View]
    recipe: Recipe
    pairs: tuple[Pair, ...]
    teacher_recipe: Mapping[str, Any] = field(
        default_factory=dict
    )  # over `recipe`, for teachers trained here
    finetune_recipe: Mapping[str, Any] = field(default_factory=dict)  # over that, for pretrained teachers
    models: Mapping[str, ModelSpec] = field(default_factory=dict)
    teachers: Mapping[str, TeacherSpec] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method parameters for every pair
    name: str = field(default="", metadata=NOT_OF_FILE)

    def model(self, name: str) -> ModelSpec:
        """The suite's own definition of ``name``, else the architecture of that name."""
        return self.models.get(name, ModelSpec(name))

    def params_of(self, method: str, pair: Pair) -> dict[str, Any]:
        """The method's parameters on a pair: what the pair says over what the suite says for all."""
        return {**self.params.get(method, {}), **pair.params.get(method, {})}
