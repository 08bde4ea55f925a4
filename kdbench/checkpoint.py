"""Files that are either whole or not there: temp file + os.replace. Loading never runs code from a file."""

from __future__ import annotations

import argparse
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from kdbench.errors import KdbenchError

# Plain values that training scripts save beside the weights, their arguments and an accuracy; none can run code.
_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.dtypes.Float32DType,
    np.dtypes.Float64DType,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # numpy 1
    (_SCALAR, "numpy._core.multiarray.scalar"),  # numpy 2
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


def save(path: Path, state: Mapping[str, Any]) -> None:
    """A training state: tensors and plain values. Raises OSError."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomic(path, buffer.getvalue())


def load(path: Path) -> dict[str, Any] | None:
    """The state at ``path``; None when there is none or it is not one of ours."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file may fail in any way; it is then no checkpoint
        return None


def path_of(work: Path, cell_id: str) -> Path:
    """Where a cell's training state lies."""
    return work / f"{cell_id}.pt"


def save_weights(path: Path, state: Mapping[str, Tensor], says: dict[str, str] | None = None) -> None:
    """Weights alone, as safetensors, and in its header what the file ``says`` of itself. Raises OSError."""
    own = {
        k: v.detach().cpu().contiguous().clone() for k, v in state.items()
    }  # tied weights each on their own
    write_atomic(path, safetensors.torch.save(own, says))


def load_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors or .pth: plain, or under "model" or "state_dict".

    Raises KdbenchError for a file that is missing, truncated, holds code, or holds no state dict.
    """
    if not path.is_file():
        raise KdbenchError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise KdbenchError(
            f"{path} is not a plain weights file (it is truncated, or holds more than tensors, which kdbench never "
            "runs); save it again as torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # a damaged file may fail in any way
        raise KdbenchError(
            f"{path} cannot be read as weights ({_first_line(error)}); fetch or save it again"
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(v, Tensor) for v in content.values())
    ):
        raise KdbenchError(f"{path} holds no state dict (plain, or under 'model' or 'state_dict')")
    return dict(content)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
