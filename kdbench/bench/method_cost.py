"""`kdbench bench methods`: step time relative to kd, measured in one cohort on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kdbench import registry
from kdbench.bench.cost_table import FILE
from kdbench.bench.workload import made_up, work
from kdbench.contract import toy_suite
from kdbench.errors import KdbenchError
from kdbench.suites import DataSpec, Pair
from kdbench.suites.schema import View
from kdbench.train.cohort import train_cohort
from kdbench.utils.environment import collect
from kdbench.utils.files import write_atomic
from kdbench.utils.status import Status

BATCH, STEPS, ROUNDS = 64, 15, 3
PAIR = Pair("resnet20", "resnet8")
SUITE = replace(
    toy_suite.SUITE,
    dataset=DataSpec("cost", 100, 32, mean=(0.5,) * 3, std=(0.25,) * 3),
    views={
        "weak": View(pad=4, flip=True),
        "strong": View(pad=4, flip=True, ops=2, magnitude=10, cutout=0.5),
    },
    recipe=replace(toy_suite.SUITE.recipe, batch_size=BATCH, lr=0.001),  # at 0.01 semckd diverges on noise
    pairs=(PAIR,),
    name="cost",
)


def measure(names: Sequence[str]) -> pd.DataFrame:
    """name, extra_params, cost_x_kd, device: the median over 3 rounds of own step time over kd's in the same cohort.

    A round is 15 steps of batch 64 at 32 px, 100 classes, resnet20 -> resnet8, fp32. A method that skips this pair or
    fails has no cost.
    """
    methods = list(dict.fromkeys(["kd", *names]))
    rounds = []
    for _ in range(ROUNDS):
        with made_up(work(SUITE, PAIR, methods, "cpu"), STEPS) as job:
            results, _ = train_cohort(job)
        seconds = {r.cell.method: r.row["train_s"] for r in results if r.row["status"] == Status.OK}
        rounds.append({method: own / seconds["kd"] for method, own in seconds.items()})
    extra = {r.cell.method: r.row.get("extra_params") for r in results}
    ratios = pd.DataFrame(rounds).median()
    device = collect("cpu")["device"]
    return pd.DataFrame(
        {"name": n, "extra_params": extra[n], "cost_x_kd": round(ratios.get(n, np.nan), 2), "device": device}
        for n in methods
    )


def report(name: str | None, plugins: Path | None, out: Path) -> str:
    """Measure one method or all, keep the table at ``out``/bench/method_cost.csv, and return it as text."""
    registry.load(plugins)
    names = [registry.get(name).name] if name else registry.names()
    table = measure(names)
    try:
        write_atomic(out / FILE, table.to_csv(index=False).encode())
    except OSError as error:
        raise KdbenchError(f"cannot write {out / FILE} ({error.strerror}); choose another --out") from error
    return table.to_string(index=False)
