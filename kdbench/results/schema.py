"""The columns of results files: one record per column, the only place that lists them.

What is written, what must be there, what is checked on reading, what is text and the documentation's tables all derive
from `ROWS` (results/<suite>.csv), `CURVES` (results/<suite>.curves.csv) and `TRIALS` (results/<suite>.tuning.csv).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdbench.utils.status import Status

SCHEMA = 5  # version of ROWS; `store.UPGRADES` reads the earlier ones

GROUPS = {
    "identity": "What was trained: the same code gives the same numbers for the same identity.",
    "aids": "What helps to read a row; all of it follows from the identity or from the inputs.",
    "outcome": "How the run ended and how good the student is.",
    "cost": "Time, memory and size.",
    "provenance": "Where, when and by which code the run was made.",
}


@dataclass(frozen=True)
class Column:
    """One column of a file.

    name: as in the header.  group: a key of `GROUPS`, '' for curves.  kind: how a value is written, a key of
    `values.KINDS`.  doc: what it says, in one sentence.  unit: of a number, '' where it has none.
    low, high: the range of a number.  needed: the column must be there, whoever wrote the file (kdbench writes all).
    filled: every row has a value.
    """

    name: str
    group: str
    kind: str
    doc: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    needed: bool = False
    filled: bool = False


def _identity(name: str, kind: str, doc: str, low: float = -math.inf, filled: bool = True) -> Column:
    return Column(name, "identity", kind, doc, low=low, needed=True, filled=filled)


def _text(name: str, group: str, doc: str) -> Column:
    return Column(name, group, "text", doc)


def _percent(name: str, group: str, doc: str, needed: bool = False) -> Column:
    return Column(name, group, "number", doc, "percent", 0, 100, needed)


def _amount(name: str, group: str, doc: str, unit: str) -> Column:
    return Column(name, group, "number", doc, unit, low=0)


def _count(name: str, group: str, doc: str, needed: bool = False) -> Column:
    return Column(name, group, "whole", doc, low=0, needed=needed)


ROWS = (
    _identity("schema", "whole", "Version of this list of columns.", low=0),
    _identity("cell_id", "id", "Hash of everything that can change the numbers of the run."),
    _identity("suite", "text", "Name of the suite."),
    _identity(
        "dataset", "text", "Name of the data set, with the part of it that was used where that is not all."
    ),
    _identity("split", "text", "What the student was evaluated on: test, or holdout (a part of train)."),
    _identity("split_id", "id", "Hash of the images and labels of the split.", filled=False),
    _identity("teacher", "text", "Name of the teacher; empty for a method that needs none.", filled=False),
    _identity("teacher_id", "id", "Hash of the teacher's weights.", filled=False),
    _identity("student", "text", "Name of the student."),
    _identity("method", "text", "Name of the method."),
    _identity("method_version", "whole", "Version of the method's mathematics.", low=0),
    _identity("params", "json", "Parameters of the method."),
    _identity(
        "recipe_id", "id", "Hash of the suite's recipe, the pair's own changes left out.", filled=False
    ),
    _identity("seed", "whole", "Seed of the run.", low=0),
    _text(
        "variant",
        "aids",
        "Parameters that the command changed, and their values; empty where all are the suite's.",
    ),
    Column("default", "aids", "truth", "Whether all parameters are the suite's."),
    _text("precision", "aids", "Arithmetic of training: fp32, bf16 or tf32."),
    _percent("teacher_top1", "aids", "Top-1 accuracy of the teacher on the same images."),
    _percent(
        "teacher_expected", "aids", "Top-1 accuracy that the suite expects of the teacher on the test split."
    ),
    _text("teacher_cache", "aids", "Number format of cached teacher logits; empty where they were computed."),
    Column("setting", "aids", "id", "Hash of `facts`."),
    Column("facts", "aids", "json", "What the run depends on besides method, teacher and seed."),
    _count("test_in_train", "aids", "Evaluated images that are in the training images too."),
    Column(
        "status", "outcome", "status", f"How the run ended: {', '.join(Status)}.", needed=True, filled=True
    ),
    _percent("top1", "outcome", "Top-1 accuracy of the student after the last epoch.", needed=True),
    _percent("top5", "outcome", "Top-5 accuracy of the student after the last epoch."),
    _amount("nll", "outcome", "Mean negative log-likelihood of the true class.", "nats"),
    _percent("ece", "outcome", "Expected calibration error."),
    _percent(
        "agree_teacher",
        "outcome",
        "Share of the images on which student and teacher have the same top-1 class.",
    ),
    _amount("kl_teacher", "outcome", "Mean KL(teacher || student).", "nats"),
    _percent("train_top1", "outcome", "Top-1 accuracy on the augmented training images in the last epoch."),
    _percent("top1_best", "outcome", "Highest top-1 accuracy of all epochs that were evaluated."),
    _count("epochs_done", "outcome", "Epochs trained.", needed=True),
    Column("final_loss", "outcome", "number", "Mean training loss of the last epoch."),
    _count("tested", "outcome", "Images behind the accuracy."),
    _amount(
        "train_s",
        "cost",
        "Time of the student's own training steps; untimed ones count as the median of the timed.",
        "seconds",
    ),
    _count("timed_steps", "cost", "Training steps that were timed one by one; of an eager run all of them."),
    _amount("teacher_s", "cost", "Time of the teacher's forward passes, which the cohort shares.", "seconds"),
    _amount("data_s", "cost", "Time to load and augment the images, which the cohort shares.", "seconds"),
    _amount(
        "cohort_s",
        "cost",
        "Time of the cohort's training steps as they ran, teacher included, images not.",
        "seconds",
    ),
    _amount("eval_s", "cost", "Time of the evaluations.", "seconds"),
    _count("cohort_size", "cost", "Cells that were trained together, this one included."),
    _amount("img_per_s", "cost", "Training images per second of `train_s`.", "images per second"),
    _amount(
        "peak_mem_mb",
        "cost",
        "Peak memory: reserved on the GPU, or of the process on a CPU.",
        "MiB",
    ),
    _count("student_params", "cost", "Parameters of the deployed student."),
    _count("extra_params", "cost", "Parameters that the method adds for training only."),
    _count("macs", "cost", "Multiply-accumulate operations of the student per image."),
    Column("run_id", "provenance", "id", "Random id of the attempt.", needed=True),
    _count("attempt", "provenance", "Number of this attempt at the cell in this file, from 1.", needed=True),
    Column(
        "started_utc",
        "provenance",
        "time",
        "When the training of the cell's cohort started, in UTC.",
        needed=True,
    ),
    _text("kdbench", "provenance", "Version of kdbench."),
    _text("git_commit", "provenance", "Commit of kdbench's checkout; empty for an installed package."),
    Column("git_dirty", "provenance", "truth", "Whether the checkout had uncommitted changes."),
    Column("code_hash", "provenance", "id", "Hash of the method's source."),
    _text("torch", "provenance", "Version of PyTorch."),
    _text("timm", "provenance", "Version of timm."),
    _text("cuda", "provenance", "Version of CUDA; empty on a CPU."),
    _text("device", "provenance", "Name of the device."),
    _count("threads", "provenance", "CPU threads of PyTorch."),
    _text("executor", "provenance", "What ran the training: serial, processes, slurm or ray."),
    _count("jobs", "provenance", "Cohorts that shared the device at a time, this one included."),
    Column(
        "deterministic",
        "provenance",
        "truth",
        "Whether a repetition, throughout on the same device, PyTorch and threads, gives the same bits.",
    ),
    _text("error", "provenance", "Why there is no result; empty where there is one."),
)  # error is the last column: a line that is cut within it has all its numbers

CURVES = (
    Column("cell_id", "", "id", "The cell_id of the row.", needed=True, filled=True),
    Column("run_id", "", "id", "The run_id of the row.", needed=True),
    Column("epoch", "", "whole", "Epoch, from 1.", low=0, needed=True, filled=True),
    Column("term", "", "text", "loss, one of its terms, or an accuracy.", needed=True, filled=True),
    Column("value", "", "number", "Mean over the epoch.", needed=True),
)

TRIALS = (
    Column(
        "study",
        "",
        "id",
        "Hash of all that the trials of a method and a pair share.",
        needed=True,
        filled=True,
    ),
    Column(
        "trial",
        "",
        "whole",
        "Number of the trial; 0 has the suite's values.",
        low=0,
        needed=True,
        filled=True,
    ),
    *(column for column in ROWS if column.name in ("suite", "teacher", "student", "method", "params")),
    Column("recipe", "", "json", "Fields of the recipe that the trial searched.", needed=True),
    Column("space", "", "json", "Ranges that the values were drawn from.", needed=True),
    Column("seeds", "", "text", "Seeds of its runs, joined by spaces.", needed=True),
    Column("epochs", "", "whole", "Epochs of each run.", low=1, needed=True),
    Column("status", "", "status", "The worst of its runs.", needed=True, filled=True),
    _percent("top1", "", "Mean over seeds of the top-1 accuracy on the holdout split.", needed=True),
    _amount("train_s", "", "Sum over seeds of the time of the students' own training steps.", "seconds"),
    Column("cells", "", "text", "The cell_id of each run in results/<suite>.trials.csv, joined by spaces."),
    Column("ended_utc", "", "time", "When its last run was recorded, in UTC."),
)

BY_NAME = {column.name: column for column in (*CURVES, *TRIALS, *ROWS)}  # columns of one name agree in kind
COLUMNS = [column.name for column in ROWS]
CURVE_COLUMNS = [column.name for column in CURVES]
TRIAL_COLUMNS = [column.name for column in TRIALS]
TEXT = [column.name for column in ROWS if column.kind in ("text", "id", "json", "status", "time")]
NEEDED = [column.name for column in ROWS if column.needed]


def members(group: str) -> list[str]:
    """The names of a group's columns, in the file's order."""
    return [column.name for column in ROWS if column.group == group]
