"""The model card of an exported student, in Markdown with the hub's header."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kdbench.runner.export.facts import Description
from kdbench.suites.pairs import pair_name
from kdbench.utils.hashing import canonical

MEASURES = (
    ("top1", "top-1, percent", "{:.2f}"),
    ("top5", "top-5, percent", "{:.2f}"),
    ("nll", "negative log-likelihood, nats", "{:.4f}"),
    ("ece", "expected calibration error, percent", "{:.2f}"),
    ("student_params", "parameters", "{:,.0f}"),
    ("macs", "multiply-accumulates per image", "{:,.0f}"),
)
ORIGIN = ("cell_id", "suite", "kdbench", "git_commit", "torch", "device", "started_utc")
HEADER = """---
library_name: timm
pipeline_tag: image-classification
license: other
tags:
- image-classification
- knowledge-distillation
- timm
- kdbench
---
"""


def card(student: Description, row: Mapping[str, Any], usage: str) -> str:
    """The card. row: `facts.trained`. usage: the code that loads the student."""
    parts = [
        f"# {row['student']}, {row['method']} on {row['dataset']}",
        _summary(student, row),
        "## Results",
        _table("measure", "value", _measures(row)),
        "## Use",
        f"```python\n{usage}\n```",
        _preprocessing(student),
        "## Classes",
        _classes(student),
        "## Training",
        _table("", "", _training(row)),
        "## Licence",
        _licence(student, row),
        "## Provenance",
        _table("", "", ((key, str(row[key])) for key in ORIGIN if key in row)),
    ]
    return HEADER + "\n" + "\n\n".join(parts) + "\n"


def _summary(student: Description, row: Mapping[str, Any]) -> str:
    teacher = f" from the teacher `{row['teacher']}`" if "teacher" in row else ", without a teacher"
    start = f", starting from the weights `{student.weights['source']}`" if student.weights else ""
    lines = [
        f"A `{row['student']}` with {student.num_classes} classes, trained by {row['method']}{teacher}{start}. It is "
        f"one training run (seed {row['seed']}) of the benchmark kdbench; its accuracy is that of the last epoch."
    ]
    if not student.whole:
        lines.append(
            f"**{row['method']} deploys more than this network, which alone does not reach its accuracy.**"
        )
    return "\n\n".join(lines)


def _measures(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    images = f"{row['dataset']}, {row['split']} split"
    for key, name, form in MEASURES:
        if key in row:
            yield (f"{name} ({images})" if key == "top1" else name), form.format(row[key])


def _preprocessing(student: Description) -> str:
    """How an image becomes an input, in words."""
    rule = student.resize
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (student.mean, student.std))
    return (
        f"Shorter side resized to {rule['shorter_side']} pixels ({rule['interpolation']}), centre crop of "
        f"{rule['crop']} x {rule['crop']}, RGB, values in 0..1, mean {mean}, std {std}."
    )


def _classes(student: Description) -> str:
    if student.class_names is None:
        return "The names of the classes are not known."
    return ", ".join(f"{number}: {name}" for number, name in enumerate(student.class_names))


def _training(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "method", f"{row['method']} {row['params']}"
    if "teacher" in row:
        yield "pair", pair_name(row["teacher"], row["student"])
        reached = f", top-1 {row['teacher_top1']:.2f} %" if "teacher_top1" in row else ""
        yield "teacher", f"{row['teacher']}, weights {row['teacher_id']}{reached}"
    yield "seed", str(row["seed"])
    for key, value in row.get("recipe", {}).items():
        yield f"recipe: {key}", canonical(value)
    for key, value in row.get("views", {}).items():
        yield f"view: {key}", canonical(value)


def _licence(student: Description, row: Mapping[str, Any]) -> str:
    lines = [
        f"These weights were trained on {row['dataset']}: the licence of these images may bind their use. kdbench's "
        "code, which is MIT, does not."
    ]
    for what, weights in (("They start", student.weights), ("Their teacher starts", student.teacher_weights)):
        if weights:
            licence = weights["license"] or "not stated"
            lines.append(f"{what} from `{weights['source']}`, whose licence is: {licence}.")
    return " ".join(lines)


def _table(left: str, right: str, rows: Iterator[tuple[str, str]]) -> str:
    lines = [f"| {left} | {right} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in rows)])
