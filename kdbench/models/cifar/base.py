"""What every network of the KD literature shares: timm's model interface over one ``forward_stages``.

The networks are registered in timm as ``<literature name>_cifar``: timm has a resnet18 and a vgg13 of its own
and registering a taken name overwrites it. B images in a batch.
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

# timm reads a model's default configuration from this name in the entry point's module.
default_cfgs: dict[str, Any] = {}

CIFAR100_MEAN = (0.5071, 0.4867, 0.4408)
CIFAR100_STD = (0.2675, 0.2565, 0.2761)


class CifarNet(nn.Module):
    """A network of the literature. A subclass defines ``forward_stages`` and ``stage_norms``, and
    ``final_map`` where the head does not pool the last stage.

    ``classifier_name`` is the place of the last linear layer, as the literature's checkpoints name it.
    ``feature_info`` holds one entry a stage, stem excluded, as ``forward_intermediates`` yields them.
    """

    classifier_name = "fc"

    def __init__(self, num_classes: int, num_features: int, feature_info: list[dict[str, Any]]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = num_features
        self.feature_info = feature_info

    def forward_stages(self, x: Tensor) -> tuple[Maps, Maps]:
        """Normalised images [B, 3, H, W] -> (each stage's map, the same before its last ReLU), no stem."""
        raise NotImplementedError

    def stage_norms(self) -> tuple[nn.BatchNorm2d | None, ...]:
        """Each stage's last BatchNorm; None where it does not span the stage's channels."""
        raise NotImplementedError

    def final_map(self, stages: Maps, preacts: Maps) -> Tensor:
        """The map that the head pools."""
        return stages[-1]

    def init_classifier(self, layer: nn.Linear) -> None:
        """The literature's initialisation of the last layer; torch's own unless a subclass has another."""

    def forward_features(self, x: Tensor) -> Tensor:
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
        """timm's interface: (the map that the head pools, the stages at ``indices``). Computes all stages."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, got {output_fmt!r}")
        stages, preacts = self.forward_stages(x)
        taken = [stages[i] for i in feature_take_indices(len(stages), indices)[0]]
        return taken if intermediates_only else (self.final_map(stages, preacts), taken)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The pooled map -> embedding [B, num_features] (``pre_logits``) or logits [B, num_classes]."""
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return x if pre_logits else self.get_classifier()(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.get_submodule(self.classifier_name)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer; 0 classes make it an identity. Pooling is always the average."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool must be avg, got {global_pool!r}")
        where = next(self.parameters())
        self.num_classes = num_classes
        layer: nn.Module = nn.Identity()
        if num_classes > 0:
            layer = nn.Linear(self.num_features, num_classes).to(where.device, where.dtype)
            self.init_classifier(layer)
        parent, _, leaf = self.classifier_name.rpartition(".")
        setattr(self.get_submodule(parent), leaf, layer)


def run_stage(blocks: Iterable[Any], x: Tensor) -> tuple[Tensor, Tensor]:
    """A stage whose blocks end in a ReLU and define ``preact`` -> (its map, the map before the last ReLU)."""
    *inner, last = blocks
    for block in inner:
        x = F.relu(block.preact(x), inplace=True)
    before = last.preact(x)
    return F.relu(before), before


def info(module: str, channels: int, reduction: int) -> dict[str, Any]:
    """One entry of timm's ``feature_info``."""
    return {"num_chs": channels, "reduction": reduction, "module": module}


def register(
    name: str, net: Callable[..., nn.Module], classifier: str, stages: int = 3, **defaults: Any
) -> None:
    """Add ``net(**defaults)`` to timm's registry as ``<name>_cifar`` and to ours as ``name``.

    Raises KdbenchError when timm already has that name: it would be silently replaced.
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
    """timm's default configuration: CIFAR-100's statistics at 32 px."""
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
    """``widths`` as a tuple of ``count`` positive ints; raises ValueError naming ``what`` they are."""
    if len(widths) != count or any(type(w) is not int or w < 1 for w in widths):
        raise ValueError(f"widths takes {count} positive integers ({what}), got {list(widths)!r}")
    return tuple(widths)
