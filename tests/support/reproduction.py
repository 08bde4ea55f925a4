"""Runs of suite cifar100 in full, and the lines of the reproduction that they give."""

import itertools

import pandas as pd

from kdbench.data.catalog import CATALOG
from kdbench.report import reproduction
from kdbench.report.reproduction import literature
from kdbench.report.tables import tables
from kdbench.results import store
from tests.support.scenarios import hex12, with_ids

COUNTER = itertools.count()
FOLLOWS = literature("cifar100")
A, B, CROSS = ("resnet56", "resnet20"), ("resnet110", "resnet20"), ("vgg13", "mobilenetv2")


def run(method, top1, pair=A, seed=0, **changes):
    """One finished run of suite cifar100 in full; its best evaluated epoch is 0.3 better than its last."""
    known = {
        "schema": store.SCHEMA, "cell_id": f"{next(COUNTER):012d}", "suite": "cifar100", "dataset": "cifar100",
        "split": "test", "split_id": CATALOG["cifar100"].test_split_id, "tested": 10_000,
        "teacher": pair[0], "teacher_id": pair[0] and "abcd1234", "student": pair[1],
        "method": method, "method_version": 1, "params": "{}", "recipe_id": FOLLOWS.recipe_id, "seed": seed,
        "variant": "", "status": "ok", "top1": top1, "top1_best": top1 and top1 + 0.3, "top5": top1 and 90.0,
        "epochs_done": 240, "train_s": 240.0, "run_id": "run", "attempt": 1, "git_commit": "0123456789abcdef",
        "git_dirty": False, "torch": "2.9.0", "device": "gpu", "started_utc": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    if pair[0]:
        known |= {"teacher_top1": 72.34, "teacher_expected": 72.34}
    return with_ids(dict.fromkeys(store.COLUMNS) | known | changes)


def runs(method, *top1, **changes):
    """One row a seed."""
    return [run(method, value, seed=seed, **changes) for seed, value in enumerate(top1)]


def read(path, rows, suite="cifar100"):
    """The rows through the store's file, as tables."""
    (path / f"{suite}.csv").unlink(missing_ok=True)
    store.append(path / f"{suite}.csv", rows)
    return tables(store.read(path / f"{suite}.csv"))


def curves(rows, every=1):
    """Top-1 of each ``every``-th epoch of each finished run, and of its last."""
    known = [
        {"cell_id": row["cell_id"], "run_id": hex12("run"), "epoch": epoch, "term": "top1", "value": 1.0}
        for row in rows
        if row["status"] == "ok"
        for epoch in range(1, row["epochs_done"] + 1)
        if epoch % every == 0 or epoch == row["epochs_done"]
    ]
    return pd.DataFrame(known, columns=store.CURVE_COLUMNS)


def frame(path, rows, suite="cifar100", every=1):
    return reproduction.frame(suite, read(path, rows, suite), curves(rows, every))


def line(data, label, pair="resnet56 -> resnet20", metric="top1"):
    (found,) = data[(data["label"] == label) & (data["pair"] == pair) & (data["metric"] == metric)].to_dict(
        "records"
    )
    return found
