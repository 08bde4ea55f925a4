"""The columns of results/<suite>.csv and of the curves beside it: name, kind and range of each, said once.

What is written, what must be there, what is checked on reading and what is text all derive from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdbench.utils.status import Status

SCHEMA = 3


@dataclass(frozen=True)
class Column:
    """One column of a file.

    kind: how a value is written (a key of values.KINDS). means: what it says, with its unit. low, high: the range of a
    number. needed: the column must be there, whoever wrote the file (kdbench writes all). filled: each row has a value.
    """

    name: str
    group: str
    kind: str
    means: str
    low: float = float("-inf")
    high: float = float("inf")
    needed: bool = False
    filled: bool = False


def _percent(name: str, group: str, means: str, needed: bool = False) -> Column:
    return Column(name, group, "number", f"{means}, percent", 0, 100, needed)


def _amount(name: str, group: str, means: str, kind: str = "number") -> Column:
    return Column(name, group, kind, means, low=0)


def _identity(name: str, kind: str, means: str, low: float = float("-inf"), filled: bool = True) -> Column:
    return Column(name, "identity", kind, means, low, needed=True, filled=filled)


def _text(name: str, group: str, means: str) -> Column:
    return Column(name, group, "text", means)


ROWS = (
    _identity("schema", "whole", "version of this list of columns", low=0),
    _identity("cell_id", "id", "hash of all that can change the numbers of the run"),
    _identity("suite", "text", "name of the suite"),
    _identity("dataset", "text", "name of the data set"),
    _identity("split", "text", "images that were tested: test or holdout"),
    _identity("split_id", "id", "hash of the images and labels", filled=False),
    _identity("teacher", "text", "name of the teacher; empty for a method without one", filled=False),
    _identity("teacher_id", "id", "hash of the teacher's weights", filled=False),
    _identity("student", "text", "name of the student"),
    _identity("method", "text", "name of the method"),
    _identity("method_version", "whole", "version of the method's mathematics", low=0),
    _identity("params", "json", "parameters of the method"),
    _identity("recipe_id", "id", "hash of the suite's recipe", filled=False),
    _identity("seed", "whole", "seed of the run", low=0),
    _text("variant", "aids", "parameters that differ from the method's defaults"),
    Column("default", "aids", "truth", "whether all parameters are the method's defaults"),
    _text("precision", "aids", "fp32, bf16 or tf32"),
    _percent("teacher_top1", "aids", "top-1 accuracy of the teacher here"),
    _percent("teacher_expected", "aids", "top-1 accuracy of the teacher as published"),
    _text("teacher_cache", "aids", "how the teacher's logits were kept"),
    Column("setting", "aids", "id", "hash of facts"),
    Column("facts", "aids", "json", "everything but method, teacher and seed that the run depends on"),
    _amount("test_in_train", "aids", "test images that are in train too", "whole"),
    Column("status", "outcome", "status", ", ".join(Status), needed=True, filled=True),
    _percent("top1", "outcome", "top-1 accuracy of the student", needed=True),
    _percent("top5", "outcome", "top-5 accuracy of the student"),
    _amount("nll", "outcome", "negative log-likelihood, nats"),
    _percent("ece", "outcome", "expected calibration error"),
    _percent("agree_teacher", "outcome", "test images with the teacher's top-1 class"),
    _amount("kl_teacher", "outcome", "mean KL(teacher || student), nats"),
    _percent("train_top1", "outcome", "top-1 accuracy on the training images as seen"),
    _percent("top1_best", "outcome", "highest top-1 accuracy of all epochs"),
    Column("epochs_done", "outcome", "whole", "epochs trained", low=0, needed=True),
    Column("final_loss", "outcome", "number", "mean loss of the last epoch"),
    _amount("tested", "outcome", "test images behind the accuracy", "whole"),
    _amount("train_s", "cost", "seconds of training"),
    _amount("teacher_s", "cost", "seconds of the cohort's shared teacher"),
    _amount("data_s", "cost", "seconds of the cohort's shared data"),
    _amount("eval_s", "cost", "seconds of testing"),
    _amount("cohort_size", "cost", "cells that were trained together", "whole"),
    _amount("img_per_s", "cost", "training images per second"),
    _amount("peak_mem_mb", "cost", "highest memory, MiB"),
    _amount("student_params", "cost", "parameters of the student", "whole"),
    _amount("extra_params", "cost", "parameters that the method adds in training", "whole"),
    _amount("macs", "cost", "multiply-accumulates of the student per image", "whole"),
    Column("run_id", "provenance", "id", "drawn for each run", needed=True),
    Column("attempt", "provenance", "whole", "1 for the first run of the cell here", low=0, needed=True),
    Column("started_utc", "provenance", "time", "start of the run", needed=True),
    _text("kdbench", "provenance", "version of kdbench"),
    _text("git_commit", "provenance", "commit of its checkout"),
    Column("git_dirty", "provenance", "truth", "whether the checkout was edited"),
    Column("code_hash", "provenance", "id", "hash of the method's source"),
    _text("torch", "provenance", "version of torch"),
    _text("timm", "provenance", "version of timm"),
    _text("cuda", "provenance", "version of CUDA"),
    _text("device", "provenance", "name of the device"),
    _amount("threads", "provenance", "CPU threads of torch", "whole"),
    Column("deterministic", "provenance", "truth", "whether torch was set to deterministic algorithms"),
    _text("error", "provenance", "why there is no result"),
)  # error is the last one: of a line cut short within it, all numbers are whole

CURVES = (
    Column("cell_id", "curve", "id", "the row's", needed=True, filled=True),
    Column("run_id", "curve", "id", "the row's", needed=True),
    Column("epoch", "curve", "whole", "epoch, from 1", low=0, needed=True, filled=True),
    Column("term", "curve", "text", "loss, a term of it, or an accuracy", needed=True, filled=True),
    Column("value", "curve", "number", "mean over the epoch", needed=True),
)

BY_NAME = {column.name: column for column in (*CURVES, *ROWS)}  # those of one name agree in kind


def _group(name: str) -> list[str]:
    return [column.name for column in ROWS if column.group == name]


IDENTITY, AIDS, OUTCOME, COST, PROVENANCE = map(_group, "identity aids outcome cost provenance".split())
COLUMNS = [column.name for column in ROWS]
CURVE_COLUMNS = [column.name for column in CURVES]
TEXT = [column.name for column in ROWS if column.kind in ("text", "id", "json", "status", "time")]
NEEDED = [column.name for column in ROWS if column.needed]
