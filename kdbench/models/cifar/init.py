"""Initialise weights as the KD literature does where that differs from torch's defaults.

BatchNorm starts at weight 1 and bias 0; linear layers start as in torch unless `small_linear` is called.
"""

import math

from torch import nn


def kaiming(net: nn.Module) -> None:
    """Initialise convolutions by torch's ``kaiming_normal_`` (He et al., arXiv:1502.01852), mode ``fan_out``."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def fan_normal(net: nn.Module) -> None:
    """Initialise convolutions as normal of variance 2 / (kernel area * output channels), and their biases as 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            outputs = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / outputs))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def small_linear(layer: nn.Linear) -> None:
    """Initialise a linear layer as normal of standard deviation 0.01, with bias 0."""
    nn.init.normal_(layer.weight, 0.0, 0.01)
    nn.init.zeros_(layer.bias)
