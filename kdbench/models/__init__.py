"""Build networks by name: those of the KD literature, all of timm's, and what a hub or a folder holds.

``resnet20`` is the literature's network. Where timm has a network of the same name (resnet18, vgg13), ``timm:resnet18``
is timm's; `kdbench.models.naming` has all spellings.

To add a network, write it in a module of `kdbench.models.cifar` as a subclass of `cifar.base.CifarNet`, call
`cifar.base.register` at the end of that module and import the module in `kdbench.models.naming`. It is then known to
`create` by its short name, to suites as ``arch = "..."`` and to timm as ``<name>_cifar``. A network that timm has needs
nothing.
"""

from typing import Any

import timm
from torch import nn

from kdbench.errors import KdbenchError, first_line
from kdbench.models import pretrained
from kdbench.models.cifar.base import ENTRIES
from kdbench.models.flops import count_parameters, macs
from kdbench.models.naming import exists, full_name, meaning, names
from kdbench.models.pretrained import bare
from kdbench.models.wrapper import Network

__all__ = ["ENTRIES", "Network", "bare", "count_parameters", "create", "exists", "full_name", "macs", "names"]


def create(name: str, num_classes: int, **kwargs: Any) -> nn.Module:
    """Build a network with ``num_classes`` outputs.

    ``kwargs`` (``img_size=32``, ``widths=[8, 8, 16, 32]``) are the network's own. A name that names weights
    (``resnet18.a1_in1k``, ``hf-hub:owner/name``, ``local-dir:PATH``) gives the network with them, its head new where
    the number of classes differs; every other weight is drawn from torch's global generator. Raises KdbenchError for an
    unknown name, weights that cannot be had, and arguments that do not fit.
    """
    pretrained.check_args(name, kwargs)
    known = meaning(name)
    if known.weights:
        return pretrained.build(pretrained.read(name, known), num_classes, name, **kwargs)
    try:
        return timm.create_model(known.arch, pretrained=False, num_classes=num_classes, **kwargs)
    except pretrained.BUILDING as error:
        arguments = ", ".join(f"{key}={value!r}" for key, value in kwargs.items()) or "its default arguments"
        raise KdbenchError(f"model {name!r} cannot be built with {arguments}: {first_line(error)}") from error
