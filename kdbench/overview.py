"""What there is and how far it is, as text for a terminal: status, methods, suites, teachers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench import locks, store, suites
from kdbench.errors import KdbenchError


def grid(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as left-aligned columns two spaces apart."""
    texts = [[str(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ("  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in texts)
    return "\n".join(lines)


# --- status ---


def status(results: Path) -> str:
    """A line a suite: cells by status; then what live processes are training."""
    lines = []
    for suite in store.suites(results):
        found = store.records(store.read(results / f"{suite}.csv"))
        counts = found["status"].value_counts()
        lines.append(f"{suite}: " + ", ".join(f"{counts[s]} {s}" for s in sorted(counts.index)))
        for _, row in found[~found["status"].isin(["ok", "skipped"])].iterrows():
            pair = (
                f"{row['teacher']} -> {row['student']}" if isinstance(row["teacher"], str) else row["student"]
            )
            reason = f": {row['error']}" if isinstance(row["error"], str) else ""
            lines.append(f"  {row['status']}  {row['method']}, {pair}, seed {row['seed']}{reason}")
    by_process: dict[tuple, list[float]] = {}
    for note in locks.running(results / ".work" / "locks").values():
        by_process.setdefault((note["pid"], note["host"]), []).append(note["since"])
    for (pid, host), starts in by_process.items():
        minutes = (time.time() - min(starts)) / 60
        lines.append(f"running: {len(starts)} cells in process {pid} on {host} for {minutes:.0f} min")
    return "\n".join(lines) or f"no results in {results}"


# --- suites ---


def suites_list() -> str:
    """A line a suite."""
    return grid([(name, suites.load(name).description) for name in suites.names()])


def suite(name: str) -> str:
    """One suite: recipe, views, models with parameters and MACs, teachers' expected accuracy, pairs."""
    from kdbench import models

    spec = suites.load(name)
    data = spec.dataset
    built = {}
    for pair in spec.pairs:
        for model_name in (pair.teacher, pair.student):
            if model_name not in built:
                wanted = spec.model(model_name)
                built[model_name] = models.create(wanted.arch, data.classes, **wanted.args)
    sizes: list[Sequence[Any]] = [("model", "parameters", "MACs", "expected top-1")]
    for model_name, model in built.items():
        expected = f"{spec.teachers[model_name].top1:.2f}" if model_name in spec.teachers else "–"
        macs = f"{models.macs(model, data.size) / 1e6:.1f} M"
        sizes.append((model_name, f"{models.count_parameters(model):,}", macs, expected))
    pairs: list[Sequence[Any]] = [("pair", "recipe", "parameters")]
    for pair in spec.pairs:
        chosen = [f"{m}.{k}={v}" for m, table in pair.params.items() for k, v in table.items()]
        recipe = " ".join(f"{k}={v}" for k, v in pair.recipe.items())
        pairs.append((str(pair), recipe or "as the suite", " ".join(chosen) or "defaults"))
    recipe_rows = [(key, value) for key, value in dataclasses.asdict(spec.recipe).items()]
    heads = [
        f"{spec.name}: {spec.description}",
        f"data {data.name}: {data.classes} classes, {data.size} px, holdout {data.holdout:g} of train\n"
        f"methods {', '.join(spec.methods)}; seeds {', '.join(map(str, spec.seeds))}",
    ]
    return "\n\n".join([*heads, grid(recipe_rows), grid(sizes), grid(pairs)])


# --- teachers ---


def teachers(options: Mapping[str, Any]) -> str:
    """Name, hash, accuracy on the split, expected accuracy and file of every teacher of a suite."""
    from kdbench.session import prepare
    from kdbench.teaching import teacher_accuracy

    options = dict(options)
    session = prepare(options.pop("suite"), methods=["kd"], **options)
    rows: list[Sequence[Any]] = [("teacher", "hash", "top-1", "expected", "file")]
    for name in session.needed_teachers():
        expected = f"{session.suite.teachers[name].top1:.2f}" if name in session.suite.teachers else "–"
        teacher = session.teachers.get(name)
        if teacher is None:
            rows.append((name, "–", "–", expected, "not trained yet: kdbench teachers train"))
        else:
            rows.append((name, teacher.id, f"{teacher_accuracy(session, name):.2f}", expected, teacher.path))
    if len(rows) == 1:
        raise KdbenchError(f"suite {session.suite.name} has no pair")
    return grid(rows)
