"""Files that are either whole or not there: temp file + os.replace. Loading never runs code from a file."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
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

from kdbench.errors import KdbenchError
from kdbench.utils import weight_files

# Plain values that training scripts save beside the weights, arguments, paths and accuracies; none can run code.
_FUNCTIONS = ((np.float64(0).__reduce__()[0], "scalar"), (np.zeros(1).__reduce__()[0], "_reconstruct"))
HARMLESS: list[Any] = [
    argparse.Namespace,
    PosixPath,
    np.ndarray,
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
    *((how, f"numpy.{place}.multiarray.{name}") for place in ("core", "_core") for how, name in _FUNCTIONS),
]


def write_atomic(path: Path, content: bytes) -> None:
    """Write ``content`` so that a crash leaves the old file or the new one. Raises OSError (a full disk ...)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def save_state(path: Path, state: Mapping[str, Any]) -> None:
    """A training state: tensors and plain values. Raises OSError."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """The state at ``path``; None when there is none or it is not one of ours."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file may fail in any way; it is then no checkpoint
        return None


def save_weights(path: Path, state: Mapping[str, Tensor], says: dict[str, str] | None = None) -> None:
    """Weights alone, as safetensors, and in its header what the file ``says`` of itself. Raises OSError."""
    own = {
        k: v.detach().cpu().contiguous().clone() for k, v in state.items()
    }  # tied weights each on their own
    write_atomic(path, safetensors.torch.save(own, says))


def load_weights(path: Path) -> dict[str, Tensor]:
    """The one state dict of a .safetensors or .pth file: plain, or somewhere in its dictionaries.

    Raises KdbenchError for a file that is missing, truncated, holds code, or holds no state dict or several.
    """
    found = state_dicts(path)
    if len(found) > 1:
        places = ", ".join(repr(".".join(place)) for place in found)
        raise KdbenchError(f"{path} holds several state dicts ({places}); save one of them alone")
    return dict(*found.values())


def state_dicts(path: Path) -> dict[tuple[str, ...], Mapping[str, Tensor]]:
    """Every state dict of a file by the keys that lead to it; () leads to one that is the whole file.

    Raises KdbenchError for a file that is missing, truncated, holds code, or holds no state dict.
    """
    content = _read(path)
    if found := dict(_state_dicts(content)):
        return found
    raise KdbenchError(f"{path} holds no state dict{_why(content)}; {weight_files.SAVE}")


def _why(content: Any) -> str:
    """What there is instead of a state dict, in parentheses."""
    if not isinstance(content, Mapping) or not content:
        return ""
    others = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if len(others) < len(content) and others:
        return f" ({others[0]!r} beside its tensors is {type(content[others[0]]).__name__})"
    return f" (its keys: {', '.join(map(repr, list(content)[:5]))})"


def _read(path: Path) -> Any:
    """What torch or safetensors finds in a file. Raises KdbenchError, also for code, which is not run."""
    if not path.exists():
        raise KdbenchError(f"there is no weights file {path}")
    try:
        words = weight_files.kind(path)
        if not words and weight_files.is_safetensors(path):
            return safetensors.torch.load_file(path)
        if not words:
            with (
                torch.serialization.safe_globals(HARMLESS),
                path.open("rb") as file,
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")  # of old formats
                return torch.load(
                    file, map_location="cpu", weights_only=True
                )  # of a path it reads the suffix
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        words = f"holds more than tensors, {code[1]}" if code else "is truncated, or holds more than tensors"
        words = f"is not a plain weights file (it {words}, which kdbench never runs); {weight_files.SAVE}"
    except Exception as error:  # a damaged file may fail in any way
        words = f"cannot be read as weights ({_first_line(error)}); fetch or save it again"
    raise KdbenchError(f"{path} {words}")


def _state_dicts(content: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Tensor]]]:
    """Dictionaries of tensors alone, outer ones first; an optimizer numbers its own, so these are looked past."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), content)]
    seen: set[int] = set()  # a file may hold a dictionary that contains itself
    for place, inner in waiting:
        if not isinstance(inner, Mapping) or id(inner) in seen:
            continue
        seen.add(id(inner))
        if inner and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in inner.items()):
            yield place, inner
        waiting += [((*place, key), value) for key, value in inner.items() if isinstance(key, str)]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """12 hex digits over names, shapes and bytes of a state dict, whatever its order."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return total.hexdigest()[:12]
