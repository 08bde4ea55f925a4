"""What training does with a method: nobody else is touched, and nothing depends on company or interruption."""

from __future__ import annotations

import timm
import torch

from kdbench.contract.core import Subject, require
from kdbench.contract.phase_checks import thresholds
from kdbench.contract.toy_suite import CLASSES, SUITE, TRAIN, difference
from kdbench.contract.training_lab import EPOCHS, STEPS
from kdbench.data.augment import plain
from kdbench.data.loading import load_split
from kdbench.method import overrides
from kdbench.metrics import top_k
from kdbench.models import Network, count_parameters
from kdbench.models.cifar import base
from kdbench.results.schema import members
from kdbench.train.job import Result
from kdbench.utils.status import Status

CHANCE = 100 / CLASSES
# two standard errors above chance
LEARNT = CHANCE + 2 * 100 * (1 / CLASSES * (1 - 1 / CLASSES) / TRAIN) ** 0.5


def trained(subject: Subject) -> Result:
    """The method's result in the cohort; raises CheckFailed where it has none."""
    reason = subject.lab.unplanned(subject.name)
    require(reason is None, f"no cell can be planned: {reason}")
    result = subject.lab.together[subject.name]
    status, error = result.row["status"], result.row["error"]
    require(status == Status.OK, f"the cell ended as {status}: {error}")
    return result


def check_teacher_untouched(subject: Subject) -> None:
    """Training leaves the teacher's weights, BatchNorm buffers and evaluation mode as they were."""
    trained(subject)
    untouched = subject.lab.alone(subject.name, stopped=True).untouched
    require(untouched, "the teacher's weights, buffers or mode changed during training")


# Alone AND stopped is trained first: where that agrees with the undisturbed cohort, both facts hold at once.


def check_alone(subject: Subject) -> None:
    """Trained alone and beside all others: the same curves and weights, bit for bit."""
    result, lab = trained(subject), subject.lab
    if difference(result, lab.alone(subject.name, stopped=True).result):
        gap = difference(result, lab.alone(subject.name, stopped=False).result)
        require(gap is None, f"alone and in the cohort: {gap}")


def check_resumes(subject: Subject) -> None:
    """Stopped in the third of four epochs and started again: the same curves and weights, bit for bit."""
    result, lab = trained(subject), subject.lab
    stopped = lab.alone(subject.name, stopped=True).result
    if difference(result, stopped):
        gap = difference(lab.alone(subject.name, stopped=False).result, stopped)
        require(
            gap is None,
            f"interrupted and not: {gap}; what must outlive a step belongs in buffers of the modules",
        )


def check_phases(subject: Subject) -> None:
    """Across each epoch that it compares ``batch.epoch`` with, stopped before and behind it or not: the same bits."""
    trained(subject)
    for threshold in thresholds(subject.method):
        whole, stopped = (
            subject.lab.across(subject.name, threshold, stops) for stops in ((), (STEPS // 2, 2 * STEPS + 1))
        )
        status, error = whole.row["status"], whole.row["error"]
        require(status == Status.OK, f"across batch.epoch {threshold:g} the cell ended as {status}: {error}")
        gap = difference(whole, stopped)
        require(gap is None, f"interrupted and not, across batch.epoch {threshold:g}: {gap}")


def check_learns(subject: Subject) -> None:
    """The training loss falls and an easy set is learned far above chance."""
    result = trained(subject)
    losses = [value for _, term, value in result.curves if term == "loss"]
    require(len(losses) == EPOCHS, f"there are {len(losses)} losses for {EPOCHS} epochs")
    require(losses[-1] < losses[0], f"the training loss goes from {losses[0]:.4g} to {losses[-1]:.4g}")
    what = "top1" if overrides(subject.method, "predict") else "train_top1"
    reached = result.row[what]
    require(
        reached > LEARNT,
        f"{what} is {reached:.1f} % after training; chance is {CHANCE:.0f} %, {LEARNT:.0f} % is easy",
    )


def check_exports(subject: Subject) -> None:
    """The student loads into a bare timm model, strictly, and (without a predict of its own) scores the same there."""
    result = trained(subject)
    spec = result.cell.student_model
    bare = timm.create_model(base.ENTRIES[spec.arch], num_classes=CLASSES, **spec.args)
    misfits = bare.load_state_dict(result.student, strict=False)
    more, less = (", ".join(keys) for keys in (misfits.unexpected_keys, misfits.missing_keys))
    require(
        not (more or less), f"the exported student is no {spec.arch}: it has more ({more}) or less ({less})"
    )
    if overrides(subject.method, "predict"):
        return
    images = load_split(SUITE.dataset, "test", subject.lab.toy.folder).evaluation
    net = Network(bare, SUITE.dataset.mean, SUITE.dataset.std).eval()
    with torch.no_grad():
        top1 = top_k(net.model((plain(images.images) - net.mean) / net.std), images.targets, 1)
    require(
        top1 == result.row["top1"], f"the exported student has top-1 {top1}, the row {result.row['top1']}"
    )


def check_row(subject: Subject) -> None:
    """The row has the planned id and every outcome and cost that exists; modules count on the right side."""
    result, planned = trained(subject), subject.lab.cell(subject.name)
    require(result.cell.id == planned.id, f"the row is of cell {result.cell.id}, planned was {planned.id}")
    row, method = result.row, subject.method
    absent = [] if method.needs.teacher else ["agree_teacher", "kl_teacher", "teacher_s"]
    absent += ["train_top1"] if overrides(method, "predict") else []  # the own head is not what is deployed
    empty = [c for c in members("outcome") + members("cost") if (row.get(c) is None) != (c in absent)]
    require(not empty, f"wrongly filled or empty: {', '.join(empty)}")
    require(row["epochs_done"] == EPOCHS, f"epochs_done is {row['epochs_done']} of {EPOCHS}")
    bare = count_parameters(
        timm.create_model(
            base.ENTRIES[planned.student_model.arch], num_classes=CLASSES, **planned.student_model.args
        )
    )
    kept = row["student_params"] - bare
    require(
        method.keeps_modules or kept == 0,
        f"{kept} parameters are counted in the student that it does not keep",
    )
