"""Method x pair: what runs on the pairs of a suite, determined by trying one step of each on random images.

B images, C classes.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from kdbench import registry, suites
from kdbench.errors import KdbenchError
from kdbench.suites import Pair, Suite
from kdbench.suites.schema import find_view
from kdbench.train.trial import FAILS, RUNS, SKIPS, Networks, Outcome, Trial
from kdbench.utils.text import fold

SUITES = ("cifar100", "cifar100-timm")

Cells = Mapping[tuple[str, str], Outcome]  # by method and pair


def report(names: Sequence[str] | None, plugins: Path | None, method: str | None = None) -> tuple[str, bool]:
    """(the matrices of the suites ``names`` for one method or all, whether nothing failed)."""
    registry.load(plugins)
    methods = [registry.get(method).name] if method else registry.names()
    texts, sound = [], True
    for name in names or SUITES:
        suite = suites.load(name)
        outcomes = cells(suite, methods)
        texts.append(table(suite, methods, outcomes))
        sound &= all(cell.mark != FAILS for cell in outcomes.values())
    return "\n\n".join(texts), sound


def cells(suite: Suite, methods: Sequence[str]) -> Cells:
    """Every method on every pair of the suite: its skip, or one step with fresh networks (see `train.trial`).

    Raises KdbenchError for a suite that leaves classes or size to be measured on its data.
    """
    data = suite.dataset
    if not (data.classes and data.size):
        raise KdbenchError(f"suite {suite.name} does not say its classes and size: add them to its file")

    networks = Networks(suite)
    return {
        (name, str(pair)): outcome
        for pair in suite.pairs
        for name, outcome in _try_all(networks, pair, methods).items()
    }


def _try_all(networks: Networks, pair: Pair, names: Sequence[str]) -> dict[str, Outcome]:
    suite, data = networks.suite, networks.suite.dataset
    methods = {name: registry.create(name, suite.params_of(name, pair)) for name in names}
    outcomes = {
        name: Outcome(SKIPS, f"the suite has no view {view!r}")
        for name, method in methods.items()
        for view in method.needs.views
        if find_view(suite.views, view) is None
    }
    rest = [name for name in names if name not in outcomes]
    targets = torch.arange(max(10 * data.classes, suite.recipe.batch_size)) % data.classes
    trial = Trial(networks, pair.student, pair.teacher, suite.recipe, targets)
    return outcomes | dict(zip(rest, trial.outcomes([methods[name] for name in rest]), strict=True))


def table(suite: Suite, methods: Sequence[str], outcomes: Cells) -> str:
    """A row a method, a letter a pair, then the reasons; no line is wider than 80 columns."""
    letters = dict(zip(map(str, suite.pairs), string.ascii_letters, strict=False))
    width = max(map(len, ("method", *methods)))
    lines = [f"{suite.name}: {RUNS} runs, {SKIPS} skips, {FAILS} fails"]
    lines.append(fold(", ".join(f"{letter}={pair}" for pair, letter in letters.items()), indent=0))
    lines += ["", f"{'method':<{width}}  {''.join(letters.values())}"]
    reasons: dict[tuple[str, str], str] = {}
    for name in methods:
        row = {pair: outcomes[name, pair] for pair in letters}
        lines.append(f"{name:<{width}}  {''.join(cell.mark for cell in row.values())}")
        for pair, cell in row.items():
            if cell.reason:
                reasons[name, cell.reason] = reasons.get((name, cell.reason), "") + letters[pair]
    lines.append("")
    for (name, reason), where in reasons.items():
        lines.append(fold(f"{name} {where}: {reason}", indent=4))
    return "\n".join(lines).rstrip()
