"""Build networks by name: those of the KD literature and all of timm's.

``resnet20`` is the literature's network. Where timm has a network of the same name (resnet18, vgg13),
``timm/resnet18`` is timm's.

To add a network, write it in a module of `kdbench.models.cifar` as a subclass of `cifar.base.CifarNet`, call
`cifar.base.register` at the end of that module and import the module below. It is then known to `create` by its
short name, to suites as ``arch = "..."`` and to timm as ``<name>_cifar``. A network that timm has needs nothing.
"""

import difflib
from typing import Any

import timm
from torch import nn

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
from kdbench.models.flops import count_parameters, macs
from kdbench.models.wrapper import Network

__all__ = ["Network", "count_parameters", "create", "exists", "full_name", "macs", "names"]

# Arguments that would download weights or return something other than a classifier.
FORBIDDEN = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
)


def names() -> list[str]:
    """List every name that `create` accepts: kdbench's, then timm's, with the prefix ``timm/`` where both have one."""
    own = set(ENTRIES.values())
    others = [name for name in timm.list_models() if name not in own]
    return [*ENTRIES, *(f"timm/{name}" if name in ENTRIES else name for name in others)]


def full_name(name: str) -> str:
    """Return the name in timm's registry of the network that `create` calls ``name``: equal for equal networks."""
    return ENTRIES.get(name, name.removeprefix("timm/"))


def exists(name: str) -> bool:
    """Return whether `create` knows the name."""
    return timm.is_model(full_name(name))


def create(name: str, num_classes: int, **kwargs: Any) -> nn.Module:
    """Build an untrained network with ``num_classes`` outputs.

    ``kwargs`` (``img_size=32``, ``widths=[8, 8, 16, 32]``) are the network's own. Weights are drawn from torch's global
    generator and never downloaded. Raises KdbenchError for an unknown name, a name with a tag of weights and for
    arguments that do not fit.
    """
    if forbidden := [key for key in FORBIDDEN if key in kwargs]:
        raise KdbenchError(
            f"model {name!r} takes no {forbidden[0]!r}: kdbench trains or imports its weights itself"
        )
    full = full_name(name)
    bare, _, tag = full.partition(".")
    if tag and timm.is_model(bare):
        raise KdbenchError(
            f"model {name!r} names the weights {tag!r}, which it would not load; write {name.partition('.')[0]!r}, and "
            "get a teacher's weights by `pretrained` in [teachers] of the suite or by `kdbench teachers import FILE`"
        )
    if not exists(name):
        near = difflib.get_close_matches(name, names(), n=1)
        raise unknown("model", name, names() if near else ENTRIES, " (neither kdbench's nor timm's)")
    try:
        return timm.create_model(full, pretrained=False, num_classes=num_classes, **kwargs)
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError) as error:
        arguments = ", ".join(f"{key}={value!r}" for key, value in kwargs.items()) or "its default arguments"
        raise KdbenchError(f"model {name!r} cannot be built with {arguments}: {first_line(error)}") from error
