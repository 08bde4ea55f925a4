"""Pretrained weights: read once by timm, saved in one file beside the results, and built into a network from there.

The file holds the state dict of the network with its own head, and in its header what timm knows of the weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import timm
from torch import Tensor, nn

from kdbench.errors import KdbenchError, first_line
from kdbench.models.naming import FOLDER, Meaning, meaning, names_weights, reading, short_name
from kdbench.suites import ModelSpec
from kdbench.suites.schema import Weights
from kdbench.utils import hashing
from kdbench.utils.files import file_stem
from kdbench.utils.state_dicts import load_weights, save_weights, weights_digest

BUILDING = (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError)
# Of what timm knows of weights, where they come from and what is done with them already on reading.
DONE = ("url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict", "custom_load", "label_offset")
# Arguments that would download other weights or return something other than a classifier.
FORBIDDEN = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
)


@dataclass(frozen=True)
class Pretrained:
    """Weights in memory.

    arch: the network's name in timm's registry. args: with which it is built. facts: what timm knows of the weights
    (`timm.models.PretrainedCfg`). state: the state dict, with the head of these weights.
    """

    arch: str
    args: Mapping[str, Any]
    facts: Mapping[str, Any]
    state: Mapping[str, Tensor]


def folder(work: Path) -> Path:
    """Return the folder of the files of weights."""
    return work / "pretrained"


def check_args(name: str, args: Mapping[str, Any]) -> None:
    """Raise KdbenchError for an argument that no network takes."""
    if forbidden := [key for key in FORBIDDEN if key in args]:
        raise KdbenchError(
            f"model {name!r} takes no {forbidden[0]!r}; weights are part of a name, such as 'resnet18.a1_in1k'"
        )


def read(name: str, known: Meaning) -> Pretrained:
    """Have timm load the weights that ``name`` names, as `naming.meaning` found out. Raises KdbenchError."""
    with reading(name):
        model: Any = timm.create_model(known.weights, pretrained=True)
    facts = {key: value for key, value in model.pretrained_cfg.items() if key not in DONE}
    return Pretrained(known.arch, known.args, facts, model.state_dict())


def build(weights: Pretrained, classes: int, name: str, **args: Any) -> nn.Module:
    """Build the network and load the weights; a head of another number of classes is new, from torch's generator.

    Raises KdbenchError where ``args`` change the network so that the weights do not fit or are not all.
    """
    check_args(name, args)
    state = dict(weights.state)
    facts = {**weights.facts, "state_dict": state}
    try:
        model: Any = timm.create_model(
            weights.arch,
            pretrained=True,
            pretrained_cfg=facts,
            num_classes=classes,
            **{**weights.args, **args},
        )
    except BUILDING as error:
        reason = " ".join(str(error).split())[:200] or first_line(error)
        raise KdbenchError(
            f"the weights of {name} do not fit the network that they name: {reason}"
        ) from error
    if lacking := [
        key for key in model.state_dict() if key not in weights.state and not _of_head(key, weights)
    ]:
        raise KdbenchError(
            f"the weights of {name} are not all of the network: they lack {', '.join(lacking[:3])}; leave out args "
            "that change it"
        )
    model.pretrained_cfg = model.default_cfg = {key: v for key, v in facts.items() if key != "state_dict"}
    return model


def _of_head(key: str, weights: Pretrained) -> bool:
    heads = weights.facts.get("classifier") or ()
    return key.startswith(tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads)))


def bare(spec: ModelSpec) -> ModelSpec:
    """Return the network that ``spec`` names, with random weights whatever it says of weights."""
    if not names_weights(spec.arch):
        return spec if spec.weights is None else ModelSpec(spec.arch, spec.args)
    known = meaning(spec.arch)
    return ModelSpec(short_name(known.arch), {**known.args, **spec.args})


def obtain(spec: ModelSpec, place: Path, say: Callable[[str], object]) -> ModelSpec:
    """Return the network that ``spec`` names with weights that are here: in a file of the folder ``place``.

    What is not here yet is downloaded once; a local folder is read again, as it may have changed. Raises KdbenchError
    where the weights cannot be had.
    """
    file = _local(spec.arch, place) if spec.arch.startswith(FOLDER) else _fetched(spec.arch, place, say)
    arch, args, facts, digest = _header(file)
    weights = Weights(
        source=spec.arch,
        id=digest,
        file=file.relative_to(place).as_posix(),
        classes=facts["num_classes"],
        size=facts["input_size"][-1],
        mean=tuple(facts["mean"]),
        std=tuple(facts["std"]),
        license=facts.get("license") or "",
    )
    return ModelSpec(short_name(arch), {**args, **spec.args}, weights)


def _local(name: str, place: Path) -> Path:
    """The file of a folder as it is now."""
    content = read(name, meaning(name))
    file = place / f"{file_stem(name)}-{hashing.digest(_header_of(content))}.safetensors"
    if not file.is_file():
        _save(content, file)
    return file


def _fetched(name: str, place: Path, say: Callable[[str], object]) -> Path:
    file = place / f"{file_stem(name)}.safetensors"
    if not file.is_file():
        known = meaning(name)
        say(f"fetching the weights {name}")
        _save(read(name, known), file)
    return file


def load(spec: ModelSpec, classes: int, place: Path) -> nn.Module:
    """Build the network that `obtain` returned, from the file in the folder ``place``.

    Raises KdbenchError where the file is gone or changed.
    """
    weights = spec.weights
    assert weights is not None, f"{spec.arch} names no weights"
    file = place / weights.file
    if not file.is_file():
        raise KdbenchError(f"{file} with the weights {weights.source} is gone; run again to read them anew")
    arch, args, facts, _ = _header(file)
    state = load_weights(file)
    if weights_digest(state) != weights.id:
        raise KdbenchError(f"{file} changed while it was in use; remove it and run again")
    return build(Pretrained(arch, args, facts, state), classes, weights.source, **spec.args)


def _header_of(weights: Pretrained) -> dict[str, Any]:
    return {
        "arch": weights.arch,
        "args": dict(weights.args),
        "facts": dict(weights.facts),
        "id": weights_digest(weights.state),
    }


def _save(weights: Pretrained, file: Path) -> None:
    header = _header_of(weights)
    try:
        save_weights(file, weights.state, {key: json.dumps(value) for key, value in header.items()})
    except OSError as error:
        raise KdbenchError(
            f"cannot write {file} ({error.strerror}); free some space and run again"
        ) from error


def _header(file: Path) -> tuple[str, dict[str, Any], dict[str, Any], str]:
    try:
        with safetensors.safe_open(file, "pt") as opened:
            header = {key: json.loads(value) for key, value in opened.metadata().items()}
        return header["arch"], header["args"], header["facts"], header["id"]
    except Exception as error:  # a damaged file may fail in any way
        raise KdbenchError(f"{file} is damaged ({first_line(error)}); remove it and run again") from error
