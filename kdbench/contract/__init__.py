"""The contract that every registered method passes, as a command and as tests: methods x checks.

A check is a function of a `Subject` that raises when the method breaks it; its docstring is the fact that it states.
The only exceptions are the tags of `kdbench.method.Method`, which are checked in both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdbench import registry
from kdbench.contract import (
    distinct_checks,
    loss_checks,
    static_checks,
    table,
    tag_checks,
    training_checks,
    usage_checks,
)
from kdbench.contract.core import CheckFailed, Subject, run
from kdbench.contract.training_lab import Lab
from kdbench.errors import KdbenchError

__all__ = ["CHECKS", "CheckFailed", "Subject", "report", "run", "subjects"]

Check = Callable[[Subject], None]
GROUPS: dict[str, tuple[Check, ...]] = {
    "static": (
        static_checks.check_name,
        static_checks.check_docstring,
        static_checks.check_record,
        static_checks.check_params,
        static_checks.check_tags,
        static_checks.check_banned,
        static_checks.check_no_sync,
    ),
    "tensors": (
        loss_checks.check_terms,
        loss_checks.check_layout,
        loss_checks.check_gradient,
        loss_checks.check_teacher_gradient,
        loss_checks.check_pure,
        loss_checks.check_extremes,
        loss_checks.check_gradcheck,
    ),
    "tags": (
        tag_checks.check_zero_at_match,
        tag_checks.check_shift,
        tag_checks.check_sample_order,
        tag_checks.check_class_order,
        tag_checks.check_coupled,
        tag_checks.check_separable,
        usage_checks.check_needs,
        usage_checks.check_weights,
        usage_checks.check_space,
        usage_checks.check_options,
        tag_checks.check_minima,
        usage_checks.check_predict,
        distinct_checks.check_distinct,
    ),
    "loop": (
        training_checks.check_teacher_untouched,
        training_checks.check_alone,
        training_checks.check_resumes,
        training_checks.check_phases,
        training_checks.check_learns,
        training_checks.check_exports,
        training_checks.check_row,
    ),
}
BY_GROUP = {
    title: {check.__name__.removeprefix("check_"): check for check in group}
    for title, group in GROUPS.items()
}
CHECKS: dict[str, Check] = {name: check for group in BY_GROUP.values() for name, check in group.items()}


def subjects(name: str | None = None, plugins: Path | None = None) -> list[Subject]:
    """The methods to check: all (None), one by name, or those of a user's file.

    Raises KdbenchError for an unknown name, and for a file that is not there or registers nothing.
    """
    registry.load(plugins)
    if name is None:
        entries = registry.entries()
    elif name.endswith(".py"):
        entries = _of_file(Path(name))
    else:
        entries = [entry for entry in registry.entries() if entry.name == name]
        if not entries:
            registry.get(name)  # raises, with the nearest name
    lab = Lab([entry.name for entry in entries if entry.cls])
    return [Subject(entry.name, entry.origin, lab) for entry in entries]


def _of_file(file: Path) -> list[registry.Entry]:
    if not file.is_file():
        raise KdbenchError(f"there is no file {file}; check takes a method's name or a .py file")

    registry.load(file)  # no effect for a shipped one, which is loaded
    entries = [entry for entry in registry.entries() if entry.origin == file.resolve()]
    if not entries:
        raise KdbenchError(f"{file} registers no method; decorate its class with @register")
    return entries


def report(name: str | None = None, plugins: Path | None = None) -> tuple[str, bool]:
    """(what `kdbench check` prints, whether all passed). One method: one line per check; several: a table."""
    judged = subjects(name, plugins)
    results = {subject.name: judge(subject) for subject in judged}
    passed = all(reason is None for outcomes in results.values() for reason in outcomes.values())
    if len(judged) == 1:
        facts = {name: check.__doc__ or "" for name, check in CHECKS.items()}
        return table.lines(judged[0], results[judged[0].name], facts), passed
    return table.table(results, {title: list(group) for title, group in BY_GROUP.items()}), passed


def judge(subject: Subject) -> dict[str, str | None]:
    """Check -> None, or why not. A file that fails at import has the one result "imports"."""
    try:
        registry.get(subject.name)
    except KdbenchError as error:
        return {"imports": str(error)}
    return {key: run(check, subject) for key, check in CHECKS.items()}
