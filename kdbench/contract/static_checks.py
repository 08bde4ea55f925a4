"""What a method's file and class say, before anything is computed; and that nothing in it waits for a value."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_origin

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)

from kdbench import registry
from kdbench.contract.core import CheckFailed, Subject, require
from kdbench.contract.synthetic import problem as problems
from kdbench.contract.synthetic.models import Side
from kdbench.contract.synthetic.modules import fresh
from kdbench.contract.synthetic.problem import Problem
from kdbench.errors import KdbenchError
from kdbench.method import Method, field_types
from kdbench.utils.hashing import canonical
from kdbench.utils.papers import FAMILIES, FIDELITIES, Paper

CPU = torch.device("cpu")
FAKES_GPU = torch.backends.cuda.is_built() and torch.__version__ >= "2.11"  # earlier ones need a GPU for it
DEVICES = (CPU, torch.device("cuda:0")) if FAKES_GPU else (CPU,)
MIXED = ("on the same device", "found two different devices")  # as torch says it, by its version
BANNED_CALLS = ("cuda", "cpu", "item", "numpy", "tolist", "manual_seed")


def check_name(subject: Subject) -> None:
    """File name, registry name and lower-case class name agree."""
    cls = subject.cls
    file = Path(inspect.getfile(cls)).stem
    spelt = {"the file": file, "the registry": cls.name, "the class": cls.__name__.lower()}
    require(
        len(set(spelt.values())) == 1,
        "names differ: " + ", ".join(f"{k} says {v!r}" for k, v in spelt.items()),
    )


def check_docstring(subject: Subject) -> None:
    """The docstring begins with a sentence of its own and has the equation and the deviations."""
    text = inspect.cleandoc(subject.cls.__dict__.get("__doc__") or "")
    required = {
        "a first line that is a whole sentence": r"\A\S[^\n]*\.(\n\n|\Z)",
        "a line 'Equation: ...'": r"(?m)^Equation: \S",
        "a line 'Deviations: ...'": r"(?m)(^|\s)Deviations: \S",
    }
    missing = [what for what, pattern in required.items() if not re.search(pattern, text)]
    require(not missing, f"the docstring lacks {'; '.join(missing)}")


def check_record(subject: Subject) -> None:
    """The class itself says its paper (or None), family and fidelity; only what is in no paper has none."""
    own = vars(subject.cls)
    missing = [name for name in ("paper", "family", "fidelity") if name not in own]
    require(not missing, f"the class does not set {', '.join(missing)}")
    paper, family, fidelity = own["paper"], own["family"], own["fidelity"]
    require(paper is None or isinstance(paper, Paper), f"paper must be a Paper(...) or None, got {paper!r}")
    require(family in FAMILIES, f"family must be {_either(FAMILIES)}, got {family!r}")
    require(fidelity in FIDELITIES, f"fidelity must be {_either(FIDELITIES)}, got {fidelity!r}")
    require(
        (paper is None) == (fidelity == "own"),
        f"fidelity {fidelity!r} {'needs a paper' if paper is None else 'is for a method that is in no paper'}",
    )


def _either(choices: Iterable[str]) -> str:
    return " or ".join(map(repr, choices))


def check_params(subject: Subject) -> None:
    """Frozen; parameters survive JSON; an unknown key and a value of the wrong type are refused."""
    method, cls = subject.method, subject.cls
    again = registry.create(cls.name, json.loads(canonical(method.params)))
    require(again == method and hash(again) == hash(method), f"{method!r} becomes {again!r} through JSON")
    kinds = field_types(cls)
    for key in kinds:
        try:
            setattr(method, key, getattr(method, key))
        except dataclasses.FrozenInstanceError:
            continue
        raise CheckFailed(f"{key} can be changed after construction: the class must stay a frozen dataclass")
    wrong: list[tuple[str, Any]] = [("no_such_parameter", 1)]
    wrong += [
        (key, 0.5 if kind in (str, int, bool) or get_origin(kind) is Literal else "x")
        for key, kind in kinds.items()
    ]
    for key, value in wrong:
        try:
            registry.create(cls.name, {key: value})
        except KdbenchError:
            continue
        raise CheckFailed(f"{key}={value!r} is accepted")


def check_tags(subject: Subject) -> None:
    """Tags are of their types and name fields and methods that exist."""
    method, kinds = subject.method, field_types(subject.cls)
    for tag in ("coupled", "order_dependent", "shift_invariant", "partial_gradient", "keeps_modules"):
        require(
            type(getattr(method, tag)) is bool, f"{tag} must be True or False, got {getattr(method, tag)!r}"
        )
    require(
        method.separable in (None, True, False),
        f"separable must be True, False or None, got {method.separable!r}",
    )
    for tag in ("version", "min_batch", "min_classes"):
        value = getattr(method, tag)
        require(type(value) is int and value >= 1, f"{tag} must be a whole number from 1, got {value!r}")
    for tag in ("weights", "positive", "ablate"):
        strange = [key for key in getattr(method, tag) if key not in kinds]
        require(
            not strange, f"{tag} names {', '.join(strange)}, but the fields are {', '.join(kinds) or 'none'}"
        )
    for tag in ("zero_at_match", "positive"):
        require(isinstance(getattr(method, tag), tuple), f"{tag} must be a tuple of names")
    for field, values in method.ablate.items():
        tried = {registry.create(method.name, {field: value}) for value in values}
        require(
            len(tried - {method}) == len(values),
            f"ablate[{field!r}] must list different values other than the default, got {values!r}",
        )
    require(bool(method.needs.views), "needs.views must name a view")
    require(
        method.needs.preact in (False, True, "student", "teacher"),
        f"needs.preact must be True, False, 'student' or 'teacher', got {method.needs.preact!r}",
    )
    if method.alias_of is not None:
        require(
            method.alias_of in registry.names(), f"alias_of names {method.alias_of!r}, which is no method"
        )
        require(method.alias_of != method.name, "a method cannot be an alias of itself")


def check_banned(subject: Subject) -> None:
    """No .cuda(, .cpu(, .item(, .numpy(, .tolist(, manual_seed or print( in the file."""
    tree = ast.parse(Path(inspect.getfile(subject.cls)).read_bytes())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        attribute = isinstance(node.func, ast.Attribute)
        if (name == "print" and not attribute) or (
            name in BANNED_CALLS and (attribute or name == "manual_seed")
        ):
            raise CheckFailed(f"line {node.lineno} calls {'.' if attribute else ''}{name}(")


def variants(method: Method) -> list[Method]:
    """``method``, then a copy for each other value of each switch (bool or Literal), one change at a time."""
    methods = [method]
    for key, kind in field_types(type(method)).items():
        choices = (True, False) if kind is bool else kind.__args__ if get_origin(kind) is Literal else ()
        methods += [dataclasses.replace(method, **{key: v}) for v in choices if v != getattr(method, key)]  # type: ignore
    return methods


def check_no_sync(subject: Subject) -> None:
    """loss and update run on a GPU without any value: no sync with the device, no data-dependent shape."""
    for method in variants(subject.method):
        problem = problems.make(method, max(4, method.min_batch))
        try:
            for device in DEVICES:
                _run_without_values(problem, Faking(FakeTensorMode(allow_non_fake_inputs=True), device))
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise CheckFailed(
                f"{_place(error, subject)} needs the value of a tensor ({error.func}): use masks and torch.where "
                "instead of Python ifs, .item() and boolean indexing"
            ) from error
        except RuntimeError as error:
            if not any(part in str(error) for part in MIXED):
                raise
            raise CheckFailed(
                f"{_place(error, subject)} mixes tensors of the CPU with those of a GPU: make new tensors with "
                "device=, from a tensor that is there (torch.zeros_like, logits.new_zeros ...), or as buffers of the "
                "modules"
            ) from error


def _run_without_values(problem: Problem, faking: Faking) -> None:
    modules = fresh(problem)
    memo: dict[int, Any] = {id(t): faking(t) for t in [*modules.parameters(), *modules.buffers()]}
    modules = copy.deepcopy(modules, memo)
    faked = problem.sides(lambda role, side: _fake(side, faking))
    faked = dataclasses.replace(
        faked,
        target=faking(problem.target),
        index=faking(problem.index),
        watch_batch=lambda batch: dataclasses.replace(batch, progress=faking(batch.progress)),
    )
    with faking.mode:
        run = faked.run(modules, last=True)
        if faking.device == CPU:  # a backward pass on a GPU needs one
            run.back_propagate()
        faked.update(run, modules)


@dataclass(frozen=True)
class Faking:
    """Makes tensors without values that seem to be on ``device``."""

    mode: FakeTensorMode
    device: torch.device

    def __call__(self, tensor: Tensor) -> Tensor:
        """A leaf like ``tensor``."""
        if self.device == CPU:
            return self.mode.from_tensor(tensor)
        with torch.no_grad():
            like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return FakeTensor(self.mode, like, self.device).requires_grad_(tensor.requires_grad)


def _fake(side: Side, faking: Faking) -> Side:
    head = copy.deepcopy(side.head, {id(p): faking(p) for p in side.head.parameters()})
    maps: dict[str, tuple[Tensor, ...]] = {v: tuple(map(faking, m)) for v, m in side.maps.items()}
    scores: dict[str, Tensor] | None = None
    if side.scores is not None:
        scores = {view: faking(score) for view, score in side.scores.items()}
    return Side(maps, scores, head)


def _place(error: BaseException, subject: Subject) -> str:
    """The line of the method's file that ``error`` came through."""
    trace, place, file = error.__traceback__, "a function it calls", inspect.getfile(subject.cls)
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            place = f"line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
