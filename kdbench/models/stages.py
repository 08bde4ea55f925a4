"""Find a timm model's resolution stages among its intermediates, and bring its final map to NCHW.

timm's ``feature_info`` lists the modules whose outputs ``forward_intermediates`` returns. The first is the stem
in ResNet, DenseNet or MobileNetV3 but a stage in ConvNeXt, EfficientNet or Swin; the last of VGG is a bare
pooling layer; an isotropic network (ViT, mixer) lists every block.
"""

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

# The first module is a stem when its name begins like this (checked on every family in timm 1.0). Of the plain
# ``features.N`` only those at half resolution are stems: VGG's first block, at full resolution, is not.
STEM = re.compile(r"(stem|act\d|bn\d|conv|layer0|level0|features\.(norm0|conv)|$)", re.IGNORECASE)
HALF_STEM = re.compile(r"features\.[02]$")


def stage_indices(model: nn.Module) -> list[int]:
    """Return the ``indices`` for ``forward_intermediates``: each resolution stage, or four evenly spaced blocks."""
    info = model.feature_info
    entries: Sequence[dict[str, Any]] = info if isinstance(info, list) else info.info  # type: ignore
    reductions = [entry["reduction"] for entry in entries]
    if len(entries) > 4 and len(set(reductions)) == 1:
        return [round(len(entries) * quarter / 4) - 1 for quarter in (1, 2, 3, 4)]
    name = entries[0]["module"]
    stem = bool(STEM.match(name)) or (reductions[0] == 2 and bool(HALF_STEM.match(name)))
    return [
        i
        for i, entry in enumerate(entries)
        if not (i == 0 and stem) and not _is_pooling(model, entry["module"])
    ]


def _is_pooling(model: nn.Module, name: str) -> bool:
    """Whether the module is a bare pooling layer, as VGG's last entry."""
    return isinstance(dict(model.named_modules()).get(name), nn.MaxPool2d | nn.AvgPool2d)


def as_map(final: Tensor, last_stage: Tensor, channels: int) -> Tensor:
    """Bring the head's input to [B, channels, H, W].

    Prefix tokens are dropped, NHWC is transposed and a vector becomes a 1x1 map. ``last_stage`` [B, *, H, W] has
    the grid of the tokens.
    """
    if final.ndim == 2:
        return final[:, :, None, None]
    if final.ndim == 3:
        grid = last_stage.shape[-2:]
        tokens = final[:, final.shape[1] - grid.numel() :]
        return tokens.transpose(1, 2).unflatten(2, grid)
    channels_last = final.shape[1] != channels and final.shape[-1] == channels
    return final.permute(0, 3, 1, 2) if channels_last else final
