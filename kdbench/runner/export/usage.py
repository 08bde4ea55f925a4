"""The lines of Python that load an exported student."""

from __future__ import annotations

from pathlib import Path

from kdbench import models
from kdbench.models.cifar.base import ENTRIES
from kdbench.models.naming import has_source
from kdbench.runner.export.facts import Description

OWN = "import kdbench.models  # registers the network with timm; .onnx, .torchscript and .pt2 run without kdbench"


def usage(student: Description, file: str) -> str:
    """Code that gives ``logits`` of ``images``; ``file``: as it is named in it, a path or what timm loads."""
    graph = None if has_source(file) else _GRAPHS.get(Path(file).suffix)
    if graph:
        shape = f"images [B, 3, {student.size}, {student.size}] in 0..1, float32, normalised by the graph"
        return f"{graph.format(file=repr(file))}  # {shape}"
    return "\n".join(_with_timm(student, file))


def _with_timm(student: Description, file: str) -> list[str]:
    suffix = "" if has_source(file) else Path(file).suffix
    args = "".join(f", {key}={value!r}" for key, value in student.args.items())
    lines = ["import timm, torch"]
    if student.arch in ENTRIES:
        lines.append(OWN)
    if suffix == ".safetensors":
        lines.append("from safetensors.torch import load_file")
    lines.append("")
    if suffix:
        load = f"load_file({file!r})" if suffix == ".safetensors" else f'torch.load({file!r})["state_dict"]'
        arch = models.full_name(student.arch)
        lines += [
            f"model = timm.create_model({arch!r}, num_classes={student.num_classes}{args}).eval()",
            f"model.load_state_dict({load})",
        ]
    else:
        lines.append(f"model = timm.create_model({file!r}, pretrained=True).eval()")
    return [
        *lines,
        f"mean, std = (torch.tensor(v).view(3, 1, 1) for v in ({list(student.mean)}, {list(student.std)}))",
        f"logits = model((images - mean) / std)  # images [B, 3, {student.size}, {student.size}] in 0..1",
    ]


_GRAPHS = {
    ".onnx": """import onnxruntime

session = onnxruntime.InferenceSession({file})
(logits,) = session.run(None, {{"images": images.numpy()}})""",
    ".torchscript": """import torch

model = torch.jit.load({file})
logits = model(images)""",
    ".pt2": """import torch

model = torch.export.load({file}).module()
logits = model(images)""",
}
