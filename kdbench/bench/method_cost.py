"""`kdbench bench methods`: step time relative to kd, measured in one cohort on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from kdbench import models, registry
from kdbench.bench.cost_table import FILE
from kdbench.contract import toy_suite
from kdbench.data.loading import load_split
from kdbench.errors import KdbenchError
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import Selection
from kdbench.suites import DataSpec, ModelSpec, Pair, Suite
from kdbench.suites.schema import View
from kdbench.teachers.weights import open_teacher
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job
from kdbench.utils.environment import collect
from kdbench.utils.files import write_atomic
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import Status

CLASSES, SIZE, BATCH, STEPS, ROUNDS = 100, 32, 64, 15, 3
TEACHER, STUDENT = "resnet20", "resnet8"

DATA = DataSpec("cost", CLASSES, SIZE, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
RECIPE = replace(toy_suite.RECIPE, epochs=1, batch_size=BATCH, lr=0.01, schedule="step", eval_every=1)
VIEWS = {
    "weak": View(pad=4, flip=True),
    "strong": View(pad=4, flip=True, ops=2, magnitude=10, cutout=0.5),
}


def _images(path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", BATCH * STEPS), ("test", CLASSES)):
        arrays[f"x_{part}"] = draw.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(count) % CLASSES
    np.savez(path, **arrays)  # type: ignore[arg-type]


def measure(names: Sequence[str]) -> pd.DataFrame:
    """name, extra_params, cost_x_kd, device: the median over 3 rounds of own step time over kd's in the same cohort.

    A round is 15 steps of batch 64 at 32 px, 100 classes, resnet20 -> resnet8, fp32. A method that skips this pair or
    fails has no cost.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _images(folder / f"{DATA.name}.npz")
        weights = folder / f"{TEACHER}.safetensors"
        save_weights(weights, models.create(TEACHER, CLASSES).state_dict())
        teacher = open_teacher(TEACHER, ModelSpec(TEACHER), weights, DATA, None)
        pair = Pair(TEACHER, STUDENT)
        suite = Suite("cost of a step", ("kd",), (0,), DATA, VIEWS, RECIPE, (pair,), name="cost")
        split_id = load_split(DATA, "test", folder).id
        chosen = list(dict.fromkeys(["kd", *names]))
        rounds = []
        for seed in range(ROUNDS):
            cells = plan_cells(Selection(suite, chosen, [pair], [seed]), split_id, {TEACHER: teacher.id})
            results, _ = train_cohort(Job(tuple(cells), teacher, folder, folder / "work", "cpu"))
            seconds = {r.cell.method: r.row["train_s"] for r in results if r.row["status"] == Status.OK}
            rounds.append({method: own / seconds["kd"] for method, own in seconds.items()})
        extra = {r.cell.method: r.row.get("extra_params") for r in results}
    ratios = pd.DataFrame(rounds).median()
    device = collect("cpu")["device"]
    return pd.DataFrame(
        {"name": n, "extra_params": extra[n], "cost_x_kd": round(ratios.get(n, np.nan), 2), "device": device}
        for n in chosen
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
