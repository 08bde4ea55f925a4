"""Suggest the next trials of a study from those that are finished: a pure function, by Optuna's TPE sampler."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from kdbench.errors import KdbenchError
from kdbench.utils.search_space import Choice, Range, Space, distribution

RANDOM = 8  # trials before the sampler models what it has seen; the default is among them
DIGITS = 4  # significant digits of a suggested number: a value that can be copied into a paper

Values = Mapping[str, Any]


def suggest(
    space: Space, kinds: Mapping[str, Any], finished: Sequence[tuple[Values, float]], count: int, seed: int
) -> list[dict[str, Any]]:
    """Return ``count`` settings of ``space`` to try side by side.

    kinds: the type of each parameter. finished: settings with their accuracies; those outside of the space teach
    nothing. The same arguments give the same settings.
    Raises KdbenchError where Optuna is not installed.
    """
    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=RANDOM, constant_liar=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {key: distribution(values, kinds[key]) for key, values in space.items()}
    for params, accuracy in finished:
        if all(params[key] in values for key, values in space.items()):
            study.add_trial(
                optuna.trial.create_trial(params=dict(params), distributions=distributions, value=accuracy)
            )
    return [
        {key: _rounded(value, space[key]) for key, value in study.ask(distributions).params.items()}
        for _ in range(count)
    ]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise KdbenchError("tuning needs Optuna; install it with `pip install 'kdbench[tune]'`") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _rounded(value: Any, values: Range | Choice) -> Any:
    """A float to `DIGITS` digits, within its range."""
    if not isinstance(value, float) or isinstance(values, Choice):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), values.low), values.high)
