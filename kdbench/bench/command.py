"""The verb `kdbench bench`: selections to text and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import torch
from matplotlib.figure import Figure

from kdbench import registry, suites
from kdbench.bench import figures, precision, scaling, table
from kdbench.bench.estimate import sizes
from kdbench.bench.workload import measured, work
from kdbench.errors import KdbenchError
from kdbench.plan.selection import select_methods, select_pairs
from kdbench.report.figures import style
from kdbench.report.notes import provenance
from kdbench.results import store
from kdbench.runner.progress import to_stderr
from kdbench.utils.environment import choose_device
from kdbench.utils.files import write_atomic

METHODS = ("ce", "kd", "dkd", "ctkd", "bickd")


def compare(
    suite: str,
    pairs: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    steps: int = 20,
    out: Path | None = None,
    device: str = "auto",
    plugins: Path | None = None,
    **more: Any,
) -> str:
    """A cohort beside the plain loop on each pair (default: the suite's first); the table as text, as CSV at ``out``.

    ``more``: precision, batch_size, cached, graphs, jobs of `work`. Raises KdbenchError for bad input.
    """
    if steps < 1:
        raise KdbenchError(f"--steps must be at least 1, got {steps}")
    registry.load(plugins)
    spec = measured(suites.load(suite))
    chosen = select_methods(methods, METHODS)
    selected = select_pairs(spec, pairs)[: None if pairs else 1]
    wanted = [work(spec, p, chosen, choose_device(device), plugins=plugins, **more) for p in selected]
    try:
        images, _ = sizes(spec.dataset)
    except KdbenchError:  # the data are not at hand: no hours then
        images = None
    found = []
    for each in wanted:
        to_stderr(f"timing {', '.join(chosen)} on {each.pair}: side by side, and one by one, in turns")
        found += table.rows(each, steps, len(spec.seeds), images)
    frame = pd.DataFrame(found, columns=table.COLUMNS)
    if out is not None:
        _write(out, frame.to_csv(index=False, lineterminator="\n"))
    return table.text(frame, len(spec.seeds))


def measure_scale(
    suite: str,
    out: Path,
    device: str = "auto",
    precision: str | None = None,
    which: Sequence[scaling.Point] | None = None,
    graphs: bool = False,
) -> str:
    """Scale curves and starting times into ``out``: scale-<cpu, cuda, cuda-graphs>.csv, .png and startup.csv."""
    spec, place = measured(suites.load(suite)), choose_device(device)
    started = scaling.starts()
    found = scaling.table(spec, place, precision, which or scaling.points(), to_stderr, graphs)
    stem = out / f"scale-{torch.device(place).type}{'-graphs' if graphs else ''}"
    _save(figures.draw, (found,), found, stem)
    _write(out / "startup.csv", started.to_csv(index=False, lineterminator="\n"))
    return f"{found.to_string(index=False)}\n\n{started.to_string(index=False)}\n\nwrote {stem}.csv, .png"


def study_precision(suite: str, results: Path, out: Path) -> str:
    """precision-<suite>.md, .csv and .png in ``out``, from rows of a suite that were made in both precisions."""
    spec = suites.load(suite)
    both = precision.sides(spec, store.read(store.file_of(results, spec.name)))
    pairs = precision.paired(both)
    found = precision.summary(pairs)
    footer = provenance(spec.name, list(both.values()))
    text = precision.markdown(found, precision.commands(suite, spec, both), footer)
    stem = f"precision-{spec.name}"
    _write(out / f"{stem}.md", text)
    _save(precision.draw, (pairs, found, footer), found, out / stem)
    return text


def _save(draw: Any, arguments: tuple, frame: pd.DataFrame, stem: Path) -> None:
    with matplotlib.rc_context(style.RC):
        figure: Figure = draw(*arguments)
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            style.save(figure, frame, stem)
        except OSError as error:
            raise _unwritable(stem, error) from error


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> KdbenchError:
    return KdbenchError(f"cannot write {path} ({error.strerror}); choose another --out")
