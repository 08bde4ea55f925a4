"""The forms in which a student is written: weights for timm, and graphs that run without timm and kdbench.

A graph takes images in 0..1 [B, 3, size, size] for any B, and normalises them itself.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.models.flops import random_images
from kdbench.runner.export.facts import Description
from kdbench.teachers.weights import fill
from kdbench.utils.state_dicts import save_weights

State = Mapping[str, Tensor]
TOLERANCE = 1e-4  # of a graph's logits, relative to the largest
FACTS = "kdbench.json"  # file of the facts inside an archive
IMAGES, LOGITS = "images", "logits"
ANY = torch.export.Dim.DYNAMIC


@dataclass(frozen=True)
class Export:
    """A student to be written. ``facts``: what the file says of itself, each entry as JSON."""

    model: nn.Module
    state: State
    description: Description
    facts: Mapping[str, str]

    @property
    def plain(self) -> dict[str, Any]:
        """The facts as plain data."""
        return {key: json.loads(value) for key, value in self.facts.items()}


class Deployed(nn.Module):
    """A network behind its normalisation: images in 0..1 [B, 3, H, W] -> logits [B, C]."""

    mean: Tensor
    std: Tensor

    def __init__(self, export: Export) -> None:
        super().__init__()
        self.model = export.model
        self.register_buffer("mean", torch.tensor(export.description.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(export.description.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Run the network."""
        return self.model((images - self.mean) / self.std)


def load_student(description: Description, state: State, name: str, source: Path) -> nn.Module:
    """The network with its weights, in evaluation mode. Raises KdbenchError where they do not fit."""
    model = models.create(description.arch, description.num_classes, **description.args)
    fill(model, state, name, source)
    return model.eval()


def _safetensors(export: Export, file: Path) -> None:
    save_weights(file, export.state, dict(export.facts))


def _pt(export: Export, file: Path) -> None:
    torch.save({"state_dict": dict(export.state), **export.plain}, file)


def _torchscript(export: Export, file: Path) -> None:
    deployed, images = _traced(export)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated; it stays what many devices load
        script = torch.jit.trace(deployed, images)
        torch.jit.save(script, file, _extra_files={FACTS: json.dumps(export.plain)})
        _check(export, torch.jit.load(file), "TorchScript")


def _pt2(export: Export, file: Path) -> None:
    deployed, images = _traced(export)
    program = torch.export.export(deployed, (images,), dynamic_shapes={IMAGES: {0: ANY}})
    torch.export.save(program, file, extra_files={FACTS: json.dumps(export.plain)})
    _check(export, torch.export.load(file).module(), "torch.export")


def _onnx(export: Export, file: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _need(package)
    onnxruntime = importlib.import_module("onnxruntime")
    deployed, images = _traced(export)
    program = torch.onnx.export(
        deployed,
        (images,),
        dynamo=True,
        input_names=[IMAGES],
        output_names=[LOGITS],
        dynamic_shapes={IMAGES: {0: ANY}},
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(export.facts)
    program.save(file, external_data=False)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    _check(export, lambda x: torch.from_numpy(session.run(None, {IMAGES: x.numpy()})[0]), "ONNX")


def _need(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise KdbenchError(
            f"ONNX needs {package}, which is not here; type `pip install 'kdbench[export]'`"
        ) from error


def _traced(export: Export) -> tuple[nn.Module, Tensor]:
    """The network to be traced, and images to trace it on."""
    return Deployed(export).eval(), random_images(export.model, 2, export.description.size)


@torch.no_grad()
def _check(export: Export, run: Callable[[Tensor], Tensor], what: str) -> None:
    """The graph must give the network's logits, also on another number of images than it was traced on."""
    images = random_images(export.model, 3, export.description.size)
    expected, got = Deployed(export).eval()(images), run(images)
    error = (got - expected).abs().max() / expected.abs().max().clamp(min=1e-6)
    if not error <= TOLERANCE:
        raise KdbenchError(
            f"the {what} graph gives other logits than the network (relative error {error:.2g}); choose another format"
        )


def write(export: Export, file: Path) -> None:
    """Write the student in the form that the suffix of ``file`` says. Raises KdbenchError where it cannot be."""
    try:
        FORMATS[file.suffix](export, file)
    except (KdbenchError, OSError):
        raise
    except Exception as error:  # exporters fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise KdbenchError(
            f"{export.description.arch} cannot be written as {file.suffix}: {reason}; choose another format"
        ) from error


FORMATS: dict[str, Callable[[Export, Path], None]] = {
    ".safetensors": _safetensors,
    ".pt": _pt,
    ".pth": _pt,
    ".onnx": _onnx,
    ".torchscript": _torchscript,
    ".pt2": _pt2,
}
WEIGHTS = (".safetensors", ".pt", ".pth")  # forms that are weights alone, for a network that timm builds
