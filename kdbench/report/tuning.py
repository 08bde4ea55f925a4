"""What `kdbench tune` found: budget curves, importances, and tuned settings against defaults on the test split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from kdbench.report import markdown
from kdbench.report.figures import Drawing, slices
from kdbench.report.figures import tuning as curves
from kdbench.results.statistics.critical import holm
from kdbench.results.trials import at_edge, best, latest, read_trials, space_of, values_of
from kdbench.utils.search_space import distribution
from kdbench.utils.status import Status

PAIR = ["teacher", "student", "method"]
LEAST = 8  # trials that an importance is computed from


def trials_of(places: Sequence[Path], suite: str) -> pd.DataFrame:
    """The trials in <suite>.tuning.csv of these folders of results, each once; empty where the suite was not tuned."""
    files = [place / f"{suite}.tuning.csv" for place in places if place.is_dir()]
    if not files:
        return pd.DataFrame()
    return latest(pd.concat([read_trials(file) for file in files], ignore_index=True))


def drawings(trials: pd.DataFrame) -> list[Drawing]:
    """The figures of these trials."""
    if trials.empty:
        return []
    said = "What tuning buys: expected best accuracy against trials and hours"
    each = "Every trial's accuracy against each of its parameters"
    return [
        Drawing("tuning", said, curves.frame(trials), curves.draw),
        Drawing("slices", each, slices.frame(trials), slices.draw),
    ]


def write(
    folder: Path, suite: str, trials: pd.DataFrame, records: pd.DataFrame, footer: Sequence[str]
) -> None:
    """Write tuning.md into ``folder``, or remove an earlier one where there are no trials. Raises OSError.

    records: of the suite's rows.
    """
    page = folder / "tuning.md"
    if trials.empty:
        page.unlink(missing_ok=True)
    else:
        page.write_text(markdown.page(f"Tuning of {suite}", _parts(trials, records), footer), "utf-8")


def _parts(trials: pd.DataFrame, records: pd.DataFrame) -> Iterator[str]:
    yield (
        "Trials were chosen and compared on the holdout split alone. Trial 0 has the suite's values; hours are those "
        "of the students' own training. `kdbench run --params` trained the best ones on the test split, with the seeds "
        "of the second table."
    )
    header = [
        "pair",
        "method",
        "trials",
        "hours",
        "default",
        "best",
        "best at the edge of",
        "values of the best",
    ]
    yield markdown.pipes(header, _searches(trials))
    compared = against_default(records, trials)
    if len(compared):
        yield "## Tuned against default, on the test split"
        header = ["pair", "method", "seeds", "default", "tuned", "tuned - default [95 %]", "p (Holm)"]
        yield markdown.pipes(header, _comparisons(compared))
        if compared["shared"].any():
            yield "¹ Some of these seeds were tuned with: the difference is too high."
    if lines := list(_importances(trials)):
        yield "## Which parameters matter"
        yield "Share of the variance of the trials' accuracies that each parameter explains, with others too (fANOVA)."
        yield markdown.pipes(["pair", "method", "importance"], lines)


def _searches(trials: pd.DataFrame) -> Iterator[list[str]]:
    for (teacher, student, method), rows in trials.groupby(PAIR):
        top, first = best(rows), rows[(rows["trial"] == 0) & (rows["status"] == Status.OK)]["top1"]
        texts = ["–", "", ""] if top is None else [
            f"{top['top1']:.2f}",
            ", ".join(at_edge(top)) if top["trial"] else "",
            " ".join(f"{key}={value}" for key, value in values_of(top).items()) if top["trial"] else "the default",
        ]  # fmt: skip
        default = f"{first.iloc[0]:.2f}" if len(first) else "–"
        hours = f"{rows['train_s'].sum() / 3600:.2f}"
        yield [f"{teacher} -> {student}", method, str(len(rows)), hours, default, *texts]


def against_default(records: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Per method and pair: means of default and tuned over common seeds of the test split, difference, interval, p.

    The interval is Student's t over the paired differences; p counts all lines (Holm). shared: a seed was tuned with.
    """
    runs = records[(records["status"] == Status.OK) & (records["split"] == "test")]
    runs = runs.assign(teacher=runs["teacher"].fillna(""), variant=runs["variant"].fillna(""))
    tuned = runs[runs["variant"].str.startswith("tuned (")]
    plain = runs[runs["variant"] == ""]
    # of the settings the recipe may differ: it can be tuned
    keys = [*PAIR, "teacher_id", "split_id", "precision", "method_version", "dataset", "epochs_done", "seed"]
    plain = plain.drop_duplicates(keys, keep="last")
    both = tuned.merge(plain, on=keys, suffixes=("_tuned", ""), validate="many_to_one")
    lines = []
    kinds = [*PAIR, "variant_tuned", *keys[len(PAIR) : -1]]
    for (teacher, student, method, *_), rows in both.groupby(kinds, dropna=False):
        differences = (rows["top1_tuned"] - rows["top1"]).to_numpy(float)
        low, high, p = _paired(differences)
        own = trials[(trials[PAIR] == [teacher, student, method]).all(axis=1)]
        used = {seed for text in own["seeds"].astype(str) for seed in text.split()}
        shared = bool(used & set(rows["seed"].astype(int).astype(str)))
        line = {"pair": f"{teacher} -> {student}", "method": method, "n": len(rows), "shared": shared}
        means = {"default": rows["top1"].mean(), "tuned": rows["top1_tuned"].mean()}
        lines.append({**line, **means, "delta": differences.mean(), "low": low, "high": high, "p": p})
    table = pd.DataFrame(lines)
    return table.assign(p=holm(table["p"])) if lines else table


def _paired(differences: np.ndarray) -> tuple[float, float, float]:
    """95 % interval and p of the mean difference; nan for a single pair of runs."""
    if len(differences) < 2:
        return float("nan"), float("nan"), float("nan")
    if not differences.std():
        same = float(differences[0])
        return same, same, float(same == 0)
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval(0.95)
    return float(interval.low), float(interval.high), float(test.pvalue)


def _comparisons(compared: pd.DataFrame) -> Iterator[list[str]]:
    for row in compared.to_dict("records"):
        p = "–" if row["p"] != row["p"] else f"{row['p']:.3f}"
        change = markdown.interval(row["delta"], row["low"], row["high"]) + "¹" * row["shared"]
        yield [
            row["pair"],
            row["method"],
            str(row["n"]),
            f"{row['default']:.2f}",
            f"{row['tuned']:.2f}",
            change,
            p,
        ]


def _importances(trials: pd.DataFrame) -> Iterator[list[str]]:
    for (teacher, student, method), rows in trials.groupby(PAIR):
        if shares := importance(rows):
            text = ", ".join(f"{key} {100 * share:.0f} %" for key, share in shares.items())
            yield [f"{teacher} -> {student}", method, text]


def importance(rows: pd.DataFrame) -> dict[str, float]:
    """Parameter -> share of the variance of a study's accuracies, largest first, by Optuna's fANOVA.

    Empty where Optuna is not installed, for fewer than LEAST trials and for a single parameter.
    """
    good = rows[rows["status"] == Status.OK]
    space = space_of(good.iloc[0].to_dict()) if len(good) else {}
    if len(good) < LEAST or len(space) < 2:
        return {}
    try:
        import optuna
    except ImportError:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    known = {key: distribution(values) for key, values in space.items()}
    for row in good.to_dict("records"):
        values = values_of(row)
        if all(values[key] in space[key] for key in space):
            study.add_trial(optuna.trial.create_trial(params=values, distributions=known, value=row["top1"]))
    if len({trial.value for trial in study.trials}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
