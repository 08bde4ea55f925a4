"""The networks of a selection: which ones its names mean, with their pretrained weights here."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import timm

from kdbench import models
from kdbench.errors import KdbenchError, unknown
from kdbench.models import pretrained
from kdbench.models.cifar.base import ENTRIES
from kdbench.models.flops import check_size
from kdbench.models.naming import TIMM, full_name, names_weights, which
from kdbench.plan.selection import Selection, teacher_recipe
from kdbench.suites import DataSpec, ModelSpec, Suite
from kdbench.suites.schema import Weights


def open_networks(
    selection: Selection,
    class_names: Sequence[str],
    work: Path,
    say: Callable[[str], object],
    retrain: bool = False,
) -> Selection:
    """Build each network of the pairs once: a misspelt name or a wrong argument fails here, not after an hour.

    Returns the selection with a suite whose networks have their pretrained weights in a file below ``work``. ``say``
    gets which network a name means where that may be in doubt, and how teachers come to know the classes, which are
    called ``class_names``. ``retrain``: every teacher is trained here. Raises KdbenchError for what cannot be had or
    built.
    """
    suite = selection.suite
    names = list(dict.fromkeys(name for pair in selection.pairs for name in (pair.teacher, pair.student)))
    for name in names:
        _check_name(name, suite)
        _check_tag(name, suite)
    place = pretrained.folder(work)
    started = {
        name: pretrained.obtain(spec, place, say)
        for name in names
        if names_weights((spec := suite.model(name)).arch)
    }
    named = suite
    suite = dataclasses.replace(suite, models={**suite.models, **started})
    for name in names:
        spec, classes = suite.model(name), suite.dataset.classes
        if spec.weights:
            check_size(pretrained.load(spec, classes, place), suite.dataset.size, spec.weights.source)
        else:
            if "num_classes" in spec.args:
                raise KdbenchError(
                    f"model {name!r} takes no num_classes: its classes are those of the images"
                )
            models.create(spec.arch, classes, **spec.args)
        for line in _lines(name, named.model(name).arch, spec, suite.dataset):
            say(line)
    teachers = set(selection.teachers())
    for name in names:
        if name in teachers:
            for line in _teaching(name, suite, class_names, retrain):
                say(line)
    return dataclasses.replace(selection, suite=suite)


def _check_name(name: str, suite: Suite) -> None:
    """A name that is nearly one of the suite's own is more likely that than one of timm's."""
    own = {each for pair in suite.pairs for each in (pair.teacher, pair.student)} | suite.models.keys()
    misspelt = name not in own and difflib.get_close_matches(name, own, cutoff=0.8)
    if misspelt and not models.exists(name):
        raise unknown("model", name, own, f" of suite {suite.name}")


def _check_tag(name: str, suite: Suite) -> None:
    """What `pretrained` of a teacher names is used as it is, on the suite's classes and normalisation."""
    tag = suite.teachers[name].pretrained if name in suite.teachers else None
    known = timm.get_pretrained_cfg(tag) if tag and timm.is_model_pretrained(tag) else None
    data = suite.dataset
    if known and (known.num_classes, tuple(known.mean), tuple(known.std)) != (
        data.classes,
        data.mean,
        data.std,
    ):
        raise KdbenchError(
            f"the weights {tag} of the teacher {name} know {known.num_classes} classes, of images with mean "
            f"{_numbers(known.mean)} and std {_numbers(known.std)}; the suite has {data.classes}, with "
            f"{_numbers(data.mean)} and {_numbers(data.std)}; in place of `pretrained` name the network {TIMM}{tag}, "
            "which keeps its normalisation and learns the suite's classes"
        )


def _lines(name: str, named: str, spec: ModelSpec, data: DataSpec) -> Iterator[str]:
    """Which network a name means, where that may be in doubt, and what its weights are."""
    subject = name if name == named else f"{name} ({named})"
    if spec.weights:
        whose = f"kdbench's {spec.arch}" if spec.arch in ENTRIES else f"timm's {full_name(spec.arch)}"
        yield f"{subject} is {whose} with pretrained weights: {_facts(spec.weights, data)}"
    elif words := which(named):
        yield f"{subject} is {words}"


def _facts(weights: Weights, data: DataSpec) -> str:
    head = "" if weights.classes == data.classes else f", a new head for {data.classes}"
    size = "" if weights.size == data.size else f", here {data.size} px"
    own = f"images normalised by mean {_numbers(weights.mean)} and std {_numbers(weights.std)}"
    return f"{weights.classes} classes{head}; {weights.size} px{size}; {own}"


def _teaching(name: str, suite: Suite, class_names: Sequence[str], retrain: bool) -> Iterator[str]:
    """How a pretrained teacher comes to know the suite's classes."""
    spec, data = suite.model(name), suite.dataset
    if as_it_is(spec, suite) and not retrain:
        yield (
            f"the teacher {name} is used as it is: its {data.classes} classes must be those of the data, in the same "
            "order; with a [finetune_recipe] in the suite it is trained on"
        )
        known = spec.weights.class_names if spec.weights else ()
        if known and known != tuple(class_names):
            yield (
                f"WARNING: the classes of {name} are called {', '.join(known[:3])} ..., those of the data "
                f"{', '.join(class_names[:3])} ...: are they the same, in the same order?"
            )
    elif spec.weights:
        recipe = teacher_recipe(suite, spec)
        what = "its head alone" if recipe.trains == "head" else "all of it"
        yield (
            f"the teacher {name} is fine-tuned: {what}, {recipe.epochs} epochs, lr {recipe.lr:g}; [finetune_recipe] of "
            "the suite changes that"
        )


def as_it_is(spec: ModelSpec, suite: Suite) -> bool:
    """Whether a teacher is a pretrained network that already knows the classes, by their number."""
    return (
        spec.weights is not None
        and spec.weights.classes == suite.dataset.classes
        and not suite.finetune_recipe
    )


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
