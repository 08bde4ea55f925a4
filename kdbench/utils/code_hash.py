"""The code of a method as one hash: its file and every file of its folder that it imports, or its class alone."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import linecache
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kdbench.utils.method_facts import is_record, is_registered

HOOKS = {
    "__post_init__",
    "skip",
    "build",
    "prepare",
    "loss",
    "update",
    "predict",
}  # of `kdbench.method.Method`
DYNAMIC = ("import_module", "__import__")
# Python 3.13 leaves empty lists out by default
_ALL: dict[str, Any] = {"show_empty": True} if sys.version_info >= (3, 13) else {}


def code_hash(origin: Path, root: Path | None = None) -> str:
    """12 hex digits of what `reached` finds, without comments, layout and documentation (see `_undocumented`).

    Raises SyntaxError (ValueError for a zero byte) for a file that is not Python.
    """
    trees = reached(origin, root or origin.parent)
    return hashlib.sha256("".join(_text(trees[file]) for file in sorted(trees)).encode()).hexdigest()[:12]


def class_hash(cls: type) -> str:
    """12 hex digits of the text of a class that no file holds, as `code_hash`; '' where its text cannot be read.

    A notebook keeps the text of each cell for tracebacks; what is typed at Python's own prompt is gone.
    """
    functions = (inspect.unwrap(getattr(member, "__func__", member)) for member in vars(cls).values())
    files = {
        f.__code__.co_filename for f in functions if inspect.isfunction(f) and f.__module__ == cls.__module__
    }
    for file in sorted(files):
        try:
            tree = ast.parse("".join(linecache.getlines(file)))
        except SyntaxError:
            continue
        own = [
            node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == cls.__name__
        ]
        if own:
            text = _text(ast.Module([own[-1]], type_ignores=[]))
            return hashlib.sha256(text.encode()).hexdigest()[:12]
    return ""


def reached(origin: Path, root: Path) -> dict[Path, ast.Module]:
    """``origin`` and the files in and below the folder ``root`` that it imports, however, and through however many."""
    trees: dict[Path, ast.Module] = {}
    waiting = [origin]
    while waiting:
        file = waiting.pop()
        if file not in trees and file.is_file():
            trees[file] = ast.parse(
                file.read_bytes(), str(file)
            )  # bytes may begin with a BOM or name a coding
            waiting += _imported(trees[file], file, root)
    return trees


def beside(folder: Path, name: str) -> bool:
    """Whether ``import name`` in a plug-in of ``folder`` means the module there: as in a script, but for Python's own.

    A folder without __init__.py gives way to an installed package, as it does everywhere in Python.
    """
    if name == "kdbench" or name in sys.stdlib_module_names:
        return False
    if (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file():
        return True
    return (folder / name).is_dir() and not _installed(name)


def _installed(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except ValueError:  # a module that something put into sys.modules by hand
        return True
    return spec is not None and spec.origin is not None


def _imported(tree: ast.Module, file: Path, root: Path) -> list[Path]:
    """The files that the imports of one file run."""
    files = []
    for level, name, members in _imports(tree):
        parts = name.split(".") if name else []
        for start, rest in _starts(level, parts, file, root):
            if not rest:
                files.append(start / "__init__.py")
            if "*" in members:  # a package's __all__ may name its modules
                members = [path.stem for path in sorted(start.joinpath(*rest).glob("[!.]*.py"))]
            files += [
                path for member in ([], *([m] for m in members)) for path in _run(start, [*rest, *member])
            ]
    return files


def _imports(tree: ast.Module) -> Iterator[tuple[int, str, list[str]]]:
    """(leading dots, dotted name, names taken from it) of each import, those within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            text = node.args[0].value
            if getattr(node.func, "attr", getattr(node.func, "id", "")) in DYNAMIC and isinstance(text, str):
                name = text.lstrip(".")
                yield len(text) - len(name), name, []


def _starts(level: int, parts: list[str], file: Path, root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Where a name begins: at its dots, beside the plug-in, or with the names of the folders that hold the plug-in."""
    if level:
        yield file.parents[min(level, len(file.parents)) - 1], parts
        return
    if parts and beside(root, parts[0]):
        yield root, parts
    for count in range(1, len(parts) + 1):
        if root.parts[-count:] == tuple(parts[:count]):
            yield root, parts[count:]


def _run(folder: Path, parts: list[str]) -> list[Path]:
    """The packages' __init__.py on the way to a module below ``folder``, and the module."""
    files = []
    for part in parts:
        package, module = folder / part / "__init__.py", folder / f"{part}.py"
        if package.is_file():
            files.append(package)
        elif module.is_file():
            return [*files, module]
        folder = folder / part
    return files


def _text(tree: ast.Module) -> str:
    """The code alone, the same text under every version of Python. Changes ``tree``."""
    _undocumented(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not getattr(node, "type_params", True):
            del node.type_params  # type: ignore[union-attr]  # new in Python 3.12
    return ast.dump(tree, **_ALL)


def _undocumented(tree: ast.Module) -> None:
    """Remove what changes no number from ``tree``, in place.

    That is docstrings, and of registered methods the records, the annotations of the interface's own functions and
    the imports that served only these.
    """
    removed: list[ast.AST] = []
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            node.body.pop(0)
        if isinstance(node, ast.ClassDef) and is_registered(node):
            removed += [statement for statement in node.body if is_record(statement)]
            node.body = [statement for statement in node.body if not is_record(statement)]
            hooks = (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name in HOOKS)
            removed += [annotation for hook in hooks for annotation in _unannotated(hook)]
    _drop_imports(tree, _names(removed) - _names([tree]))


def _unannotated(function: ast.FunctionDef) -> list[ast.expr]:
    """Take the annotations off ``function`` and return them."""
    rules = function.args
    parameters = [*rules.posonlyargs, *rules.args, *rules.kwonlyargs, rules.vararg, rules.kwarg]
    annotations = [function.returns]
    function.returns = None
    for parameter in filter(None, parameters):
        annotations.append(parameter.annotation)
        parameter.annotation = None
    return [annotation for annotation in annotations if annotation is not None]


def _names(nodes: Iterable[ast.AST]) -> set[str]:
    """The names that the code of ``nodes`` refers to."""
    return {part.id for node in nodes for part in ast.walk(node) if isinstance(part, ast.Name)}


def _drop_imports(tree: ast.Module, names: set[str]) -> None:
    """Remove ``names`` from the imports at the top of the file, and imports that are left without one."""
    kept = []
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            aliases = [a for a in statement.names if (a.asname or a.name.partition(".")[0]) not in names]
            if not aliases:
                continue
            statement.names = aliases
        kept.append(statement)
    tree.body = kept
