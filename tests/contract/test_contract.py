"""Every shipped method passes every check of the contract: ids like ``dkd-teacher_untouched``."""

import functools

import pytest

from kdbench import contract, registry
from kdbench.contract.training_lab import Lab

registry.load()
METHODS = [
    e.name for e in registry.entries() if e.cls is None or e.cls.__module__.startswith("kdbench.methods.")
]


SAMPLE = [
    "ce",
    "kd",
    "bickd",
    "mlkd",
    "fitnet",
    "rkd",
    "tfkd",
]  # of each family one or more; the others are slow


@functools.cache
def lab(names: tuple[str, ...]) -> Lab:
    """These methods in one cohort."""
    return Lab(list(names))


@pytest.mark.parametrize(
    ("method", "check"),
    [
        pytest.param(
            method, check, id=f"{method}-{check}", marks=[] if method in SAMPLE else [pytest.mark.slow]
        )
        for method in METHODS
        for check in contract.CHECKS
    ],
)
def test_contract(method, check):
    entry = next(entry for entry in registry.entries() if entry.name == method)
    company = lab(tuple(SAMPLE if method in SAMPLE else METHODS))
    reason = contract.run(contract.CHECKS[check], contract.Subject(method, entry.origin, company))
    assert reason is None, f"{method}: {reason}"


def test_the_registry_is_not_empty():
    assert {"ce", "kd", "dkd", "mlkd", "ctkd", "bickd"} <= set(METHODS)
