"""`kdbench bench epoch --whole`: every method through the whole schedule in miniature, a cohort per pair."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kdbench import registry
from kdbench.contract.one_epoch import world
from kdbench.plan.selection import select_pairs
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Result
from kdbench.utils.status import Status
from kdbench.utils.text import fold

PAIRS = ("resnet56:resnet20", "resnet20:vit_tiny_d6")  # a CNN of its kind as the student, and a transformer
IMAGES = 100


def report(
    name: str | None,
    plugins: Path | None,
    pairs: Sequence[str] | None = None,
    images: int = IMAGES,
    data_dir: Path | None = None,
    teacher_weights: Path | None = None,
) -> tuple[str, bool]:
    """Train one method or all on each pair, all twelve epochs; each method passes through all of its phases.

    Returns (a line per pair and one per method that did not train, whether all trained or skipped).
    """
    registry.load(plugins)
    names = [registry.get(name).name] if name else registry.names()
    lines, results = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = world(Path(folder), images, data_dir, teacher_weights, plugins, whole=True)
        for pair in select_pairs(place.suite, pairs or PAIRS):
            teacher = place.teacher(pair.teacher)
            cells = [place.cell(method, pair, teacher.id) for method in names]
            trained, _ = train_cohort(place.job(*cells, teacher=teacher))
            lines += summary(str(pair), trained)
            results += trained
    return "\n".join(lines), all(result.row["status"] in (Status.OK, Status.SKIPPED) for result in results)


def summary(pair: str, results: Sequence[Result]) -> list[str]:
    """How many ended in which way, and why those that did not train did not."""
    counts = Counter(str(result.row["status"]) for result in results)
    lines = [f"{pair}: {', '.join(f'{count} {status}' for status, count in counts.items())}"]
    for result in results:
        if result.row["status"] != Status.OK:
            lines.append(fold(f"  {result.cell.method} ({result.row['status']}): {result.row['error']}"))
    return lines
