"""What there is and how far it is, as text for a terminal: status, methods, suites, teachers."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdbench import suites
from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.suites import DataSpec, ModelSpec, Suite
from kdbench.suites.schema import View
from kdbench.utils import locks
from kdbench.utils.status import DONE, Status
from kdbench.utils.text import WIDTH, fold, grid

if TYPE_CHECKING:
    import pandas as pd


# --- status ---


def _raise(error: KdbenchError) -> None:
    raise error


def status(results: Path, failed: Callable[[KdbenchError], object] = _raise) -> str:
    """For each suite its cells by status, what the suite itself still lacks and what failed; then what is running.

    ``failed`` is called with the error of each file that cannot be read.
    """
    lines = []
    for name in store.suites(results):
        try:
            found = store.records(store.read(store.file_of(results, name)))
        except KdbenchError as error:
            failed(error)
            lines.append(f"{name}: cannot be read")
        else:
            lines += _of_suite(name, found)
    by_process: dict[tuple, list[float]] = {}
    for note in locks.running(results / ".work" / "locks").values():
        by_process.setdefault((note["pid"], note["host"]), []).append(note["since"])
    for (pid, host), starts in by_process.items():
        minutes = (time.time() - min(starts)) / 60
        cells = "1 cell" if len(starts) == 1 else f"{len(starts)} cells"
        lines.append(f"running: {cells} in process {pid} on {host} for {minutes:.0f} min")
    return "\n".join(fold(line, indent=4) for line in lines) or f"no results in {results}"


def _of_suite(name: str, found: pd.DataFrame) -> list[str]:
    counts = found["status"].value_counts()
    told = ", ".join(f"{counts[s]} {s}" for s in sorted(counts.index)) or "no rows"
    lines = [f"{name}: {told}"]
    if name in suites.names():
        wanted, done = own_cells(suites.load(name), found)
        lines.append(f"  of the suite's own {wanted} cells: {done} done, {wanted - done} missing")
    for _, row in found[~found["status"].isin([Status.OK, Status.SKIPPED])].iterrows():
        pair = f"{row['teacher']} -> {row['student']}" if isinstance(row["teacher"], str) else row["student"]
        reason = f": {row['error']}" if isinstance(row["error"], str) else ""
        lines.append(f"  {row['status']}  {row['method']}, {pair}, seed {row['seed']}{reason}")
    return lines


def own_cells(suite: Suite, found: pd.DataFrame) -> tuple[int, int]:
    """How many cells the suite as it is written has on the test split, and how many of them are done."""
    from kdbench import registry
    from kdbench.plan.selection import select_methods

    registry.load()
    wanted = {
        (seed, pair.student, pair.teacher if registry.get(method).needs.teacher else "", method)
        for seed in suite.seeds
        for pair in suite.pairs
        for method in select_methods(None, suite.methods)
    }
    rows = found[
        found["status"].isin(DONE)
        & (found["recipe_id"] == suite.recipe.id)
        & (found["split"] == "test")
        & (found["default"].astype(str) == "True")
    ]
    columns = (rows["seed"], rows["student"], rows["teacher"].fillna(""), rows["method"])
    return len(wanted), len(wanted & set(zip(*columns, strict=True)))


# --- suites ---


def suites_list() -> str:
    """A line a suite."""
    return grid([(name, suites.load(name).description) for name in suites.names()], WIDTH)


def suite(name: str, data_dir: Path | None = None) -> str:
    """One suite: data, methods, recipe, pairs, and the models' parameters, MACs and expected accuracy."""
    spec = suites.load(name)
    measured, told = _data(spec.dataset, data_dir)
    spec = dataclasses.replace(spec, dataset=measured)
    parts = [
        fold(f"{spec.name}: {spec.description}"),
        grid(
            [
                ("data", told),
                ("methods", ", ".join(spec.methods)),
                ("seeds", ", ".join(map(str, spec.seeds))),
                *(
                    (f"view {view}", _settings(_changed(how)) or "as it is")
                    for view, how in spec.views.items()
                ),
                ("teachers", f"trained with {_settings(spec.teacher_recipe) or 'the same recipe'}"),
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
    """The data set, measured where it is at hand (nothing is downloaded), and the words for it."""
    from kdbench.data.dataset import split_dataset
    from kdbench.data.loading import load_data
    from kdbench.data.streaming import count_duplicates

    told = "data not at hand (--data-dir)"
    if _at_hand(spec, data_dir):
        dataset, spec = load_data(spec, data_dir)
        told = f"{len(dataset.train):,} train and {len(dataset.test):,} test images"
        found = count_duplicates(dataset, split_dataset(dataset, "test", spec.holdout))
        if found is not None:
            how = "byte for byte" if spec.stream else "pixel for pixel"
            told += f", {found} of the test images are in train too, {how}"
        told = "; ".join([told, *dataset.notes])
    classes, size = (value or "?" for value in (spec.classes, spec.size))
    return spec, f"{spec.name}: {classes} classes, {size} px, holdout {spec.holdout:g} of train; {told}"


def _at_hand(spec: DataSpec, data_dir: Path | None) -> bool:
    from kdbench.data.decode_cache import home
    from kdbench.data.folders import TRAIN, part
    from kdbench.data.sources import CIFAR, TINY

    if spec.name == "digits" or spec.folder or spec.npz:
        return True
    folder = Path(data_dir or os.environ.get("KDBENCH_DATA") or home()).expanduser()
    unpacked = {"tiny-imagenet": TINY.inside, **{name: each.base_folder for name, each in CIFAR.items()}}
    files = [f"{spec.name}.npz", *([unpacked[spec.name]] if spec.name in unpacked else [])]
    return any((folder / file).exists() for file in files) or any(
        part(place, TRAIN) for place in (folder / spec.name, folder)
    )


def _pairs(spec: Suite) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = [("pair", "its own recipe and parameters")]
    for pair in spec.pairs:
        chosen = [f"{m}.{k}={v}" for m, table in pair.params.items() for k, v in table.items()]
        rows.append((str(pair), " ".join([_settings(pair.recipe), *chosen]).strip() or "none"))
    return rows


def _models(spec: Suite) -> list[Sequence[Any]]:
    from kdbench import models

    rows: list[Sequence[Any]] = [("model", "parameters", "MACs", "expected", "built as")]
    for name in dict.fromkeys(model for pair in spec.pairs for model in (pair.teacher, pair.student)):
        wanted = spec.model(name)
        model = models.create(wanted.arch, spec.dataset.classes, **wanted.args)
        macs = f"{models.macs(model, spec.dataset.size) / 1e6:.1f} M"
        known = spec.teachers.get(name)
        expected = f"{known.top1:.2f}" if known else "–"
        built = [] if wanted == ModelSpec(name) else [wanted.arch, _settings(wanted.args)]
        weights = [f"weights {known.pretrained}"] if known and known.pretrained else []
        rows.append(
            (name, f"{models.count_parameters(model):,}", macs, expected, " ".join([*built, *weights]))
        )
    return rows


# --- teachers ---


def teachers(options: Mapping[str, Any]) -> str:
    """Name, hash, accuracy and expected accuracy of a suite's teachers and of imported ones, each above its file.

    Where a name has several, `run` takes the one that is marked with a star.
    """
    from kdbench.runner.progress import to_stderr
    from kdbench.runner.run import resolve
    from kdbench.runner.teachers import accuracy, listing
    from kdbench.runner.workspace import open_workspace

    workspace = open_workspace(*resolve(methods=["kd"], **options), to_stderr)
    known = workspace.suite.teachers
    rows: list[Sequence[Any]] = [("", "teacher", "hash", "top-1", "expected")]
    files = []
    for name, teacher, used in listing(workspace):
        expected = f"{known[name].top1:.2f}" if name in known else "–"
        if teacher is None:
            rows.append(("", name, "–", "–", expected))
            files.append("not here yet: kdbench teachers train, or import FILE")
        else:
            rows.append(
                ("*" if used else "", name, teacher.id, f"{accuracy(workspace, teacher):.2f}", expected)
            )
            files.append(str(teacher.path))
    if not files:
        raise KdbenchError(f"suite {workspace.suite.name} has no pair")
    head, *lines = grid(rows).split("\n")
    below = [f"{line}\n     {file}" for line, file in zip(lines, files, strict=True)]
    return "\n".join([head, *below, "* is what `kdbench run` takes"])
