"""The recipe's schedule: the learning rate of each step, and the epochs after which students are evaluated."""

from __future__ import annotations

import math

from kdbench.suites import Recipe


def learning_rate(recipe: Recipe, epoch: int, step: int, steps: int) -> float:
    """The learning rate of step ``step`` of ``steps`` in epoch ``epoch``, both counted from 0.

    step: lr * decay^(milestones passed), milestones in reference epochs. onecycle: linear from 0 to lr over the share
    ``peak`` of training, then linear to 0. cosine: half a cosine from lr to 0. In the first ``warmup_epochs``
    (reference epochs) linear from 0 to lr, in place of step and cosine.
    """
    done = (epoch + (step + 0.5) / steps) / recipe.epochs
    warmup = recipe.warmup_epochs / recipe.reference_epochs
    if done < warmup:
        return recipe.lr * done / warmup
    if recipe.schedule == "step":
        reference = _reference(recipe, epoch)
        return recipe.lr * recipe.decay ** sum(reference >= milestone for milestone in recipe.milestones)
    if recipe.schedule == "cosine":
        return recipe.lr * (1 + math.cos(math.pi * done)) / 2
    return recipe.lr * min(done / recipe.peak, (1 - done) / (1 - recipe.peak))


def moment(epoch: int, step: int, steps: int, epochs: int, reference_epochs: int) -> tuple[float, float]:
    """`Batch.epoch` and `Batch.progress` of step ``step`` of ``steps`` in epoch ``epoch``, both counted from 0."""
    return (epoch + 1) * reference_epochs / epochs, (epoch + step / steps) / epochs


def evaluates(recipe: Recipe, epoch: int) -> bool:
    """Whether the accuracy is measured after epoch ``epoch``, counted from 0.

    It is after every ``eval_every`` epochs, and after each epoch that follows the last milestone: published best epochs
    are among those, so that ours can be compared with them.
    """
    late = recipe.schedule == "step" and recipe.milestones
    return (epoch + 1) % recipe.eval_every == 0 or bool(
        late and _reference(recipe, epoch) >= recipe.milestones[-1]
    )


def _reference(recipe: Recipe, epoch: int) -> float:
    """Reference epochs that are done before ``epoch``."""
    return epoch * recipe.reference_epochs / recipe.epochs
