"""What there is and how far it is, as text for a terminal: status, methods, suites, teachers."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kdbench import locks, registry, store, suites
from kdbench.errors import KdbenchError
from kdbench.method import Method, Needs, field_types


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
    by_process: dict[tuple, list[str]] = {}
    for name, info in locks.running(results / ".work" / "locks").items():
        by_process.setdefault((info.get("pid"), info.get("host"), info.get("since")), []).append(name)
    for (pid, host, since), names in by_process.items():
        minutes = (time.time() - since) / 60 if since else 0
        lines.append(f"running: {len(names)} cells in process {pid} on {host} for {minutes:.0f} min")
    return "\n".join(lines) or f"no results in {results}"


# --- methods ---


def describe_needs(needs: Needs) -> str:
    """What a method needs beyond one view's logits of student and teacher."""
    words = [] if needs.teacher else ["no teacher"]
    if needs.views != ("weak",):
        words.append("+".join(needs.views) + " views")
    words += [
        f.name
        for f in dataclasses.fields(needs)
        if f.name not in ("views", "teacher") and getattr(needs, f.name)
    ]
    return ", ".join(words) or "logits"


def year(cls: type[Method]) -> str:
    """The first year in the docstring's first line."""
    found = re.search(r"\b(19|20)\d\d\b", (inspect.getdoc(cls) or "").partition("\n\n")[0])
    return found.group() if found else "–"


def fidelity(cls: type[Method]) -> str:
    """The docstring's word after ``fidelity:``."""
    found = re.search(r"fidelity:\s*(\w+)", inspect.getdoc(cls) or "")
    return found.group(1) if found else "–"


def methods(plugins: Path | None) -> str:
    """A line a method: name, year, version, fidelity, needs, parameters."""
    registry.load(plugins)
    rows: list[Sequence[Any]] = [("name", "year", "version", "fidelity", "needs")]
    broken = []
    for entry in registry.entries():
        if entry.cls is None:
            broken.append(f"{entry.name} ({entry.origin}) fails at import: {entry.error}")
        else:
            cls = entry.cls
            rows.append((entry.name, year(cls), cls.version, fidelity(cls), describe_needs(cls.needs)))
    return "\n".join([grid(rows), *broken])


def method(name: str, plugins: Path | None) -> str:
    """One method: docstring, parameters with type and default, needs, file."""
    registry.load(plugins)
    cls = registry.get(name)
    defaults = cls()
    parameters = [("parameter", "type", "default")] + [
        (key, getattr(kind, "__name__", str(kind).replace("typing.", "")), json.dumps(getattr(defaults, key)))
        for key, kind in field_types(cls).items()
    ]
    table = grid(parameters) if len(parameters) > 1 else "no parameters"
    return "\n\n".join(
        [
            inspect.getdoc(cls) or "",
            table,
            f"needs: {describe_needs(cls.needs)}\nfile: {inspect.getfile(cls)}",
        ]
    )


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
