"""Base class and registration of the KD literature's networks: timm's model interface over ``forward_stages``.

The networks are registered in timm as ``<literature name>_cifar``, since timm has a resnet18 and a vgg13 of its own
and a second registration of a name would replace the first. B = images in a batch.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from kdbench.errors import KdbenchError

Maps = tuple[Tensor, ...]

ENTRIES: dict[str, str] = {}  # short name -> the name in timm's registry

# timm reads a model's default configuration from a variable of this name in the entry point's module.
default_cfgs: dict[str, Any] = {}

CIFAR100_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR100_STD = (0.2675, 0.2565, 0.2761)


class CifarNet(nn.Module):
    """Base class of the literature's networks, with timm's model interface.

    A subclass defines ``forward_stages`` and ``stage_norms``, and ``final_map`` where the head does not pool the last
    stage. ``classifier_name`` is the path of the last linear layer, as the literature's checkpoints name it.
    ``feature_info`` has one entry per stage, without the stem, in the order of ``forward_intermediates``.
    """

    classifier_name = "fc"

    def __init__(self, num_classes: int, num_features: int, feature_info: list[dict[str, Any]]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = num_features
        self.feature_info = feature_info

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        """Return each stage's map, and the same before its last ReLU, of normalised images [B, 3, H, W]; no stem."""
        raise NotImplementedError

    def stage_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Return each stage's last BatchNorm; None where it does not span the stage's channels."""
        raise NotImplementedError

    def final_map(self, stages: Maps, preacts: Maps) -> Tensor:
        """Return the map that the head pools: the last stage's unless a subclass has more layers."""
        return stages[-1]

    def init_classifier(self, layer: nn.Linear) -> None:
        """Initialise the last layer as the literature does: as torch does unless a subclass overrides this."""

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the map that the head pools, of normalised images [B, 3, H, W]."""
        return self.final_map(*self.forward_stages(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return (the map that the head pools, the stages at ``indices``), as timm's models do.

        All stages are computed, whatever ``stop_early`` says. Raises ValueError for another format than NCHW.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, got {output_fmt!r}")
        stages, preacts = self.forward_stages(x)
        selected = [stages[i] for i in feature_take_indices(len(stages), indices)[0]]
        return selected if intermediates_only else (self.final_map(stages, preacts), selected)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the map ``x`` -> embedding [B, num_features] with ``pre_logits``, else logits [B, num_classes]."""
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, num_classes] of normalised images [B, 3, H, W]."""
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer; with 0 classes it becomes an identity.

        Raises ValueError for another ``global_pool`` than the average.
        """
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool must be avg, got {global_pool!r}")
        parameter = next(self.parameters())
        self.num_classes = num_classes
        layer: nn.Module = nn.Identity()
        if num_classes > 0:
            layer = nn.Linear(self.num_features, num_classes).to(parameter.device, parameter.dtype)
            self.init_classifier(layer)
        parent, _, leaf = self.classifier_name.rpartition(".")
        setattr(self.get_submodule(parent), leaf, layer)


def run_stage(blocks: Iterable[Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """Run blocks that define ``preact``, each followed by a ReLU -> (the stage's map, the map before its last ReLU)."""
    *inner, last = blocks
    for block in inner:
        x = F.relu(block.preact(x), inplace=True)
    before = last.preact(x)
    return F.relu(before), before


def run_stages(stages: Iterable[Iterable[Any]], x: Tensor) -> tuple[Maps, Maps]:
    """Run stages one after the other by `run_stage` -> (each stage's map, the same before its last ReLU)."""
    maps, preacts = [], []
    for blocks in stages:
        x, before = run_stage(blocks, x)
        maps.append(x)
        preacts.append(before)
    return tuple(maps), tuple(preacts)


def info(module: str, channels: int, reduction: int) -> dict[str, Any]:
    """Build one entry of timm's ``feature_info``: the stage's module, channels and reduction of the image size."""
    return {"num_chs": channels, "reduction": reduction, "module": module}


def register(
    name: str, net: Callable[..., nn.Module], classifier: str, stages: int = 3, **defaults: Any
) -> None:
    """Register ``net(**defaults)`` in timm as ``<name>_cifar`` and in kdbench as ``name``.

    ``classifier`` is the path of the last layer, ``stages`` the number of stages. Raises KdbenchError when timm has
    that name, which would otherwise be replaced silently.
    """
    full = f"{name}_cifar"
    if is_model(full):
        raise KdbenchError(f"timm already has a model {full!r}")

    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        features = {"out_indices": tuple(range(stages)), "feature_cls": "getter"}
        return build_model_with_cfg(net, full, pretrained, feature_cfg=features, **{**defaults, **kwargs})

    entry.__name__ = entry.__qualname__ = full
    entry.__doc__ = f"{name} of the KD literature, for 32 x 32 images."
    default_cfgs.update(generate_default_cfgs({full: _cfg(classifier)}))
    register_model(entry)
    ENTRIES[name] = full


def _cfg(classifier: str) -> dict[str, Any]:
    """Build timm's default configuration: CIFAR-100's statistics at 32 px."""
    return {
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "mean": CIFAR100_MEAN,
        "std": CIFAR100_STD,
        "crop_pct": 1.0,
        "first_conv": "conv1",
        "classifier": classifier,
    }


def check_widths(widths: Sequence[int], count: int, what: str) -> tuple[int, ...]:
    """Return ``widths`` as a tuple. Raises ValueError unless they are ``count`` positive ints, which ``what`` names."""
    if len(widths) != count or any(type(w) is not int or w < 1 for w in widths):
        raise ValueError(f"widths takes {count} positive integers ({what}), got {list(widths)!r}")
    return tuple(widths)
