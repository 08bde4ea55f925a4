"""What the files of the shipped methods say of themselves, read without running them: this needs no torch."""

from __future__ import annotations

import ast
import fnmatch
import functools
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdbench.utils.needs import Needs
from kdbench.utils.papers import Family, Fidelity, Paper

FACTS = {"paper", "family", "fidelity"}
RECORDS = FACTS | {"space", "separable"}  # attributes of a method that change no number of a run
_CALLS = {"Paper": Paper, "Needs": Needs}


@dataclass(frozen=True)
class MethodFacts:
    """A method's records and needs."""

    name: str
    paper: Paper | None
    family: Family | None
    fidelity: Fidelity | None
    needs: Needs

    @property
    def two_view(self) -> bool:
        """Whether it trains on more than one view of each image."""
        return len(self.needs.views) > 1

    @property
    def bibtex(self) -> str:
        """The BibTeX entry of its paper, under its name and the year; '' without a paper."""
        return self.paper.bibtex(f"{self.name}{self.paper.year}") if self.paper else ""


@functools.cache
def shipped() -> Mapping[str, MethodFacts]:
    """name -> facts, for every method of the methods/ folder in the order of its files. Plug-ins are not in it."""
    package = importlib.util.find_spec("kdbench.methods")
    assert package is not None
    folders = map(Path, package.submodule_search_locations or ())
    files = sorted(file for folder in folders for file in method_files(folder))
    return {facts.name: facts for file in files for facts in read(file.read_bytes())}


def method_files(folder: Path) -> list[Path]:
    """The method files of a folder: helpers begin with _, tests with test_, what macOS puts beside them with a dot."""
    return sorted(file for file in folder.glob("[!_.]*.py") if not file.name.startswith("test_"))


def matching(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The names that ``all``, globs or names mean, in the order given, each once; names are not checked."""
    chosen: list[str] = []
    for pattern in patterns:
        if pattern == "all":
            chosen += names
        elif any(c in pattern for c in "*?["):
            chosen += fnmatch.filter(names, pattern)
        else:
            chosen.append(pattern)
    return list(dict.fromkeys(chosen))


def read(source: bytes) -> Iterator[MethodFacts]:
    """The facts of every class in ``source`` that is decorated with @register.

    Raises ValueError for a record that is not written out as literals.
    """
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and is_registered(node):
            values = {name: _value(value) for name, value in _assigned(node)}
            yield MethodFacts(
                name=node.name.lower(),
                paper=values.get("paper"),
                family=values.get("family"),
                fidelity=values.get("fidelity"),
                needs=values.get("needs", Needs()),
            )


def is_registered(node: ast.ClassDef) -> bool:
    """Whether the class is decorated with @register or @registry.register."""
    return any(getattr(d, "attr", getattr(d, "id", "")) == "register" for d in node.decorator_list)


def is_record(statement: ast.stmt) -> bool:
    """Whether a statement of a class's body sets a record; an annotated one is a hyperparameter of that name."""
    return isinstance(statement, ast.Assign) and _target(statement) in RECORDS


def _target(statement: ast.stmt) -> str:
    """The name that an assignment sets; empty for any other statement."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else ""


def _assigned(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    for statement in node.body:
        value = getattr(statement, "value", None)
        name = _target(statement)
        if value is not None and (name == "needs" or (name in FACTS and is_record(statement))):
            yield name, value


def _value(node: ast.expr) -> Any:
    """A literal, or a `Paper` or a `Needs` made of literals."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        return _CALLS[node.func.id](**arguments)
    return ast.literal_eval(node)
