"""Every shipped method passes every check of the contract: ids like ``dkd-teacher_untouched``."""

import pytest

from kdbench import contract, registry
from kdbench.contract.training_lab import Lab

registry.load()
METHODS = [
    e.name for e in registry.entries() if e.cls is None or e.cls.__module__.startswith("kdbench.methods.")
]


@pytest.fixture(scope="module")
def lab():
    """All methods in one cohort."""
    return Lab(METHODS)


# 64 draws of a large network or of many negatives each: a third of the time of all checks
SLOW = {
    (method, check) for method in ("crd", "diffkd") for check in ("class_order", "sample_order", "coupled")
}


@pytest.mark.parametrize(
    ("method", "check"),
    [
        pytest.param(
            method, check, id=f"{method}-{check}", marks=[pytest.mark.slow] * ((method, check) in SLOW)
        )
        for method in METHODS
        for check in contract.CHECKS
    ],
)
def test_contract(lab, method, check):
    entry = next(entry for entry in registry.entries() if entry.name == method)
    reason = contract.run(contract.CHECKS[check], contract.Subject(method, entry.origin, lab))
    assert reason is None, f"{method}: {reason}"


def test_the_registry_is_not_empty():
    assert {"ce", "kd", "dkd", "mlkd", "ctkd", "bickd"} <= set(METHODS)
