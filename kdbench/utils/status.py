"""How a training run ended: the words in the column ``status`` of the results."""

from enum import StrEnum


class Status(StrEnum):
    """How one attempt at a cell ended. A member equals its text, which is what files hold."""

    OK = "ok"  # trained to the end and evaluated
    DIVERGED = "diverged"  # the loss or the logits became infinite or NaN
    PRUNED = "pruned"  # stopped by `kdbench tune --prune`, for an accuracy below that of earlier trials
    SKIPPED = "skipped"  # the method does not apply to the pair
    ERROR = "error"  # the method raised an exception
    OOM = "oom"  # out of memory, even alone
    INTERRUPTED = "interrupted"  # stopped early; its checkpoint is saved


DONE = (
    Status.OK,
    Status.DIVERGED,
    Status.PRUNED,
    Status.SKIPPED,
)  # final: cells with another status are tried again
