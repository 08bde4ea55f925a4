"""Results files for the report's tests: each written through the store as a run would write it."""

import hashlib
import itertools
import re

from kdbench.report.columns import columns
from kdbench.report.leaderboard import board
from kdbench.report.notes import notes
from kdbench.report.tables import tables
from kdbench.results import store
from kdbench.results.schema import BY_NAME

COUNTER = itertools.count()
PAIRS = [("wrn_40_2", "wrn_16_2"), ("vgg13", "vgg8"), ("resnet32x4", "resnet8x4")]
A = ("resnet56", "resnet20")
COLUMN = "resnet56 -> resnet20"
NOISE = (0.0, 0.3, -0.2)


def hex12(text):
    """An id for a short name: 'ab' -> 'ab0000000000', what is not hex is hashed; None and '' stay."""
    if not text:
        return text
    known = text if re.fullmatch("[0-9a-f]{1,12}", text) else hashlib.sha256(text.encode()).hexdigest()
    return known[:12].ljust(12, "0")


def with_ids(row):
    """The row with a true-looking id in place of each short one."""
    return {key: hex12(value) if BY_NAME[key].kind == "id" else value for key, value in row.items()}


def run(method="kd", top1=70.0, pair=A, seed=0, **changes):
    """One row; the fields that no test is about are left empty, as a bare machine would leave them."""
    known = {
        "schema": store.SCHEMA, "cell_id": f"{next(COUNTER):012d}", "suite": "s", "dataset": "cifar100",
        "split": "test", "teacher": pair[0], "teacher_id": pair[0] and "abcd1234", "student": pair[1],
        "method": method, "method_version": 1, "params": "{}", "recipe_id": "r1", "seed": seed, "variant": "",
        "status": "ok", "top1": top1, "epochs_done": 240, "train_s": 240.0, "run_id": "run", "attempt": 1,
        "git_commit": "0123456789abcdef", "git_dirty": False, "torch": "2.9.0", "device": "gpu",
    }  # fmt: skip
    return with_ids(dict.fromkeys(store.COLUMNS) | known | changes)


def runs(method, *top1, pair=A, **changes):
    """One row a seed."""
    return [run(method, value, pair, seed, **changes) for seed, value in enumerate(top1)]


def grid(pairs, **gains):
    """For each pair and 3 seeds: kd at about 70, and each method that much better."""
    methods = {"kd": 0.0} | gains
    return [
        run(method, 70.0 + NOISE[seed] + gain + 0.01 * seed * len(method), pair, seed)
        for pair in pairs
        for method, gain in methods.items()
        for seed in range(3)
    ]


def timed_grid():
    """Two pairs, on which dkd takes 1.25 and 2 times the seconds of kd."""
    seconds = {A: 300.0, PAIRS[0]: 480.0}
    rows = grid([A, PAIRS[0]], dkd=0.5)
    for row in rows:
        own = seconds[row["teacher"], row["student"]] if row["method"] == "dkd" else 240.0
        row |= {"train_s": own, "threads": 1, "cohort_size": 2}
    return rows


def boards(path, rows, baseline="kd"):
    store.append(path / "s.csv", rows)
    return [board(table, baseline) for table in tables(store.read(path / "s.csv"))]


def cells(b):
    """(label, column heading) -> text, as in markdown."""
    shown = columns(b)
    return {
        (m, c.heading): t.marked("**{}**".format)
        for c in shown
        for m, t in zip(b.labels, c.entries, strict=True)
    }


def said(b):
    return "\n".join(notes(b))


FIVE = [A, *PAIRS, ("vit_base_patch16_224.augreg_in21k", "mobilenetv2_cifar")]


def wild(path, methods=12, pairs=FIVE):
    """Writes s.csv and s.curves.csv: many methods, pairs, long names, gaps, two tables, curves."""
    gains = {f"method{i:02d}": 0.1 * i for i in range(methods)} | {"bickd": 0.5}
    rows = grid(pairs, **gains)
    rows += runs(
        "dkd", 70.0, 71.0, variant="alpha=0.5 beta=2 temperature=4 warmup_epochs=20", params='{"x":1}'
    )
    rows += [
        run("crd", None, status="diverged"),
        run("fitnet", None, status="skipped", error="because " * 30),
    ]
    rows += runs("kd", 60.0, 61.0, split="holdout") + runs("dkd", 61.0, 62.5, split="holdout")
    for split, top1 in (("test", 75.01), ("holdout", 74.64)):
        rows.append(run("kd", 71.0, ("vgg13", "vgg8"), seed=7, split=split, teacher_top1=top1))
    store.append(path / "s.csv", rows)
    lines = [
        {
            "cell_id": row["cell_id"],
            "run_id": hex12("run"),
            "epoch": epoch,
            "term": term,
            "value": 1.0 * epoch,
        }
        for row in rows
        for epoch in (1, 2)
        for term in ("top1", "loss", "ce")
    ]
    store.append(path / "s.curves.csv", lines, store.CURVE_COLUMNS)
