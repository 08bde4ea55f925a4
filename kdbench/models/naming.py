"""Which network a name means: kdbench's or timm's, and where its weights are if it names any.

| name | network |
|---|---|
| ``cifar:resnet18`` | kdbench's, of the KD literature |
| ``timm:resnet18``, ``timm/resnet18`` | timm's |
| ``resnet18`` | kdbench's where it has one, else timm's |
| ``resnet18.a1_in1k``, ``timm:resnet18.a1_in1k`` | timm's with the weights of that tag |
| ``hf-hub:owner/name``, ``hf-hub:owner/name@revision`` | what that repository of the hub holds |
| ``local-dir:PATH`` | what that folder holds: config.json and model.safetensors, as timm writes them |
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from huggingface_hub.errors import LocalEntryNotFoundError
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path

from kdbench.errors import KdbenchError, first_line, unknown
from kdbench.models.cifar import (  # noqa: F401  (importing a module registers its networks)
    mobilenetv2,
    resnet,
    resnet_wide,
    shufflenetv1,
    shufflenetv2,
    vgg,
    wrn,
)
from kdbench.models.cifar.base import ENTRIES

CIFAR, TIMM, HUB, FOLDER = "cifar:", "timm:", "hf-hub:", "local-dir:"
OLD_TIMM = "timm/"
NO_HUB = "the hub cannot be reached, and this machine has no copy"
SAVED_ARGS = ("num_classes", "in_chans")  # of a configuration, that follow from the suite


@dataclass(frozen=True)
class Meaning:
    """A network: its name in timm's registry, the arguments it is built with, and the name of its weights for timm.

    weights: empty where the name names none.
    """

    arch: str
    args: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""


def names() -> list[str]:
    """List every short name: kdbench's, then timm's, with the prefix ``timm/`` where both have one."""
    own = set(ENTRIES.values())
    others = [name for name in timm.list_models() if name not in own]
    return [*ENTRIES, *(f"{OLD_TIMM}{name}" if name in ENTRIES else name for name in others)]


def full_name(name: str) -> str:
    """Return the name in timm's registry of a network, with its tag: equal for equal networks."""
    for prefix in (TIMM, OLD_TIMM):
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    short = name.removeprefix(CIFAR)
    return ENTRIES.get(short, short)


def short_name(full: str) -> str:
    """Return the short name of a network of timm's registry: the inverse of `full_name`."""
    own = {entry: name for name, entry in ENTRIES.items()}
    return own.get(full, f"{OLD_TIMM}{full}" if full in ENTRIES else full)


def has_source(name: str) -> bool:
    """Return whether the network is what a hub or a folder holds."""
    return name.startswith((HUB, FOLDER))


def names_weights(name: str) -> bool:
    """Return whether the name names weights: a tag of timm's, a hub or a folder."""
    return has_source(name) or "." in full_name(name)


def which(name: str) -> str:
    """Return in words which of two networks a name means, where kdbench and timm both have one; '' elsewhere."""
    if name in ENTRIES and timm.is_model(name):
        return f"kdbench's network for small images ({CIFAR}{name}); timm's is {TIMM}{name}"
    if name.startswith((TIMM, OLD_TIMM)) and full_name(name) in ENTRIES:
        return f"timm's network; kdbench's for small images is {CIFAR}{full_name(name)}"
    return ""


def exists(name: str) -> bool:
    """Return whether the name is one of a network; what a hub or a folder holds is not looked at."""
    if name.startswith(CIFAR):
        return name.removeprefix(CIFAR) in ENTRIES
    return has_source(name) or timm.is_model(full_name(name))


def meaning(name: str) -> Meaning:
    """Find out which network a name means; of a hub's the configuration is downloaded.

    Raises KdbenchError for an unknown network or tag, and for a hub or folder that cannot be read.
    """
    if has_source(name):
        return _from_source(name)
    if not exists(name):
        raise _unknown(name)
    arch, _, tag = full_name(name).partition(".")
    if not tag:
        return Meaning(arch)
    if not timm.is_model_pretrained(f"{arch}.{tag}"):
        tags = [each.partition(".")[2] for each in timm.list_pretrained(arch)]
        raise unknown("weights", tag, tags, f" of {short_name(arch)} (model {name!r})")
    return Meaning(arch, {}, f"{arch}.{tag}")


def _unknown(name: str) -> KdbenchError:
    if name.startswith(CIFAR):
        return unknown("model", name, [f"{CIFAR}{own}" for own in ENTRIES], " (not among kdbench's own)")
    near = difflib.get_close_matches(name, names(), n=1)
    return unknown("model", name, names() if near else ENTRIES, " (neither kdbench's nor timm's)")


def _from_source(name: str) -> Meaning:
    prefix, place = (HUB, name.removeprefix(HUB)) if name.startswith(HUB) else (FOLDER, _folder(name))
    with reading(name):
        read = load_model_config_from_hf if prefix == HUB else load_model_config_from_path
        _, arch, args = read(place)
    if not timm.is_model(arch):
        raise KdbenchError(f"{name} is a network {arch!r}, which timm does not have")
    channels = args.get("in_chans", 3)
    if channels != 3:
        raise KdbenchError(f"{name} takes images of {channels} channels; kdbench's have 3")
    kept = {key: value for key, value in args.items() if key not in SAVED_ARGS and value is not None}
    return Meaning(arch, kept, f"{prefix}{place}")


def _folder(name: str) -> str:
    folder = Path(name.removeprefix(FOLDER)).expanduser()
    if not (folder / "config.json").is_file():
        raise KdbenchError(
            f"{name}: there is no {folder / 'config.json'}; the folder must hold config.json and model.safetensors, as "
            "`kdbench export CELL FOLDER/` and timm.models.save_for_hf write them"
        )
    return str(folder)


@contextlib.contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise KdbenchError, with the remedy, where the block cannot read what ``name`` names."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it says each of its five tries
    try:
        yield
    except Exception as error:  # a hub that cannot be reached fails in many ways, a damaged file in others
        reason = NO_HUB if isinstance(error, LocalEntryNotFoundError) else first_line(error).rstrip(".:")
        remedy = "look at its config.json and model.safetensors"
        if not name.startswith(FOLDER):
            remedy = (
                "go online, or copy its config.json and model.safetensors into a folder and write "
                f"{FOLDER}FOLDER in place of {name}"
            )
        raise KdbenchError(f"{name} could not be loaded: {reason}; {remedy}") from error
    finally:
        logger.setLevel(level)
