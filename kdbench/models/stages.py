"""Where a timm model's resolution stages are among its intermediates, and its final map as NCHW.

timm's ``feature_info`` lists the places that ``forward_intermediates`` yields. The first is the stem in
ResNet, DenseNet or MobileNetV3 but a stage in ConvNeXt, EfficientNet or Swin; the last of VGG is a bare
pooling layer; an isotropic network (ViT, mixer) lists every block.
"""

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

# The first place is a stem when its name begins like this (read off every family in timm 1.0). Of the plain
# ``features.N`` only those at half resolution are stems: VGG's first block, at full resolution, is not.
STEM = re.compile(r"(stem|act\d|bn\d|conv|layer0|level0|features\.(norm0|conv)|$)", re.IGNORECASE)
HALF_STEM = re.compile(r"features\.[02]$")


def stage_indices(model: nn.Module) -> list[int]:
    """The indices to ask of ``forward_intermediates``: every resolution stage, or four even blocks."""
    found = model.feature_info
    places: Sequence[dict[str, Any]] = found if isinstance(found, list) else found.info  # type: ignore
    reductions = [place["reduction"] for place in places]
    if len(places) > 4 and len(set(reductions)) == 1:
        return [round(len(places) * quarter / 4) - 1 for quarter in (1, 2, 3, 4)]
    name = places[0]["module"]
    stem = bool(STEM.match(name)) or (reductions[0] == 2 and bool(HALF_STEM.match(name)))
    return [
        i for i, place in enumerate(places) if not (i == 0 and stem) and not _pools(model, place["module"])
    ]


def _pools(model: nn.Module, place: str) -> bool:
    """Whether the place is a pooling layer alone, as VGG's last."""
    return isinstance(dict(model.named_modules()).get(place), nn.MaxPool2d | nn.AvgPool2d)


def as_map(final: Tensor, last_stage: Tensor, channels: int) -> Tensor:
    """What the head is given -> [B, channels, H, W]: tokens lose their prefix, NHWC turns, vectors are 1x1.

    ``last_stage`` [B, *, H, W] tells the tokens' grid.
    """
    if final.ndim == 2:
        return final[:, :, None, None]
    if final.ndim == 3:
        grid = last_stage.shape[-2:]
        tokens = final[:, final.shape[1] - grid.numel() :]
        return tokens.transpose(1, 2).unflatten(2, grid)
    turned = final.shape[1] != channels and final.shape[-1] == channels
    return final.permute(0, 3, 1, 2) if turned else final
