"""The reference values: results of the original authors' code on fixed inputs, stored under tests/golden.

Each method has <name>.json (hyperparameters, meanings) and <name>.npz (inputs as float32, results as
float64). A test supplies ``terms(case, inputs)``: a dict from the stored term names to the tensors of the
code under test.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1] / "golden"
DTYPES = {"float64": torch.float64, "float32": torch.float32}


@dataclass(frozen=True)
class Case:
    """One stored case: its name, what it exercises, the reference's hyperparameters and all of its arrays."""

    name: str
    tags: tuple[str, ...]
    hyper: dict
    input_names: tuple[str, ...]
    differentiable: tuple[str, ...]
    arrays: dict[str, np.ndarray]

    def inputs(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Fresh tensors, floats in ``dtype``; those that the reference differentiated require a gradient."""
        tensors = {}
        for name in self.input_names:
            tensor = torch.from_numpy(self.arrays[name].copy())
            if tensor.is_floating_point():
                tensor = tensor.to(dtype).requires_grad_(name in self.differentiable)
            tensors[name] = tensor
        return tensors


def cases(*names: str) -> list[Case]:
    """All stored cases of the files ``names``."""
    found = []
    for name in names:
        described = json.loads((FOLDER / f"{name}.json").read_text())["cases"]
        with np.load(FOLDER / f"{name}.npz") as file:
            arrays = {key: file[key] for key in file.files}
        for key, case in described.items():
            own = {k.removeprefix(f"{key}/"): v for k, v in arrays.items() if k.startswith(f"{key}/")}
            fields = (tuple(case[k]) for k in ("inputs", "gradient_wrt"))
            found.append(Case(f"{name}-{key}", tuple(case["tags"]), case["hyperparameters"], *fields, own))
    return found


def each(*names: str):
    """Parametrise a test over every case of the files ``names`` and both dtypes: arguments case, dtype."""
    found = [pytest.param(case, id=case.name) for case in cases(*names)]
    by_case = pytest.mark.parametrize("case", found)
    by_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES.keys())
    return lambda test: by_case(by_dtype(test))


def close(actual: torch.Tensor, expected: np.ndarray, what: str, gradient: bool = False) -> None:
    """``actual`` against the float64 reference; the tolerance follows ``actual``'s dtype."""
    largest = max(1.0, float(np.abs(expected).max(initial=0.0))) if gradient else 1.0
    rtol, atol = (1e-9, 1e-12) if actual.dtype == torch.float64 else (2e-5, 1e-5)
    actual = actual.detach().double().numpy()
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol * largest, err_msg=what)


def check(case: Case, terms: dict[str, torch.Tensor], inputs: dict[str, torch.Tensor]) -> None:
    """Every given term and every stored gradient of it; the total must be among them."""
    assert "total" in terms
    checked = set()
    for term, value in terms.items():
        close(value, case.arrays[term], f"{case.name}: {term}")
        for name in case.differentiable:
            key = f"grad_{term}__{name}"
            if key in case.arrays:
                (gradient,) = torch.autograd.grad(value, inputs[name], retain_graph=True)
                close(gradient, case.arrays[key], f"{case.name}: {key}", gradient=True)
                checked.add(key)
    assert {f"grad_total__{name}" for name in case.differentiable} <= checked, checked
