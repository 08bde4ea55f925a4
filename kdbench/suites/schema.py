"""Suites: what is trained on what, by which recipe. One TOML a suite, read strictly into frozen dataclasses.

A file may build on another (``base``, see `files`). A key that is unknown, missing or of the wrong type is an error
that names the file, the key and the nearest right one.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kdbench.errors import KdbenchError, unknown
from kdbench.suites.loader import find, parse, read
from kdbench.utils.hashing import digest

MAGNITUDES = 31  # RandAugment's strengths are 0..30


@dataclass(frozen=True)
class View:
    """What may be done to an image, in this order: resized crop, crop, flip, RandAugment, cutout. The default
    does nothing.

    ``scale``, ``ratio``: cut out a random part of the image, its share of the area uniform in ``scale`` and its
    width to height log-uniform in ``ratio``, and resize it (bilinear, antialiased) to the set's size:
    torchvision's RandomResizedCrop (Szegedy et al., CVPR 2015, 6). ``scale`` None: the whole image.
    ``pad``: black pixels put around the image before a random crop of the old size (He et al., CVPR 2016,
    4.2).
    ``flip``: mirror left and right with probability 1/2.
    ``ops``, ``magnitude``: RandAugment's number of operations and strength, 0..30 (see ``randaugment``).
    ``cutout``: largest side of a black square as a share of the image's shorter side (DeVries & Taylor, 2017,
    arXiv:1708.04552, with a random side): side uniform in [0, cutout * shorter side], centre uniform over the
    image, clipped at the border; a pixel is black when its middle lies inside.
    """

    pad: int = 0
    flip: bool = False
    ops: int = 0
    magnitude: int = 0
    cutout: float = 0.0
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if self.pad < 0 or self.ops < 0:
            raise KdbenchError(f"a view's pad and ops must be 0 or more, got pad={self.pad}, ops={self.ops}")
        if not 0 <= self.magnitude < MAGNITUDES:
            raise KdbenchError(f"a view's magnitude must be in 0..{MAGNITUDES - 1}, got {self.magnitude}")
        if not 0.0 <= self.cutout <= 1.0:
            raise KdbenchError(f"a view's cutout is a share of the image side in 0..1, got {self.cutout}")

        for name, pair in (("scale", self.scale or (1.0, 1.0)), ("ratio", self.ratio)):
            if len(pair) != 2 or not 0.0 < pair[0] <= pair[1] or (name == "scale" and pair[1] > 1.0):
                limits = "0 < low <= high <= 1" if name == "scale" else "0 < low <= high"
                raise KdbenchError(f"a view's {name} is [low, high] with {limits}, got {list(pair)}")

    def identity(self) -> dict[str, Any]:
        """The fields that can change a pixel; the resized crop's only where there is one."""
        fields = dataclasses.asdict(self)
        if self.scale is None:
            del fields["scale"], fields["ratio"]
        return fields


@dataclass(frozen=True)
class Recipe:
    """How every cell of a suite is trained: SGD, one schedule, no selection.

    Epoch-like numbers (milestones, methods' warm-ups) are in units of ``reference_epochs``, so ``epochs`` may be
    shortened and the schedule keeps its shape. ``eval_every`` only sets how often curves are measured
    (after the last milestone: always).
    """

    epochs: int
    reference_epochs: int
    batch_size: int
    lr: float
    momentum: float
    nesterov: bool
    weight_decay: float
    schedule: Literal["step", "onecycle"]
    precision: Literal["fp32", "bf16", "tf32"]
    eval_every: int = field(metadata={"identity": False})
    # step: lr is multiplied by `decay` after each milestone
    milestones: tuple[int, ...] = field(default=(), metadata={"schedule": "step"})
    decay: float = field(default=0.1, metadata={"schedule": "step"})
    # onecycle: the share of training at which lr is highest
    peak: float = field(default=0.3, metadata={"schedule": "onecycle"})
    # a method that reads one view trains on each of these, its losses summed; () leaves it its own view
    train_views: tuple[str, ...] = ()

    def identity(self) -> dict[str, Any]:
        """The fields that can change a number; those of the other schedule and unused options cannot."""
        fields = (f for f in dataclasses.fields(self) if f.metadata.get("identity", True))
        used = (f.name for f in fields if f.metadata.get("schedule", self.schedule) == self.schedule)
        return {name: getattr(self, name) for name in used if name != "train_views" or self.train_views}

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

    Its images come from ``folder`` (class folders; brought to ``size``, where that is given) or the file ``npz``, else
    from where ``name`` is found (`kdbench.data.loading`). 0 classes or size and () mean or
    std: measured on loading.

    ``stream``: class folders too large for memory, decoded while they are trained on (`kdbench.data.streaming`). Then
    ``eval_resize`` is what the shorter side is brought to before the centre crop of ``size`` that is evaluated (0:
    ``size``), and so many ``workers`` decode (None: one a processor, at most 8).
    """

    name: str
    classes: int = 0
    size: int = 0  # pixels a side
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    holdout: float = 0.1
    train_per_class: int | None = None  # keep only the first so many of each class
    test_per_class: int | None = None
    folder: str | None = None
    npz: str | None = None
    stream: bool = False
    eval_resize: int = 0
    workers: int | None = None
    subset: str = ""  # in words, what part of the set the command line kept: its rows stand apart

    @property
    def shown(self) -> str:
        """The name that rows carry."""
        return f"{self.name} ({self.subset})" if self.subset else self.name


@dataclass(frozen=True)
class ModelSpec:
    """A name of the suite -> an architecture of kdbench or timm with its keyword arguments."""

    arch: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TeacherSpec:
    """What a teacher of this name is expected to reach: top-1 in percent on the test split.

    pretrained: timm's tag of weights that are fetched, where the teacher is not to be trained here.
    """

    top1: float
    pretrained: str | None = None


@dataclass(frozen=True)
class Pair:
    """Teacher and student, with the recipe fields and method parameters published for this pair."""

    teacher: str
    student: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.teacher}:{self.student}"


@dataclass(frozen=True)
class Suite:
    """Everything that a suite file says."""

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
    models: Mapping[str, ModelSpec] = field(default_factory=dict)
    teachers: Mapping[str, TeacherSpec] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # method parameters for every pair
    name: str = ""

    def model(self, name: str) -> ModelSpec:
        """The suite's own definition of ``name``, else the architecture of that name."""
        return self.models.get(name, ModelSpec(name))


def load(name: str) -> Suite:
    """The suite of that name, or the one in that .toml file. Raises KdbenchError for every mistake in it."""
    file = find(name)
    table, where = read(file)
    suite = _checked(dataclasses.replace(_build(Suite, table, where), name=file.stem), where)
    known = {pair.teacher for pair in suite.pairs}
    # those of a base may belong to pairs that this file does not have
    for teacher in parse(file).get("teachers", {}):
        if teacher not in known:
            raise unknown("teacher", teacher, known, f" in {where}: teachers: no pair has it")
    return suite


def validated(suite: Suite) -> Suite:
    """A suite that was built in Python, checked as strictly as a file's. Raises KdbenchError for every mistake."""
    if not isinstance(suite.name, str) or not suite.name or "/" in suite.name:
        raise KdbenchError(
            f"a suite needs a name that can be a file's (its rows go to <name>.csv), got {suite.name!r}; build it with "
            "Suite(..., name='mine')"
        )
    where = f"suite {suite.name}"
    return _checked(dataclasses.replace(_build(Suite, _table(suite), where), name=suite.name), where)


def _table(value: Any) -> Any:
    """A dataclass as the table that a file would hold, without what is left open."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {k: _table(v) for k, v in fields.items() if not (isinstance(value, Suite) and k == "name")}
    if isinstance(value, Mapping):
        return {key: _table(each) for key, each in value.items()}
    return [_table(each) for each in value] if isinstance(value, list | tuple) else value


def _checked(suite: Suite, where: str) -> Suite:
    """The suite, if its parts fit each other."""
    for pair in suite.pairs:
        replace_recipe(suite.recipe, pair.recipe, f"{where}: pair {pair}")
    replace_recipe(suite.recipe, suite.teacher_recipe, f"{where}: teacher_recipe")
    for view in suite.recipe.train_views:
        if view not in suite.views:
            raise unknown("view", view, suite.views, f" in {where}: recipe: train_views")
    _check_lists(suite, where)
    return suite


def replace_recipe(recipe: Recipe, changes: Mapping[str, Any], where: str) -> Recipe:
    """``recipe`` with some fields changed, each checked by name and type."""
    current = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    return _build(Recipe, {**current, **changes}, where)


def _build(cls: type, table: Any, where: str) -> Any:
    """A dataclass from a TOML table, strictly."""
    if not isinstance(table, Mapping):
        raise KdbenchError(f"{where} must be a table, got {table!r}")
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "name" or cls is DataSpec}
    for key in table:
        if key not in fields:
            raise unknown("key", key, fields, f" in {where}")
    for key, spec in fields.items():
        optional = spec.default is not dataclasses.MISSING or spec.default_factory is not dataclasses.MISSING
        if key not in table and not optional:
            raise KdbenchError(f"missing key {key!r} in {where}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        instance = cls(**values)
    except KdbenchError as error:  # a View checks itself
        raise KdbenchError(f"{where}: {error}") from error
    if cls is Recipe:
        _check_recipe(instance, where)
    if cls is DataSpec:
        _check_data(instance, where)
    return instance


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        if value not in args:
            raise unknown("value", str(value), args, f" in {where}")
        return value
    if origin in (Union, types.UnionType):  # X | None
        return None if value is None else _value(args[0], value, where)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise KdbenchError(f"{where} must be a list, got {value!r}")
        return tuple(_value(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise KdbenchError(f"{where} must be a table, got {value!r}")
        return {key: _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if kind is Any:
        return value
    if kind is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise KdbenchError(f"{where} must be finite, got {value}")
        return float(value)
    if type(value) is not kind:
        raise KdbenchError(f"{where} must be of type {kind.__name__}, got {value!r}")
    return value


def _check_lists(suite: Suite, where: str) -> None:
    """Two entries for one thing may say two things of it, and would be one row of a table."""
    for key in ("methods", "seeds", "pairs"):
        texts = [str(entry) for entry in getattr(suite, key)]
        for text in texts:
            if texts.count(text) > 1:
                raise KdbenchError(f"{where}: {key} lists {text} twice; remove one of the two")


def _check_data(data: DataSpec, where: str) -> None:
    if not (len(data.mean) in (0, 3) and len(data.std) in (0, 3) and min(data.std, default=1) > 0):
        raise KdbenchError(
            f"{where}: mean and std take 3 numbers each (red, green, blue), std greater than 0; or leave them out"
        )
    if data.folder and data.npz:
        raise KdbenchError(f"{where}: the images come from folder or from npz; name one of them")
    if data.classes < 0 or data.size < 0:
        raise KdbenchError(f"{where}: classes and size must be greater than 0, or left out")
    if data.stream and (data.npz or not (data.size and data.mean and data.std)):
        raise KdbenchError(
            f"{where}: images that stream lie in class folders, not npz, and need size, mean and std"
        )
    if not data.stream and (data.eval_resize or data.workers is not None):
        raise KdbenchError(f"{where}: eval_resize and workers are for images that stream; set stream = true")
    if data.eval_resize and data.eval_resize < data.size:
        raise KdbenchError(
            f"{where}: eval_resize must be at least size = {data.size}, got {data.eval_resize}"
        )
    if data.workers is not None and data.workers < 0:
        raise KdbenchError(f"{where}: workers must be 0 or more, got {data.workers}")


def _check_recipe(recipe: Recipe, where: str) -> None:
    for key in ("epochs", "reference_epochs", "batch_size", "lr", "eval_every"):
        if not getattr(recipe, key) > 0:
            raise KdbenchError(f"{where}: {key} must be greater than 0, got {getattr(recipe, key)}")
    if recipe.batch_size < 2:
        raise KdbenchError(f"{where}: batch_size must be at least 2 (BatchNorm), got {recipe.batch_size}")
    if not (0 <= recipe.momentum < 1 and recipe.weight_decay >= 0):
        raise KdbenchError(f"{where}: momentum must lie in 0..1 and weight_decay be 0 or more")
    if recipe.nesterov and recipe.momentum == 0:
        raise KdbenchError(f"{where}: nesterov needs a momentum greater than 0")
    if not 0 < recipe.peak < 1:
        raise KdbenchError(f"{where}: peak must lie between 0 and 1, got {recipe.peak}")
