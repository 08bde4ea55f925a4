"""The models: the KD literature's own networks first, then all of timm's.

``resnet20`` is the literature's (registered in timm as ``resnet20_cifar``). Where timm has a network of the
same name, as for resnet18 or vgg13, ``timm/resnet18`` is timm's.
"""

import difflib
from typing import Any

import timm
from torch import nn

from kdbench.errors import KdbenchError, unknown
from kdbench.models.cifar import (  # noqa: F401  (each registers its networks)
    mobilenetv2,
    resnet,
    resnet_wide,
    shufflenetv1,
    shufflenetv2,
    vgg,
    wrn,
)
from kdbench.models.cifar.base import ENTRIES
from kdbench.models.flops import count_parameters, macs
from kdbench.models.wrapper import Net

__all__ = ["Net", "count_parameters", "create", "full_name", "macs", "names"]

# Arguments that would fetch weights or return something that is no classifier.
FORBIDDEN = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
)


def names() -> list[str]:
    """Every name that `create` knows: ours, then timm's, those that ours shadow with the prefix ``timm/``."""
    own = set(ENTRIES.values())
    others = [name for name in timm.list_models() if name not in own]
    return [*ENTRIES, *(f"timm/{name}" if name in ENTRIES else name for name in others)]


def full_name(name: str) -> str:
    """The name in timm's registry of what `create` calls ``name``; networks are equal where it is."""
    return ENTRIES.get(name, name.removeprefix("timm/"))


def create(name: str, num_classes: int, **kwargs: Any) -> nn.Module:
    """An untrained network with ``num_classes`` outputs; ``kwargs`` (``img_size=32``, ``widths=[8, 8, 16,
    32]``) go to it. Weights are drawn from torch's global generator and never downloaded.

    Raises KdbenchError for an unknown name and for arguments that the network does not take.
    """
    if wrong := [key for key in FORBIDDEN if key in kwargs]:
        raise KdbenchError(
            f"model {name!r} takes no {wrong[0]!r}: kdbench trains or imports its weights itself"
        )
    full = full_name(name)
    if not timm.is_model(full):
        near = difflib.get_close_matches(name, names(), n=1)
        raise unknown("model", name, names() if near else ENTRIES, " (neither kdbench's nor timm's)")
    try:
        return timm.create_model(full, pretrained=False, num_classes=num_classes, **kwargs)
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError) as error:
        asked = ", ".join(f"{key}={value!r}" for key, value in kwargs.items()) or "its default arguments"
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise KdbenchError(f"model {name!r} cannot be built with {asked}: {reason}") from error
