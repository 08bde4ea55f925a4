"""`kdbench bench step|scale|precision`: from names on the command line to tables, figures and files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from kdbench import registry, suites
from kdbench.bench import figures, precision, ranks, scaling, table
from kdbench.bench.estimate import sizes
from kdbench.bench.workload import measured, work
from kdbench.errors import KdbenchError
from kdbench.plan.selection import select_methods, select_pairs
from kdbench.report.figures.sheet import SCREEN, Drawn, save_data
from kdbench.report.provenance import provenance
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
    """Time the cohort and the conventional loop on each pair (default: the suite's first); returns the table as text.

    ``steps``: timed steps of each loop.  ``out``: CSV file for the table.  ``more``: precision, batch_size, cached,
    graphs, jobs of `work`.  Raises KdbenchError for bad input.
    """
    registry.load(plugins)
    spec = measured(suites.load(suite))
    names = select_methods(methods, METHODS)
    selected = select_pairs(spec, pairs)[: None if pairs else 1]
    works = [work(spec, pair, names, choose_device(device), plugins=plugins, **more) for pair in selected]
    try:
        images, _ = sizes(spec.dataset)
    except KdbenchError:  # without the data, hours are unknown
        images = None
    rows = []
    for each in works:
        to_stderr(f"timing {', '.join(names)} on {each.pair}: as a cohort and one by one, alternating")
        rows += table.rows(each, steps, len(spec.seeds), images)
    frame = pd.DataFrame(rows, columns=table.COLUMNS)
    if out is not None:
        _write(out, frame.to_csv(index=False, lineterminator="\n"))
    return table.text(frame, len(spec.seeds))


def measure_scale(
    suite: str,
    out: Path,
    device: str = "auto",
    precision: str | None = None,
    which: Sequence[scaling.Point] | None = None,
    graphs: str = "",
) -> str:
    """Write scale curves (scale-<cpu, cuda, cuda-graphs>.csv, .png), start-up times and ranks (.csv) to ``out``.

    ``which``: the points to measure; default: all.
    """
    spec, place = measured(suites.load(suite)), choose_device(device)
    startup = scaling.starts()
    curves = scaling.table(spec, place, precision, which or scaling.points(), to_stderr, graphs)
    stem = out / f"scale-{torch.device(place).type}{'-graphs' if graphs else ''}"
    _save(figures.draw, (curves,), curves, stem)
    _write(out / "startup.csv", startup.to_csv(index=False, lineterminator="\n"))
    tables = [curves, startup]
    if not graphs:  # which ranks do not take
        shared = ranks.table(spec, place, precision, ranks.counts(place), to_stderr)
        _write(out / f"ranks-{torch.device(place).type}.csv", shared.to_csv(index=False, lineterminator="\n"))
        tables.append(shared)
    return "\n\n".join([*(each.to_string(index=False) for each in tables), f"wrote {stem}.csv, .png"])


def study_precision(suite: str, results: Path, out: Path) -> str:
    """Write precision-<suite>.md, .csv and .png to ``out``, from the suite's rows in both precisions.

    Returns the Markdown. Raises KdbenchError where no run exists in both.
    """
    spec = suites.load(suite)
    both = precision.sides(spec, store.load(store.file_of(results, spec.name)))
    pairs = precision.paired(both)
    summary = precision.summary(pairs)
    footer = provenance(spec.name, list(both.values()))
    text = precision.markdown(summary, precision.commands(suite, spec, both), footer)
    stem = f"precision-{spec.name}"
    _write(out / f"{stem}.md", text)
    _save(precision.draw, (pairs, summary, footer), summary, out / stem)
    return text


def _save(draw: Any, arguments: tuple, frame: pd.DataFrame, stem: Path) -> None:
    with SCREEN.drawing():
        figure: Drawn = draw(*arguments)
        try:
            stem.parent.mkdir(parents=True, exist_ok=True)
            SCREEN.save(figure, stem)
            save_data(frame, stem.with_name(f"{stem.name}.csv"))
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
