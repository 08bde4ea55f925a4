"""Inputs whose teachers differ in one respect."""

import torch

from kdbench import models


def tanh_inputs(lab, weights, **changes):
    """Inputs of two suites whose teachers have the same weights and differ in an activation alone."""
    texts = [f'{{ arch = "resnet10t", args = {args} }}' for args in ("{}", '{ act_layer = "tanh" }')]
    before = '{ arch = "resnet8", args = { widths = [8, 8, 8, 16] } }'
    weights.mkdir(exist_ok=True)
    torch.manual_seed(2)
    torch.save(models.create("resnet10t", 4).state_dict(), weights / "teacher.pth")
    return [lab.inputs((before, text), teacher_weights=weights, **changes) for text in texts]
