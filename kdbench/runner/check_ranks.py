"""Before anything is trained: whether several ranks give the number that one process gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kdbench import models
from kdbench.errors import KdbenchError
from kdbench.models.flops import random_images
from kdbench.plan.selection import Selection
from kdbench.runner.options import AUTO, RunOptions
from kdbench.suites import Recipe, Suite, recipe_of


def check_ranks(selection: Selection, options: RunOptions, devices: Sequence[str]) -> None:
    """Raise KdbenchError for what ranks cannot share, and where there are more of them than GPUs.

    devices: this process's own; those of a cluster's nodes are not known here.
    """
    if options.ranks == 1:
        return
    if options.graphs:
        raise KdbenchError(
            "a CUDA graph cannot hold what ranks exchange in a step; leave out --graphs or --ranks"
        )
    own = options.executor not in ("slurm", "ray") and devices[0].startswith("cuda")
    gpus = torch.cuda.device_count()
    if own and options.ranks != AUTO and int(options.ranks) > gpus:
        raise KdbenchError(
            f"{options.ranks} ranks need as many GPUs, and there are {gpus}; give fewer --ranks"
        )
    suite = selection.suite
    for pair in selection.pairs:
        _check_recipe(recipe_of(suite, pair), options.ranks)
    for student in dict.fromkeys(pair.student for pair in selection.pairs):
        if _draws(suite, student):
            raise KdbenchError(
                f"the student {student} draws random numbers (dropout ...), which ranks cannot draw as one process "
                "does; leave out --ranks or that student"
            )


def _check_recipe(recipe: Recipe, ranks: int | str) -> None:
    if recipe.mixup:
        raise KdbenchError(
            "mixup blends images that different ranks have; leave out --ranks or the recipe's mixup"
        )
    if ranks != AUTO and recipe.batch_size < 2 * int(ranks):
        raise KdbenchError(
            f"{ranks} ranks cannot share a batch of {recipe.batch_size} images: each needs two; give fewer --ranks"
        )


def _draws(suite: Suite, name: str) -> bool:
    """Whether a forward pass of the network in training draws from torch's global generator."""
    spec = suite.model(name)
    with torch.random.fork_rng([]), torch.no_grad():
        net = models.create(spec.arch, suite.dataset.classes, **spec.args).train()
        images = random_images(net, 2, suite.dataset.size)
        before = torch.get_rng_state()
        net(images)
        return not torch.equal(before, torch.get_rng_state())
