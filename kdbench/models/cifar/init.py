"""The two initialisations of the KD literature that differ from torch's defaults.

BatchNorm starts at weight 1 and bias 0 and a linear layer as torch has it unless said otherwise.
"""

import math

from torch import nn


def kaiming(net: nn.Module) -> None:
    """Convolutions from He et al. (arXiv:1502.01852): normal of variance 2 / (kernel area * outputs)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def fan_normal(net: nn.Module) -> None:
    """As `kaiming` but without the division of the outputs by the groups: smaller in depth-wise convolutions.
    Biases of convolutions are 0.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            outputs = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / outputs))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def small_linear(layer: nn.Linear) -> None:
    """Normal of standard deviation 0.01, bias 0."""
    nn.init.normal_(layer.weight, 0.0, 0.01)
    nn.init.zeros_(layer.bias)
