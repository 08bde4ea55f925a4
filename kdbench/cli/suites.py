"""`kdbench suites`: the suites that ship with kdbench, and one of them in full."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from kdbench import suites
from kdbench.cli import completion, options
from kdbench.cli.verbs import verb
from kdbench.suites import DataSpec, ModelSpec, Suite
from kdbench.suites.schema import View
from kdbench.utils.text import WIDTH, fold, grid


@verb("suites", short_help="List the suites, or show one.")
@click.argument("name", required=False, shell_complete=completion.one(completion.suites))
@click.option("--no-timing", is_flag=True, help="Do not time steps to estimate the hours.")
@options.data_dir
def suites_command(name: str | None, no_timing: bool, data_dir: Path | None) -> None:
    """List the suites, or show suite NAME (or a .toml file).

    Shows data, recipe, pairs and models, and estimates the hours that the suite
    takes on this machine from a few timed steps.
    """
    click.echo(suite(name, data_dir) if name else suites_list())
    if name and not no_timing:
        from kdbench.bench import estimate

        click.echo(f"\n{estimate.report(name, data_dir)}")


def suites_list() -> str:
    """A line per suite."""
    return grid([(name, suites.load(name).description) for name in suites.names()], WIDTH)


def suite(name: str, data_dir: Path | None = None) -> str:
    """One suite: data, methods, recipe, pairs, and the models' parameters, MACs and expected accuracy."""
    spec = suites.load(name)
    measured, data = _data(spec.dataset, data_dir)
    spec = dataclasses.replace(spec, dataset=measured)
    parts = [
        fold(f"{spec.name}: {spec.description}"),
        grid(
            [
                ("data", data),
                ("methods", ", ".join(spec.methods)),
                ("seeds", ", ".join(map(str, spec.seeds))),
                *(
                    (f"view {view}", _settings(_changed(how)) or "as it is")
                    for view, how in spec.views.items()
                ),
                ("teachers", f"trained with {_settings(spec.teacher_recipe) or 'the same recipe'}"),
                *(
                    [("pretrained", f"fine-tuned with {tuned}")]
                    if (tuned := _settings(spec.finetune_recipe))
                    else []
                ),
            ],
            WIDTH,
        ),
        grid([*spec.recipe.identity().items(), ("eval_every", spec.recipe.eval_every)]),
        grid(_pairs(spec), WIDTH),
    ]
    if measured.classes and measured.size:
        parts.append(grid(_models(spec), WIDTH))
    return "\n\n".join(parts)


def _changed(view: View) -> dict[str, Any]:
    """What a view does beyond leaving the image as it is."""
    return {key: value for key, value in vars(view).items() if value != getattr(View(), key)}


def _settings(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())


def _data(spec: DataSpec, data_dir: Path | None) -> tuple[DataSpec, str]:
    """The data set, measured if it is here (nothing is downloaded), and a sentence that describes it."""
    from kdbench.data.dataset import split_dataset
    from kdbench.data.loading import load_data
    from kdbench.data.places import is_local
    from kdbench.data.streaming import count_duplicates

    state = "data not found (--data-dir)"
    if is_local(spec, data_dir):
        dataset, spec = load_data(spec, data_dir)
        state = f"{len(dataset.train):,} train and {len(dataset.test):,} test images"
        duplicates = count_duplicates(dataset, split_dataset(dataset, "test", spec.holdout))
        if duplicates is not None:
            how = "byte for byte" if spec.stream else "pixel for pixel"
            state += f", {duplicates} of the test images are in train too, {how}"
        state = "; ".join([state, *dataset.notes])
    classes, size = (value or "?" for value in (spec.classes, spec.size))
    return spec, f"{spec.name}: {classes} classes, {size} px, holdout {spec.holdout:g} of train; {state}"


def _pairs(spec: Suite) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("pair", "its own recipe and parameters")]
    for pair in spec.pairs:
        params = [f"{m}.{k}={v}" for m, table in pair.params.items() for k, v in table.items()]
        rows.append((str(pair), " ".join([_settings(pair.recipe), *params]).strip() or "none"))
    return rows


def _models(spec: Suite) -> list[Sequence[Any]]:
    from kdbench import models
    from kdbench.models import naming

    rows: list[Sequence[Any]] = [("model", "parameters", "MACs", "expected", "built as")]
    for name in dict.fromkeys(model for pair in spec.pairs for model in (pair.teacher, pair.student)):
        built_as = spec.model(name)
        network = models.bare(built_as)
        model = models.create(network.arch, spec.dataset.classes, **network.args)
        macs = f"{models.macs(model, spec.dataset.size) / 1e6:.1f} M"
        teacher = spec.teachers.get(name)
        expected = f"{teacher.top1:.2f}" if teacher else "–"
        words = [] if built_as == ModelSpec(name) else [built_as.arch, _settings(built_as.args)]
        words += [naming.which(built_as.arch)]
        if teacher and teacher.pretrained:
            words.append(f"weights {teacher.pretrained}")
        rows.append(
            (name, f"{models.count_parameters(model):,}", macs, expected, " ".join(filter(None, words)))
        )
    return rows
