"""The names of `import kdbench`: functions with signature and docstring, classes with their first line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import kdbench
from docs.generate.markdown import code, fence, prose, table


def api() -> str:
    """A section per function, then a table of the classes."""
    members = {name: getattr(kdbench, name) for name in sorted(kdbench._LAZY)}
    sections = [_function(name, member) for name, member in members.items() if inspect.isfunction(member)]
    rows = [
        [code(f"kdbench.{name}"), _summary(cls)]
        for name, cls in members.items()
        if not inspect.isfunction(cls)
    ]
    classes = ["## Classes", table(["name", "what"], rows)] if rows else []
    return "\n\n".join([*sections, *classes])


def _function(name: str, function: Callable) -> str:
    signature = fence("\n".join(_signature(name, function)), "python")
    return f"## kdbench.{name}\n\n{signature}\n\n{fence(inspect.getdoc(function) or '')}"


def _signature(name: str, function: Callable) -> Iterator[str]:
    """The definition, a line per parameter."""
    signature = inspect.signature(function)
    yield f"def {name}("
    keyword_only = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            yield "    *,"
        default = (
            "" if parameter.default is parameter.empty else " = " + repr(parameter.default).replace("'", '"')
        )
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        yield f"    {stars}{parameter.name}: {_annotation(parameter.annotation)}{default},"
    yield f") -> {_annotation(signature.return_annotation)}: ..."


def _annotation(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _summary(cls: type) -> str:
    return prose((inspect.getdoc(cls) or "").partition("\n\n")[0])
