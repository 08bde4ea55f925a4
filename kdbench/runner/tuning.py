"""`tune` searches each method's parameters on the holdout split, with equally many trials or hours for each.

A trial is a setting of one method on one pair, trained with every tuning seed. Its runs are cells like any others, in
results/<suite>.trials.csv; what they came to is a row of results/<suite>.tuning.csv. The next trials follow from the
finished ones alone (`studies`), so a search that was stopped goes on where it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from kdbench import registry
from kdbench.errors import KdbenchError
from kdbench.method import field_types
from kdbench.plan import settings
from kdbench.plan.cells import Cell
from kdbench.plan.selection import Methods, Selection
from kdbench.plan.settings import Setting
from kdbench.results import store
from kdbench.results.schema import TRIAL_COLUMNS
from kdbench.results.trials import at_edge, best, read_trials, values_of
from kdbench.runner import run as driver
from kdbench.runner.executors.base import now
from kdbench.runner.inputs import Inputs, complete_inputs, find_inputs
from kdbench.runner.listeners import heard_by_all
from kdbench.runner.missing import find_missing, records_of
from kdbench.runner.options import RunOptions
from kdbench.runner.progress import listener
from kdbench.runner.pruning import floors
from kdbench.runner.stop import Stop
from kdbench.runner.studies import BATCH, Budget, Study, budget_of, outcome, search_spaces, winners
from kdbench.runner.teachers import trained_path
from kdbench.runner.trial import try_methods
from kdbench.runner.workspace import Say, open_workspace
from kdbench.suites import Recipe, Suite, recipe_of
from kdbench.train.callbacks import Progress
from kdbench.utils import locks
from kdbench.utils.files import write_atomic
from kdbench.utils.hashing import canonical, digest
from kdbench.utils.search_space import Space, log_range
from kdbench.utils.status import Status
from kdbench.utils.text import Printed, grid

TENFOLD = (
    "lr",
    "weight_decay",
)  # fields of the recipe that --tune-recipe searches from a tenth to ten times the suite's


OF_RUN = frozenset(inspect.signature(driver.run).parameters) - {"sets", "params", "split", "force"}

Asked = tuple[Study, int, Setting, list[Cell]]  # a trial: its study, its number, its values, its runs


@dataclass(frozen=True)
class Tuning:
    """What to search: a selection on the holdout split, the spaces of its methods, the budget; the recipe or not.

    prune: stop runs whose accuracy is below the median of earlier trials after the same epoch.
    """

    selection: Selection
    spaces: Mapping[str, Space]
    budget: Budget
    recipe: bool = False
    prune: bool = False

    def recipe_space(self, recipe: Recipe) -> Space:
        """The ranges of the recipe's fields; none where it is not searched, none of a field that is 0."""
        values = {key: getattr(recipe, key) for key in TENFOLD if self.recipe}
        return {key: log_range(value / 10, value * 10) for key, value in values.items() if value}


@dataclass(frozen=True, eq=False, repr=False)
class Tuned:
    """What `tune` came to.

    rows: the trials, with the columns of results/<suite>.tuning.csv. file: of the winners, for `kdbench run --params`.
    signal: the number of the signal that stopped it, or None.
    """

    suite: str
    rows: pd.DataFrame
    file: Path
    studies: Sequence[Study]
    complete: bool
    signal: int | None = None

    @property
    def exit_code(self) -> int:
        """0 all trials are done, 3 some are left, 128 + signal when interrupted."""
        return 128 + self.signal if self.signal is not None else 3 * (not self.complete)

    def __repr__(self) -> str:
        left = "" if self.complete else ", others are left"
        return f"<{self.suite}: {len(self.rows)} trials{left}; the best settings are in {self.file}>"

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        return Printed(f"{self!r}\n\n{self.table()}")._repr_html_()

    def table(self) -> str:
        """A line per method and pair: trials, accuracy of the default and of the best, its values, its cost."""
        lines: list[Sequence[Any]] = [("pair", "method", "trials", "default", "best", "hours", "setting")]
        notes = []
        for study in self.studies:
            rows = study.rows_of(self.rows)
            first, top = rows[rows["trial"] == 0], best(rows)
            if top is None:
                continue
            values = values_of(top)
            default = first["top1"].iloc[0] if (first["status"] == Status.OK).any() else float("nan")
            hours = f"{rows['train_s'].sum() / 3600:.2f}"
            lines.append(
                (
                    study.pair,
                    study.method,
                    len(rows),
                    f"{default:.2f}",
                    f"{top['top1']:.2f}",
                    hours,
                    _shown(values),
                )
            )
            notes += [
                f"{study.method}, {study.pair}: the best {key} is at the edge of {study.both[key]}: widen it by --space"
                for key in (at_edge(top) if top["trial"] else [])
            ]
        return Printed("\n".join([grid(lines), *notes]))


def resolve(
    suite: str | Path | Suite = "digits",
    methods: Methods | None = None,
    trials: int | None = None,
    hours: float | None = None,
    batch: int = BATCH,
    space: str | Path | Mapping[str, Any] | None = None,
    tune_recipe: bool = False,
    prune: bool = False,
    **arguments: Any,
) -> tuple[Tuning, RunOptions]:
    """What to search and how, from the arguments of `tune`; nothing is opened. Raises KdbenchError for bad input."""
    budget = budget_of(trials, hours, batch)
    for name, value in (("tune_recipe", tune_recipe), ("prune", prune)):
        if not isinstance(value, bool):
            raise KdbenchError(f"{name} must be True or False, got {value!r}")
    selection, options = driver.resolve(suite, methods, split="holdout", **arguments)
    if selection.overrides:
        raise KdbenchError(
            "tune starts from the suite's values: give methods by name, and ranges by a space file"
        )
    spaces = search_spaces(selection.methods, space)
    searched = tuple(name for name in selection.methods if spaces[name] or tune_recipe)
    left = [name for name in selection.methods if name not in searched and field_types(registry.get(name))]
    if searched and left:
        raise KdbenchError(
            f"{', '.join(left)} would stay as it is beside tuned methods: declare `space`, give ranges by --space "
            "FILE.toml, or leave it out"
        )
    if not searched:
        raise KdbenchError(
            f"nothing to search: {', '.join(selection.methods)} declares no `space`; give ranges by --space FILE.toml, "
            "or search the recipe by --tune-recipe"
        )
    return Tuning(replace(selection, methods=searched), spaces, budget, tune_recipe, prune), options


def plan_text(tuning: Tuning) -> str:
    """What `tune` would do: the runs, and the ranges that it searches."""
    selection, budget = tuning.selection, tuning.budget
    each = f"{budget.hours:g} hours" if budget.hours else f"{budget.trials} trials"
    lines = [
        f"suite {selection.suite.name}, split holdout: {len(selection.methods)} methods x {len(selection.pairs)} "
        f"pairs, {each} each, {len(selection.seeds)} seeds per trial"
    ]
    lines += [f"{name}: {_in_words(tuning.spaces[name])}" for name in selection.methods]
    pairs: dict[str, list[str]] = {}
    for pair in selection.pairs:
        recipe_space = tuning.recipe_space(recipe_of(selection.suite, pair))
        pairs.setdefault(_in_words(recipe_space), []).append(str(pair))
    if tuning.recipe:
        lines += [f"the recipe of {', '.join(names)}: {ranges}" for ranges, names in pairs.items()]
    return "\n".join(lines)


def _in_words(space: Space) -> str:
    return ", ".join(f"{key} {values}" for key, values in space.items()) or "nothing of its own"


def tune(
    suite: str | Path | Suite = "digits",
    methods: Methods | None = None,
    *,
    trials: int | None = None,
    hours: float | None = None,
    batch: int = BATCH,
    space: str | Path | Mapping[str, Any] | None = None,
    tune_recipe: bool = False,
    prune: bool = False,
    progress: Progress | None = None,
    **arguments: Any,
) -> Tuned:
    """Search each method's parameters on the holdout split; the Python form of `kdbench tune`.

    trials: of each method and pair (24); hours: in their place, hours of the students' own training. batch: trials
    side by side. space: ranges over those of the methods: a TOML file, or a dict like its content, such as
    ``{"kd": {"temperature": {"log": [1, 16]}}}``. tune_recipe: search learning rate and weight decay too. prune: stop
    runs below the median of earlier trials. arguments: pairs, seeds, epochs and the others of `run`, less sets, params,
    split and force. Raises KdbenchError for bad input.
    """
    if wrong := arguments.keys() - OF_RUN:
        raise TypeError(f"tune() got an unexpected keyword argument {min(wrong)!r}")
    what = resolve(suite, methods, trials, hours, batch, space, tune_recipe, prune, **arguments)
    return execute(*what, listener(progress))


def execute(tuning: Tuning, options: RunOptions, progress: Progress) -> Tuned:
    """Train trials until each study has its budget; the winners go to results/<suite>.tuned.toml."""
    name = tuning.selection.suite.name
    file, tuned = options.results / f"{name}.tuning.csv", options.results / f"{name}.tuned.toml"
    # the runs of trials are in a file of their own: they are no rows of the suite's tables
    apart = replace(tuning.selection, suite=replace(tuning.selection.suite, name=f"{name}.trials"))
    stop = Stop(options.max_hours)
    with stop.listening(progress.say), heard_by_all(progress, apart.suite.name, options) as progress:
        located = find_inputs(open_workspace(apart, options, progress.say), progress.say)
        try_methods(located.workspace, located.cells())
        inputs = complete_inputs(located, progress, stop)
        studies = list(_studies(tuning, inputs)) if inputs.complete else []
        _announce_teachers(inputs, progress.say)
        while not stop() and _round(studies, tuning, inputs, file, progress, stop):
            if found := winners(read_trials(file)):
                write_atomic(tuned, settings.write(found).encode())
    trials = read_trials(file)
    left = any(study.left(trials, tuning.budget) for study in studies)
    mine = trials[trials["study"].isin([study.id for study in studies])]
    return Tuned(name, mine, tuned, studies, bool(studies) and not left, stop.signal)


def _studies(tuning: Tuning, inputs: Inputs) -> Iterator[Study]:
    """One per method and pair, the id of each from the cells of its default."""
    suite = tuning.selection.suite
    for pair in tuning.selection.pairs:
        recipe = recipe_of(suite, pair)
        recipe_space = tuning.recipe_space(recipe)
        for name in tuning.selection.methods:
            usual = registry.create(name, suite.params_of(name, pair))
            space = tuning.spaces[name]
            default = {key: getattr(usual, key) for key in space}
            default |= {key: getattr(recipe, key) for key in recipe_space}
            ids = [cell.id for cell in _cells(inputs, Setting(name, str(pair), {}))]
            ranges = {key: values.table for key, values in {**space, **recipe_space}.items()}
            chance = 100 / inputs.workspace.suite.dataset.classes
            shared = [ids, ranges, *["prune"] * tuning.prune]
            yield Study(digest(shared), name, pair, space, recipe_space, default, chance)


def _cells(inputs: Inputs, trial: Setting) -> list[Cell]:
    """The runs of a trial."""
    selection = replace(inputs.workspace.selection, methods=(), settings=(trial,))
    return replace(inputs, workspace=replace(inputs.workspace, selection=selection)).cells()


def _announce_teachers(inputs: Inputs, say: Say) -> None:
    """Name teachers that were not trained here: theirs may have trained on the holdout images."""
    for name, teacher in inputs.teachers.items():
        if teacher.path != trained_path(inputs.workspace, name):
            say(
                f"WARNING: {teacher.path} was not trained here and may have seen the holdout images in its training; "
                "accuracies on them are then too high for all methods alike; --teacher-split trains one without them"
            )


def _round(
    studies: Sequence[Study], tuning: Tuning, inputs: Inputs, file: Path, progress: Progress, stop: Stop
) -> bool:
    """Train the next trials of every study and record those that are done; False where there are none.

    What other processes train of them is waited for: the next round follows from all of this one.
    """
    trials = read_trials(file)
    asked = [
        (study, number, setting, _cells(inputs, setting))
        for study in studies
        for number, setting in study.next_trials(trials, tuning.budget).items()
    ]
    if not asked:
        return False
    cells = {cell.id: cell for *_, own in asked for cell in own}  # trials of equal values share their runs
    missing = find_missing(_attempts(inputs, tuning.prune), list(cells.values()))
    if tuning.prune:
        inputs = replace(inputs, floors=dict(_floors(asked, tuning.budget.batch, trials, inputs)))
    driver.train_and_record(missing, inputs, progress, stop)
    locks.wait_for(inputs.workspace.paths.locks, cells, stop)
    attempts = _attempts(inputs, tuning.prune)
    for study, number, setting, own in asked:
        records = records_of(attempts, own)
        if len(records) == len(own) and not (records["status"] == Status.INTERRUPTED).any():
            row = _row(study, number, setting, own, outcome(records))
            store.append(file, [row], TRIAL_COLUMNS)
            progress.say(_line(row, study))
    return True


def _attempts(inputs: Inputs, pruned: bool) -> pd.DataFrame:
    """The rows of the trials' runs; those that were stopped early are no runs of a study that stops none."""
    rows = store.read(inputs.workspace.paths.rows)
    return rows if pruned else rows[rows["status"] != Status.PRUNED]


def _floors(
    asked: Iterable[Asked], batch: int, trials: pd.DataFrame, inputs: Inputs
) -> Iterator[tuple[str, dict[int, float]]]:
    """Cell id -> what it must reach: by the finished trials of its study in earlier rounds, with the cell's seed."""
    curves = store.read(inputs.workspace.paths.curves, store.CURVE_COLUMNS)
    for study, number, _, own in asked:
        rows = study.rows_of(trials)
        before = rows[(rows["trial"] < number // batch * batch) & (rows["status"] == Status.OK)]
        cells = [text.split() for text in before["cells"]]
        for place, cell in enumerate(own):
            yield cell.id, floors(curves, [ids[place] for ids in cells])


def _row(
    study: Study, number: int, setting: Setting, cells: Sequence[Cell], came_to: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "study": study.id,
        "trial": number,
        "suite": cells[0].suite.removesuffix(".trials"),
        "teacher": study.pair.teacher,
        "student": study.pair.student,
        "method": study.method,
        "params": canonical(setting.params),
        "recipe": canonical(setting.recipe),
        "space": canonical({key: values.table for key, values in study.both.items()}),
        "seeds": " ".join(str(cell.seed) for cell in cells),
        "epochs": cells[0].recipe.epochs,
        "cells": " ".join(cell.id for cell in cells),
        "ended_utc": now(),
        **came_to,
    }


def _line(row: Mapping[str, Any], study: Study) -> str:
    """One finished trial, in words."""
    text = f"{row['top1']:.2f} % on holdout" if row["status"] == Status.OK else row["status"]
    return f"{row['method']}, {study.pair}, trial {row['trial']}: {text} ({_shown(values_of(row))})"


def _shown(values: Mapping[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in values.items())
