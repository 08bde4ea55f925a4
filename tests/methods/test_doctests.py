"""The examples in the docstrings of the formulas give what they say; torch is imported for them."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

from kdbench import losses, methods
from kdbench.utils import papers

FORMULAS = [
    losses,
    *(importlib.import_module(f"kdbench.methods.{m.name}") for m in pkgutil.iter_modules(methods.__path__)),
]
EXAMPLES = [
    example
    for module in (*FORMULAS, papers)
    for example in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"torch": torch})
    if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name.removeprefix("kdbench."))
def test_example(example):
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(example, out=report.append)
    assert not runner.failures, "".join(report)


def test_every_formula_has_an_example():
    shown = {example.name for example in EXAMPLES}
    formulas = {
        f"{module.__name__}.{name}"
        for module in FORMULAS
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_") and is_formula(function)
    }
    assert len(formulas) > 70
    assert sorted(formulas - shown) == []


def is_formula(function) -> bool:
    """From tensors to tensors, without modules."""
    annotations = {name: str(kind) for name, kind in inspect.get_annotations(function, eval_str=True).items()}
    result, kinds = annotations.pop("return", ""), " ".join(annotations.values())
    return "Tensor" in result and "Tensor" in kinds and "Module" not in kinds and "Views" not in kinds
