"""The contract that every registered method passes, as a command and as tests: methods x checks.

A check is a function of a `Subject` that raises when the method breaks it; its docstring is the fact that it states.
There are no excuses beside the tags of `kdbench.method.Method`, and those are checked in both directions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdbench import registry
from kdbench.checks import distinct, loop, static, tags, tensors, use
from kdbench.checks.loop import Lab
from kdbench.checks.subject import CheckFailed, Subject, run
from kdbench.errors import KdbenchError

__all__ = ["CHECKS", "CheckFailed", "Subject", "report", "run", "subjects"]

Check = Callable[[Subject], None]
GROUPS: dict[str, tuple[Check, ...]] = {
    "static": (
        static.check_name,
        static.check_docstring,
        static.check_params,
        static.check_tags,
        static.check_banned,
        static.check_no_sync,
    ),
    "tensors": (
        tensors.check_terms,
        tensors.check_layout,
        tensors.check_gradient,
        tensors.check_teacher_free_of_gradient,
        tensors.check_pure,
        tensors.check_extremes,
        tensors.check_gradcheck,
    ),
    "tags": (
        tags.check_zero_at_match,
        tags.check_shift,
        tags.check_sample_order,
        tags.check_class_order,
        tags.check_coupled,
        use.check_needs,
        use.check_weights,
        tags.check_minima,
        use.check_predict,
        distinct.check_distinct,
    ),
    "loop": (
        loop.check_teacher_untouched,
        loop.check_alone_as_in_cohort,
        loop.check_resumes,
        loop.check_learns,
        loop.check_exports,
        loop.check_row,
    ),
}
CHECKS: dict[str, Check] = {
    check.__name__.removeprefix("check_"): check for group in GROUPS.values() for check in group
}
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def subjects(name: str | None = None, plugins: Path | None = None) -> list[Subject]:
    """What is to be judged: all methods (None), one by name, or those of a file of the user's.

    Raises KdbenchError for an unknown name, and for a file that is not there or registers nothing.
    """
    registry.load(plugins)
    if name is None:
        found = registry.entries()
    elif name.endswith(".py"):
        found = _of_file(Path(name))
    else:
        known = [entry for entry in registry.entries() if entry.name == name]
        if not known:
            registry.get(name)  # says what was meant
        found = known
    lab = Lab([entry.name for entry in found if entry.cls])
    return [Subject(entry.name, entry.origin, lab) for entry in found]


def _of_file(file: Path) -> list[registry.Entry]:
    if not file.is_file():
        raise KdbenchError(f"there is no file {file}; check takes a method's name or a .py file")
    registry.load(file)
    found = [entry for entry in registry.entries() if entry.origin == file.resolve()]
    if not found:
        raise KdbenchError(f"{file} registers no method; decorate its class with @register")
    return found


def report(name: str | None = None, plugins: Path | None = None) -> tuple[str, bool]:
    """(what `kdbench check` prints, whether all passed). One method: a line a check; several: a table."""
    judged = subjects(name, plugins)
    results = {subject.name: judge(subject) for subject in judged}
    passed = all(reason is None for found in results.values() for reason in found.values())
    if len(judged) == 1:
        return _lines(judged[0], results[judged[0].name]), passed
    return _table(results), passed


def judge(subject: Subject) -> dict[str, str | None]:
    """Check -> None, or why not. A file that fails at import has the one result "imports"."""
    try:
        registry.get(subject.name)
    except KdbenchError as error:
        return {"imports": str(error)}
    return {key: run(check, subject) for key, check in CHECKS.items()}


def _lines(subject: Subject, found: dict[str, str | None]) -> str:
    width = max(map(len, found))
    lines = [f"{subject.name} ({subject.origin})"]
    for key, reason in found.items():
        fact = (CHECKS[key].__doc__ or "").splitlines()[0] if key in CHECKS else ""
        lines.append(
            f"  {'pass' if reason is None else 'FAIL'}  {key:<{width}}  {fact if reason is None else reason}"
        )
    failed = sum(reason is not None for reason in found.values())
    return "\n".join([*lines, f"{len(found) - failed} of {len(found)} checks passed"])


def _table(results: dict[str, dict[str, str | None]]) -> str:
    """Methods x checks: a dot is a pass, X a failure; the letters are explained below, then each failure."""
    letters = dict(zip(CHECKS, LETTERS, strict=False))
    width = max(6, *map(len, results))
    columns = {
        title: [check.__name__.removeprefix("check_") for check in group] for title, group in GROUPS.items()
    }
    heads = ["  ".join([" " * width, *(f"{title:<{len(keys)}}" for title, keys in columns.items())])]
    heads.append(
        "  ".join(
            [
                f"{'method':<{width}}",
                *("".join(letters[k] for k in keys).ljust(len(t)) for t, keys in columns.items()),
            ]
        )
    )
    rows = []
    for name, found in results.items():
        marks = [
            "".join("." if key in found and found[key] is None else "X" for key in keys).ljust(len(title))
            for title, keys in columns.items()
        ]
        rows.append("  ".join([f"{name:<{width}}", *marks]).rstrip())
    legend = [
        f"{letters[key]}  {key}: {(check.__doc__ or '').splitlines()[0]}" for key, check in CHECKS.items()
    ]
    failures = [
        f"{name} {key}: {why}" for name, found in results.items() for key, why in found.items() if why
    ]
    count = sum(len(found) for found in results.values())
    return "\n".join(
        [*heads, *rows, "", *legend, "", *failures, f"{count - len(failures)} of {count} checks passed"]
    )
