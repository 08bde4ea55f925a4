"""Teachers from weights files: found by name, checked against the architecture, identified by their content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.models.cifar.base import ENTRIES
from kdbench.models.wrapper import Network
from kdbench.suites import DataSpec, ModelSpec
from kdbench.teachers.fitting import Part, is_counter, parts, select_part
from kdbench.utils.files import file_stem
from kdbench.utils.hashing import digest
from kdbench.utils.state_dicts import state_dicts, weights_digest

SUFFIXES = (".pth", ".pt", ".safetensors")
# Two networks whose tensors have the same names and shapes.
TWINS = ("mobilenetv2", "mobilenetv2_stride1")


@dataclass(frozen=True)
class Teacher:
    """A teacher whose weights are in the file ``path``.

    ``id`` hashes everything that its outputs depend on except the images: weights and network. ``expected`` is its
    top-1 accuracy on the test set, in percent. ``remark`` says which weights of the file are used if it has several.
    """

    name: str
    model: ModelSpec
    path: Path
    id: str
    expected: float | None
    remark: str = ""

    def net(self, data: DataSpec) -> Network:
        """Load the frozen network, in eval mode. Raises KdbenchError if the file has changed since it was opened."""
        model, _ = _load_model(self.name, self.model, self.path, data)
        if _identity(model, self.model) != self.id:
            raise KdbenchError(
                f"{self.path} changed while it was in use; run again to train with the new weights"
            )
        return Network(model, *self.model.normalisation(data)).eval().requires_grad_(False)


def open_teacher(name: str, model: ModelSpec, path: Path, data: DataSpec, expected: float | None) -> Teacher:
    """Check the weights at ``path`` against the architecture. Raises KdbenchError with what does not fit."""
    network, remark = _load_model(name, model, path, data)
    return Teacher(name, model, path, _identity(network, model), expected, remark)


def find_file(name: str, folder: Path) -> Path:
    """Return ``<name>.pth``, ``.pt`` or ``.safetensors`` of the user's folder. Raises KdbenchError if none exists."""
    name = file_stem(name)
    if not folder.is_dir():
        raise KdbenchError(
            f"--teacher-weights {folder} is not a folder; it should hold {name}.pth or {name}.safetensors"
        )
    for suffix in SUFFIXES:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    raise KdbenchError(
        f"there is no {' or '.join(name + s for s in SUFFIXES)} in {folder}; put the file there, or leave out "
        "--teacher-weights and the teacher is trained by the suite's recipe"
    )


def fill(model: nn.Module, state: Mapping[str, Tensor], name: str, path: Path) -> None:
    """Load ``state`` into ``model``; counters of BatchNorm may be missing, as in old checkpoints.

    Raises KdbenchError for missing or unknown keys, other shapes and values that are not finite floats.
    """
    fill_from_parts(model, parts({(): state}), name, path)


def fill_from_parts(model: nn.Module, candidates: Sequence[Part], name: str, path: Path) -> str:
    """Load the part of the file ``path`` that fits ``model``, and return the remark on the choice.

    Raises KdbenchError as `fitting.select_part` does.
    """
    own = model.state_dict()
    part, remark = select_part(own, candidates, name, path)
    model.load_state_dict({**own, **part.state})
    return remark


def _load_model(name: str, spec: ModelSpec, path: Path, data: DataSpec) -> tuple[nn.Module, str]:
    model = models.create(spec.arch, data.classes, **spec.args)
    return model, fill_from_parts(model, parts(state_dicts(path)), name, path)


def _identity(model: nn.Module, spec: ModelSpec) -> str:
    """Hash the weights, and the network unless only one of kdbench's own networks has weights of these shapes.

    A network that began as a pretrained one keeps the normalisation of its images, which is hashed too.
    """
    weights = weights_digest({key: v for key, v in model.state_dict().items() if not is_counter(key)})
    arch, own = models.full_name(spec.arch), {full for name, full in ENTRIES.items() if name not in TWINS}
    if spec.weights:
        return digest([weights, arch, dict(spec.args), [spec.weights.mean, spec.weights.std]])
    return weights if arch in own and not spec.args else digest([weights, arch, dict(spec.args)])
