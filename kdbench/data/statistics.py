"""Statistics of images, for normalising them."""

import torch
from torch import Tensor

DIGITS = 4  # of a mean or std in a recipe: as the literature writes them, and equal on every machine
CHUNK = 1000  # images counted at a time

Channels = tuple[float, ...]


def mean_std(images: Tensor) -> tuple[Channels, Channels]:
    """Mean and standard deviation of each channel over all pixels of ``images`` (uint8 [N, H, W, 3]), in 0..1.

    Counted in whole numbers, so that no order of summing matters, and rounded.
    """
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for chunk in images.split(CHUNK):
        for channel in range(3):
            counts[channel] += torch.bincount(chunk[..., channel].flatten(), minlength=256)
    values = torch.arange(256)
    mean, std = [], []
    for row in counts:
        number, total, squares = (int((row * values**power).sum()) for power in (0, 1, 2))
        mean.append(round(total / number / 255, DIGITS))
        std.append(round((number * squares - total**2) ** 0.5 / number / 255, DIGITS))
    return tuple(mean), tuple(std)
