"""Every key of a suite file (name, type and default from the dataclasses, with its meaning), and the shipped suites."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, get_type_hints

from docs.generate.markdown import code, prose, table
from kdbench import suites
from kdbench.data.catalog import DATASETS, KnownDataset
from kdbench.suites import schema
from kdbench.suites.loader import file_fields

# keys that the loader replaces by what they stand for, so that no dataclass has them
OF_FILES = (
    (
        "base",
        "str",
        "none",
        "Suite whose content is taken where this file does not set it: a name or a `.toml` file.",
    ),
    (
        "pair_params",
        "Mapping[str, Mapping]",
        "empty",
        'Parameters of methods by pair: `"resnet56:resnet20" = { dkd = { beta = 2.0 } }`.',
    ),
)
# table of the file -> its dataclass and what each key means; `keys` checks that no key is missing here or too many
TABLES: dict[str, tuple[type, dict[str, str]]] = {
    "The file": (
        schema.Suite,
        {
            "description": "One line that `kdbench suites` prints.",
            "methods": "Names of the methods that `kdbench run` trains without `--methods`.",
            "seeds": "Seeds that `kdbench run` trains without `--seeds`.",
            "dataset": "Data set, see below.",
            "views": "Augmentations by name. Most methods read the view `weak`; some read `strong` too.",
            "recipe": "How each student is trained, see below.",
            "pairs": 'Teachers and students: tables as below, or texts such as `"resnet56:resnet20"`.',
            "teacher_recipe": "Fields of `recipe` that differ where a teacher is trained.",
            "finetune_recipe": "Fields that differ from the teachers' recipe where a teacher starts from pretrained "
            "weights; empty: a tenth of its epochs and of its lr, only where the classes differ.",
            "models": "Names of this file for architectures with arguments, see below.",
            "teachers": "What is known of a teacher, by its name, see below.",
            "params": "Parameters of methods for every pair: `[params.dkd]` with `beta = 2.0`.",
        },
    ),
    "`[dataset]`": (
        schema.DataSpec,
        {
            "name": "Name of the data set, a column of each row. Known names are found or downloaded; `folder` and "
            "`npz` give one's own.",
            "classes": "Number of classes; 0: measured.",
            "size": "Pixels per side; 0: measured. With `folder`, images are resized (shorter side) and centre-cropped "
            "to it.",
            "mean": "Mean of red, green and blue, of values in 0..1; empty: measured on the training images.",
            "std": "Standard deviation of red, green and blue; empty: measured on the training images.",
            "holdout": "Share of the training images that `--split holdout` evaluates on and leaves out of training.",
            "train_per_class": "Use only the first N training images of each class.",
            "test_per_class": "Use only the first N test images of each class.",
            "folder": "Class folders `train/<class>/` with `test/` or `val/`. Paths are relative to the suite file.",
            "npz": "A file with x_train, y_train, x_test and y_test. Paths are relative to the suite file.",
            "stream": "Decode images while training, for class folders that do not fit into memory. Needs `size`, "
            "`mean` and `std`.",
            "eval_resize": "With `stream`: the shorter side before the centre crop of `size` pixels in evaluation; "
            "0: `size`.",
            "workers": "With `stream`: processes that decode; default: one per processor, at most 8.",
            "subset": "Words for the part of the data in use; set by `--per-class`.",
        },
    ),
    "`[views.NAME]`": (
        schema.View,
        {
            "pad": "Black pixels around the image before a random crop of the old size.",
            "flip": "Mirror left and right with probability 1/2.",
            "ops": "RandAugment: number of operations.",
            "magnitude": "RandAugment: strength, 0 to 30.",
            "cutout": "Largest side of a black square, as a share of the shorter side of the image.",
            "turn": "Quarter turns counter-clockwise. `NAME@1` to `NAME@3` turn the view `NAME` and need no table.",
            "scale": "Random resized crop: share of the area, `[low, high]`; none: the whole image.",
            "ratio": "Random resized crop: width to height, `[low, high]`.",
        },
    ),
    "`[recipe]`": (
        schema.Recipe,
        {
            "epochs": "Number of epochs.",
            "reference_epochs": "Length to which `milestones` and the methods' warm-ups refer; with fewer `epochs` the "
            "schedule keeps its shape.",
            "batch_size": "Images per step.",
            "lr": "Learning rate (its highest, with `onecycle`).",
            "momentum": "Momentum of `sgd`.",
            "nesterov": "Nesterov's momentum of `sgd`.",
            "weight_decay": "Weight decay: with `sgd` on all parameters, else on all but biases, norms and what the "
            "network exempts.",
            "schedule": "`step`: lr times `decay` after each milestone. `onecycle`: linear from 0 to lr and back to 0. "
            "`cosine`: half a cosine from lr to 0.",
            "precision": "`fp32`, `bf16` (autocast) or `tf32`; part of the cell's id.",
            "eval_every": "Epochs between evaluations for the curves; after the last milestone each epoch is "
            "evaluated.",
            "milestones": "With `step`: epochs, in units of `reference_epochs`.",
            "decay": "With `step`: factor at each milestone.",
            "peak": "With `onecycle`: share of training at which lr is highest.",
            "trains": "`all`, or `head`: the last layer alone (a linear probe).",
            "train_views": "Views on which a method that reads one view is trained, losses summed; empty: its own "
            "view.",
            "optimizer": "`sgd` (torch's), or a name of timm's factory: `adamw`, `lamb`, `lion` ...",
            "optimizer_args": "Arguments of timm's factory: `{ betas = [0.9, 0.95], eps = 1e-6 }`.",
            "warmup_epochs": "Epochs, in units of `reference_epochs`, in which lr rises linearly from 0.",
            "clip": "Largest norm of the gradient of all parameters; 0: no limit.",
            "label_smoothing": "Share of the labels that is spread over all classes, in the term `ce` alone.",
            "mixup": "Parameter of the Beta distribution of the share with which images are blended; 0: none.",
            "ema": "The average of the student's weights is evaluated and exported: its largest decay per step, to "
            "which 1 - (1 + steps)^(-2/3) rises; 0: none.",
        },
    ),
    "`[[pairs]]`": (
        schema.Pair,
        {
            "teacher": "Name of the teacher: an entry of `models`, a network of kdbench or of timm.",
            "student": "Name of the student.",
            "recipe": "Fields of the recipe that differ for this pair.",
            "params": "Parameters of methods for this pair: `{ dkd = { beta = 2.0 } }`.",
        },
    ),
    "`[models.NAME]`": (
        schema.ModelSpec,
        {
            "arch": "A network of kdbench (`resnet20`) or of timm (`timm:resnet18` where both have the name), with "
            "weights (`resnet18.a1_in1k`), of a hub (`hf-hub:owner/name`) or a folder (`local-dir:PATH`).",
            "args": "Keyword arguments of the network.",
        },
    ),
    "`[teachers.NAME]`": (
        schema.TeacherSpec,
        {
            "top1": "Accuracy in percent that the teacher is expected to reach on the test split; kdbench warns when "
            "it is weaker.",
            "pretrained": "Tag of timm's weights, where the teacher is not trained here.",
        },
    ),
}


def keys() -> str:
    """A table of keys per table of a suite file. Raises KeyError where the descriptions and the dataclass disagree."""
    chapters = []
    for title, (cls, meanings) in TABLES.items():
        rows = [[code(f.name), _type(cls, f.name), _default(f), meanings[f.name]] for f in _fields(cls)]
        if cls is schema.Suite:
            rows += [[code(name), code(kind), default, meaning] for name, kind, default, meaning in OF_FILES]
        if unknown := set(meanings) - {field.name for field in _fields(cls)}:
            raise KeyError(f"{cls.__name__} has no field {unknown}")
        chapters += [f"### {title}", table(["key", "type", "default", "meaning"], rows)]
    return "\n\n".join(chapters)


def _fields(cls: type) -> Iterator[dataclasses.Field]:
    """Those that a file may set."""
    return iter(file_fields(cls).values())


def _type(cls: type, name: str) -> str:
    hint: Any = get_type_hints(cls)[name]
    text = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    for old, new in {"typing.": "", "collections.abc.": "", "kdbench.suites.schema.": ""}.items():
        text = text.replace(old, new)
    return code(text)


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    if field.default is dataclasses.MISSING:
        return "required"
    if field.default is None:
        return "none"
    return "empty" if field.default in ((), "") else code(json.dumps(field.default))


def shipped() -> str:
    """A table of the suites of kdbench."""
    rows = [[code(name), *_suite(suites.load(name))] for name in suites.names()]
    return table(["suite", "description", "pairs", "methods", "seeds", "epochs"], rows, right=[2, 4, 5])


def _suite(suite: schema.Suite) -> list[Any]:
    methods = ", ".join(suite.methods)
    return [prose(suite.description), len(suite.pairs), methods, len(suite.seeds), suite.recipe.epochs]


def datasets() -> str:
    """A table of the data sets that are known by name."""
    rows = [
        [code(d.name), d.classes, d.size or "varies", f"{d.train:,}", f"{d.test:,}", _source(d)]
        for d in DATASETS
    ]
    return table(["data set", "classes", "pixels", "train", "test", "from"], rows, right=[1, 2, 3, 4])


def _source(known: KnownDataset) -> str:
    if known.archive:
        return f"downloaded ({code(known.archive.filename)})"
    return f"in {known.package}" if known.package else "your copy"
