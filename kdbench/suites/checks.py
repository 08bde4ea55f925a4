"""What values of a suite must be beyond their types: numbers in their ranges, keys that fit each other."""

from __future__ import annotations

from kdbench.errors import KdbenchError
from kdbench.suites.schema import SGD, DataSpec, Recipe


def check_data(data: DataSpec, where: str) -> None:
    """Raises KdbenchError, which begins with ``where``, for a data set that cannot be."""
    if not (len(data.mean) in (0, 3) and len(data.std) in (0, 3) and min(data.std, default=1) > 0):
        raise KdbenchError(
            f"{where}: mean and std take 3 numbers each (red, green, blue), std greater than 0; or leave them out"
        )
    if not (all(0 <= value <= 1 for value in data.mean) and max(data.std, default=0) <= 1):
        raise KdbenchError(f"{where}: mean and std are of pixels in 0..1; divide those in 0..255 by 255")
    if data.folder and data.npz:
        raise KdbenchError(f"{where}: the images come from folder or from npz; name one of them")
    if data.classes < 0 or data.size < 0:
        raise KdbenchError(f"{where}: classes and size must be greater than 0, or left out")
    if data.stream and (data.npz or not (data.size and data.mean and data.std)):
        raise KdbenchError(
            f"{where}: streamed images are in class folders, not npz, and need size, mean and std"
        )
    if not data.stream and (data.eval_resize or data.workers is not None):
        raise KdbenchError(f"{where}: eval_resize and workers are for streamed images; set stream = true")
    if data.eval_resize and data.eval_resize < data.size:
        raise KdbenchError(
            f"{where}: eval_resize must be at least size = {data.size}, got {data.eval_resize}"
        )
    if data.workers is not None and data.workers < 0:
        raise KdbenchError(f"{where}: workers must be 0 or more, got {data.workers}")


def check_recipe(recipe: Recipe, where: str) -> None:
    """Raises KdbenchError, which begins with ``where``, for a recipe by which nothing can be trained."""
    for key in ("epochs", "reference_epochs", "batch_size", "lr", "eval_every"):
        if not getattr(recipe, key) > 0:
            raise KdbenchError(f"{where}: {key} must be greater than 0, got {getattr(recipe, key)}")
    if recipe.batch_size < 2:
        raise KdbenchError(f"{where}: batch_size must be at least 2 (BatchNorm), got {recipe.batch_size}")
    if not (0 <= recipe.momentum < 1 and recipe.weight_decay >= 0):
        raise KdbenchError(f"{where}: momentum must be in 0..1 and weight_decay 0 or more")
    if recipe.nesterov and recipe.momentum == 0:
        raise KdbenchError(f"{where}: nesterov needs a momentum greater than 0")
    if recipe.optimizer == SGD and recipe.optimizer_args:
        raise KdbenchError(
            f"{where}: optimizer_args are for timm's optimizers; sgd has momentum and nesterov"
        )
    for key in ("clip", "mixup", "warmup_epochs"):
        if getattr(recipe, key) < 0:
            raise KdbenchError(f"{where}: {key} must be 0 or more, got {getattr(recipe, key)}")
    for key in ("label_smoothing", "ema"):
        if not 0 <= getattr(recipe, key) < 1:
            raise KdbenchError(f"{where}: {key} must be from 0 to below 1, got {getattr(recipe, key)}")
    if recipe.warmup_epochs and recipe.schedule == "onecycle":
        raise KdbenchError(f"{where}: onecycle warms up by itself; leave out warmup_epochs")
    if recipe.warmup_epochs >= recipe.reference_epochs:
        raise KdbenchError(
            f"{where}: warmup_epochs must be less than reference_epochs = {recipe.reference_epochs}, "
            f"got {recipe.warmup_epochs}"
        )
    if recipe.schedule == "step":
        _check_steps(recipe, where)
    if not 0 < recipe.peak < 1:
        raise KdbenchError(f"{where}: peak must be between 0 and 1, got {recipe.peak}")


def _check_steps(recipe: Recipe, where: str) -> None:
    milestones, reference = list(recipe.milestones), recipe.reference_epochs
    if not 0 < recipe.decay <= 1:
        raise KdbenchError(f"{where}: decay must be greater than 0 and at most 1, got {recipe.decay}")
    if milestones != sorted({*milestones}) or min(milestones, default=1) <= 0:
        raise KdbenchError(f"{where}: milestones must be greater than 0 and rise, got {milestones}")
    if milestones and milestones[0] >= reference:
        raise KdbenchError(
            f"{where}: milestones are epochs of reference_epochs = {reference}, and {milestones} lie behind its end"
        )
