"""State dicts on disk: weights and training states, written atomically and read without running code.

Weights are written as safetensors and read from safetensors or any form of ``torch.save``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from kdbench.errors import KdbenchError, first_line
from kdbench.utils import weight_files
from kdbench.utils.files import write_atomic

Place = tuple[str, ...]  # the keys that lead to a state dict within a file

# Plain values that training scripts save beside the weights (arguments, paths, accuracies); none can run code.
_NUMPY_BUILDERS = ((np.float64(0).__reduce__()[0], "scalar"), (np.zeros(1).__reduce__()[0], "_reconstruct"))
HARMLESS: list[Any] = [
    argparse.Namespace,
    PosixPath,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    *(
        (function, f"numpy.{package}.multiarray.{name}")
        for package in ("core", "_core")
        for function, name in _NUMPY_BUILDERS
    ),
]


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a training state of tensors and plain values. Raises OSError (a full disk ...)."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue(), sync=True)


def load_state(path: Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote to ``path``; None if there is no such file or it is damaged or holds code."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file may fail in any way; it is then no checkpoint
        return None


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write weights as safetensors, with ``metadata`` in its header. Raises OSError (a full disk ...)."""
    # safetensors refuses shared memory, so tied weights are stored once per name
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    write_atomic(path, safetensors.torch.save(copies, metadata), sync=True)


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the one state dict of a .safetensors or .pth file, at its top or within its dictionaries.

    Raises KdbenchError for a file that is missing, truncated, holds code, or holds no state dict or several.
    """
    states = state_dicts(path)
    if len(states) > 1:
        places = ", ".join(repr(".".join(place)) for place in states)
        raise KdbenchError(f"{path} holds several state dicts ({places}); save one of them alone")
    return dict(*states.values())


def state_dicts(path: Path) -> dict[Place, Mapping[str, Tensor]]:
    """Read every state dict of a file, by the keys that lead to it; () is a state dict that is the whole file.

    Raises KdbenchError for a file that is missing, truncated, holds code, or holds no state dict.
    """
    content = _read(path)
    if states := dict(_walk(content)):
        return states
    raise KdbenchError(f"{path} holds no state dict{_instead(content)}; {weight_files.SAVE}")


def _instead(content: Any) -> str:
    """Say in parentheses what a file holds instead of a state dict; '' if that would not help."""
    if not isinstance(content, Mapping) or not content:
        return ""
    others = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if len(others) < len(content) and others:
        return f" ({others[0]!r} beside its tensors is {type(content[others[0]]).__name__})"
    return f" (its keys: {', '.join(map(repr, list(content)[:5]))})"


def _read(path: Path) -> Any:
    """Return what torch or safetensors reads from a file. Raises KdbenchError, also for code, which is not run."""
    if not path.exists():
        raise KdbenchError(f"there is no weights file {path}")
    try:
        problem = weight_files.objection(path)
        if not problem:
            return _load(path)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        held = f"holds more than tensors, {code[1]}" if code else "is truncated, or holds more than tensors"
        problem = f"is not a plain weights file (it {held}, which kdbench never runs); {weight_files.SAVE}"
    except Exception as error:  # a damaged file may fail in any way
        problem = f"cannot be read as weights ({first_line(error)}); fetch or save it again"
    raise KdbenchError(f"{path} {problem}")


def _load(path: Path) -> Any:
    with path.open("rb") as file:  # given a path, torch trusts its suffix
        if weight_files.is_safetensors(file.read(weight_files.HEAD)):
            return safetensors.torch.load_file(path)
        file.seek(0)
        with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats
            return torch.load(file, map_location="cpu", weights_only=True)


def _walk(content: Any) -> Iterator[tuple[Place, Mapping[str, Tensor]]]:
    """Yield the dictionaries of tensors, outer ones first. Those of an optimizer have numbers as keys: skipped."""
    pending: list[tuple[Place, Any]] = [((), content)]
    seen: set[int] = set()  # a file may hold a dictionary that contains itself
    for place, inner in pending:
        if not isinstance(inner, Mapping) or id(inner) in seen:
            continue
        seen.add(id(inner))
        if inner and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in inner.items()):
            yield place, inner
        pending += [((*place, key), value) for key, value in inner.items() if isinstance(key, str)]


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """Hash names, shapes and bytes of a state dict, whatever its order -> 12 hex digits."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:12]
