"""From a trained cell to its result: the row's outcome and cost columns, its details and its student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kdbench import models
from kdbench.data.batches import Feed
from kdbench.metrics import details, fidelity, quality
from kdbench.models.flops import probing
from kdbench.train.cell_trainer import Trainee
from kdbench.train.job import Result
from kdbench.utils.memory import peak_mb
from kdbench.utils.status import Status


def result_of(
    trainee: Trainee,
    logits: Tensor | None,
    teacher_logits: Tensor | None,
    evaluation: Feed,
    cohort: Mapping[str, Any],
) -> Result:
    """The result of one cell, finished or not.

    logits [N, C]: the student's on ``evaluation`` after the last epoch, None where it did not finish.
    teacher_logits [N, C]: None where the cohort has no teacher.
    cohort: the columns that all its cells share.
    """
    cell = trainee.cell
    finished = trainee.outcome is None and trainee.epoch == cell.recipe.epochs
    status, reason = trainee.outcome or (Status.OK if finished else Status.INTERRUPTED, "")
    row: dict[str, Any] = {
        "status": status,
        "error": reason or None,
        "epochs_done": trainee.epoch,
        **cohort,
        **({"deterministic": False} if trainee.mixed else {}),
    }
    result = Result(cell, row, trainee.curves)
    if status == Status.SKIPPED:
        return result
    latest = {name: value for _, name, value in trainee.curves}
    row.update(_cost(trainee), train_top1=latest.get("train_top1"), final_loss=latest.get("loss"))
    if status != Status.ERROR:  # a faulty method's `predict` is not run again
        row["macs"] = _macs(trainee)
    if not finished or logits is None:
        return result
    if not torch.isfinite(logits).all():
        row.update(status=Status.DIVERGED, error="the student's logits are not finite after training")
        return result
    teacher = teacher_logits if trainee.needs.teacher else None
    row.update(quality(logits, evaluation.targets), top1_best=trainee.best, tested=len(evaluation))
    if teacher is not None:
        row.update(fidelity(logits, teacher))
    result.details = details(logits, evaluation.targets, teacher)
    result.student = {k: v.detach().cpu() for k, v in trainee.deployed[0].model.state_dict().items()}
    return result


def _macs(trainee: Trainee) -> int | None:
    """None where the method cannot predict a single image."""
    net, modules = trainee.deployed
    with probing(modules):
        try:
            return models.macs(net, trainee.cell.dataset.size, trainee.predict)
        except Exception:  # the method's own; its accuracy is measured on batches
            return None


def _cost(trainee: Trainee) -> dict[str, Any]:
    """train_s is the cell's own steps alone, without the batches and the teacher that a cohort shares."""
    seconds = trainee.watch.seconds
    images = trainee.epoch * trainee.context.train_size + trainee.seen
    extra = models.count_parameters(trainee.modules)
    deployed = models.count_parameters(trainee.net.model)
    keeps = trainee.method.keeps_modules
    return {
        "train_s": seconds,
        "timed_steps": trainee.watch.timed,
        "eval_s": trainee.eval_s,
        "img_per_s": images / seconds if seconds else None,
        "peak_mem_mb": peak_mb(trainee.device),
        "student_params": deployed + (extra if keeps else 0),
        "extra_params": 0 if keeps else extra,
    }
