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


@pytest.mark.parametrize("check", list(contract.CHECKS))
@pytest.mark.parametrize("method", METHODS)
def test_contract(lab, method, check):
    entry = next(entry for entry in registry.entries() if entry.name == method)
    reason = contract.run(contract.CHECKS[check], contract.Subject(method, entry.origin, lab))
    assert reason is None, f"{method}: {reason}"


def test_the_registry_is_not_empty():
    assert {"ce", "kd", "dkd", "mlkd", "ctkd", "bickd"} <= set(METHODS)
