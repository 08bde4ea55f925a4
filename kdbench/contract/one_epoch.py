"""`kdbench bench epoch`: one epoch of every method on real images, each alone in a process."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kdbench import registry, suites
from kdbench.data.dataset import ImageSet
from kdbench.data.loading import load_data, load_split
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Cell, plan_cells
from kdbench.plan.selection import Selection, select_pairs
from kdbench.suites import Pair, Recipe, Suite
from kdbench.teachers.weights import SUFFIXES, Teacher, open_teacher
from kdbench.train.callbacks import Cells, Progress
from kdbench.train.cohort import train_cohort
from kdbench.train.job import Job
from kdbench.utils.environment import collect
from kdbench.utils.files import write_atomic
from kdbench.utils.state_dicts import save_weights
from kdbench.utils.status import Status

SUITE, MODELS = "cifar100-quick", "cifar100-timm"  # the second one's networks may be named too
PAIRS = ("resnet56:resnet20", "vgg13:vgg8", "resnet56:vit_tiny_d6")
TEST_PER_CLASS = 1  # accuracy is not what this is about
FILE = Path("bench") / "real_images.csv"
BASELINE = "kd"
COLUMNS = (
    "pair method status final_loss epoch_s x_kd peak_mem_mb mem_over_kd extra_params student_params images code_hash "
    "device error"
).split()


class Clock(Progress):
    """Processor seconds of the training steps: what waits for the processor is not counted."""

    def __init__(self) -> None:
        self.begun = self.seconds = 0.0

    def begin(self, cells: Cells, epochs: int, steps: int, done: int) -> None:
        """Start the clock when the training starts."""
        self.begun = time.process_time()

    def step(self, images: int) -> None:
        """Read the clock after each step."""
        self.seconds = time.process_time() - self.begun


def train(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the row of the job's only cell with ``epoch_s``, the student's weights); to be called in its own process."""
    clock = Clock()
    (result,), _ = train_cohort(job, clock)
    return {**result.row, "epoch_s": clock.seconds}, result.student


def alone(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    """`train` in a process of its own, so that its peak memory is its own."""
    kinds = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
    if "forkserver" in kinds:
        context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(train, job).result()
        except BrokenProcessPool:
            return {"status": "killed", "error": "its process was killed: out of memory?"}, {}


@dataclass(frozen=True)
class World:
    """Real images in ``folder``, and a suite of one epoch or of the whole schedule over them."""

    folder: Path
    suite: Suite
    weights: Path | None
    device: str
    plugins: Path | None

    def cell(self, method: str, pair: Pair, teacher_id: str | None) -> Cell:
        """The training run of one method on one pair, seed 0."""
        split_id = load_split(self.suite.dataset, "test", self.folder).id
        ids = {pair.teacher: teacher_id}
        return plan_cells(Selection(self.suite, [method], [pair], [0]), split_id, ids)[0]

    def job(self, *cells: Cell, teacher: Teacher | None) -> Job:
        """Build the job of one cell, or of several of one pair."""
        work = self.folder / "work" / cells[0].id  # a folder per job: no checkpoint of another one is read
        return Job(cells, teacher, self.folder, work, self.device, self.plugins)

    def teacher(self, name: str) -> Teacher:
        """From the user's folder, else trained by cross-entropy as the students are."""
        files = [self.weights / f"{name}{suffix}" for suffix in SUFFIXES] if self.weights else []
        path = next((file for file in files if file.is_file()), self.folder / f"{name}.safetensors")
        if not path.is_file():
            row, student = alone(self.job(self.cell("ce", Pair(name, name), None), teacher=None))
            if row["status"] != Status.OK:
                raise KdbenchError(f"the teacher {name} could not be trained: {row['error']}")
            save_weights(path, student)
        return open_teacher(name, self.suite.model(name), path, self.suite.dataset, None)


def world(
    folder: Path,
    images: int,
    data_dir: Path | None,
    weights: Path | None,
    plugins: Path | None,
    whole: bool = False,
) -> World:
    """Write ``images`` training images (the same number of each class) into ``folder``.

    ``whole``: the suite's whole schedule. Else one epoch, which counts as the suite's first, at the rate that this one
    reaches: methods of two stages are in their first.
    """
    spec = suites.load(SUITE)
    per_class = images // spec.dataset.classes
    if per_class < 1:
        raise KdbenchError(
            f"--images must be {spec.dataset.classes} or more, one of each class; got {images}"
        )
    few = replace(spec.dataset, train_per_class=per_class, test_per_class=TEST_PER_CLASS)
    dataset, _ = load_data(few, data_dir)
    arrays = {}
    for part in ("train", "test"):
        held: ImageSet = getattr(dataset, part)
        arrays[f"x_{part}"], arrays[f"y_{part}"] = held.images.numpy(), held.targets.numpy()
    np.savez(folder / f"{spec.dataset.name}.npz", **arrays)  # type: ignore[arg-type]
    recipe = spec.recipe if whole else _first_epoch(spec.recipe)
    models = {**suites.load(MODELS).models, **spec.models}
    suite = replace(spec, recipe=recipe, models=models)
    return World(folder, suite, weights, "cpu", plugins)


def _first_epoch(full: Recipe) -> Recipe:
    return replace(
        full,
        epochs=1,
        reference_epochs=full.reference_epochs // full.epochs,
        lr=full.lr / full.epochs / full.peak,
    )


def report(
    name: str | None,
    plugins: Path | None,
    out: Path,
    pairs: Sequence[str] | None = None,
    images: int = 1000,
    data_dir: Path | None = None,
    teacher_weights: Path | None = None,
) -> tuple[str, bool]:
    """Measure one method or all (and kd), one row at a time into ``out``/bench/real_images.csv and .md.

    Rows of the same code, images and device are not measured again. Returns (the table, whether all ran or skipped).
    """
    registry.load(plugins)
    names = [registry.get(name).name] if name else registry.names()
    device = collect("cpu")["device"]
    known = _known(out)
    with tempfile.TemporaryDirectory() as folder:
        place = world(Path(folder), images, data_dir, teacher_weights, plugins)
        for pair in select_pairs(place.suite, pairs or PAIRS):
            teacher: Teacher | None = None
            for method in dict.fromkeys([BASELINE, *names]):
                facts = {
                    "pair": str(pair),
                    "method": method,
                    "images": images,
                    "code_hash": registry.code_hash(method),
                    "device": device,
                }
                if any(all(row[key] == value for key, value in facts.items()) for row in known):
                    continue
                teacher = teacher or place.teacher(pair.teacher)
                cell = place.cell(method, pair, teacher.id)
                row, _ = alone(place.job(cell, teacher=teacher if cell.teacher else None))
                stale = [r for r in known if (r["pair"], r["method"]) == (str(pair), method)]
                known = [r for r in known if r not in stale] + [{**row, **facts}]
                _write(table(known), out)
    measured = table(known)
    return markdown(measured), bool(measured["status"].isin([Status.OK, Status.SKIPPED]).all())


def _known(out: Path) -> list[dict]:
    """The rows of an earlier call that hold a result."""
    if not (out / FILE).is_file():
        return []
    rows = pd.read_csv(out / FILE)
    return rows[rows["status"].isin([Status.OK, Status.SKIPPED])].to_dict("records")


def table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows by pair and method, with time and memory beside kd's on the same pair."""
    frame = pd.DataFrame(rows).reindex(columns=COLUMNS).sort_values(["pair", "method"], ignore_index=True)
    base = frame[frame["method"] == BASELINE].set_index("pair")
    own = frame["status"] == Status.OK
    frame["x_kd"] = (frame["epoch_s"] / frame["pair"].map(base["epoch_s"])).where(own).round(2)
    frame["mem_over_kd"] = (frame["peak_mem_mb"] - frame["pair"].map(base["peak_mem_mb"])).where(own).round(0)
    frame["epoch_s"], frame["peak_mem_mb"] = (
        frame["epoch_s"].where(own).round(2),
        frame["peak_mem_mb"].round(0),
    )
    return frame


def markdown(measured: pd.DataFrame) -> str:
    """One table per pair, the reasons of what skipped, and how it was measured."""
    parts = ["# One epoch on real images"]
    for pair, rows in measured.groupby("pair", sort=False):
        lines = ["| method | status | s | x kd | MB | MB - kd | student | extra | loss |"]
        lines.append("|---|---|" + "---:|" * 7)
        for row in rows.to_dict("records"):
            forms = {"epoch_s": ".1f", "x_kd": ".2f", "peak_mem_mb": ".0f", "mem_over_kd": "+.0f"}
            forms |= {"student_params": ",.0f", "extra_params": ",.0f", "final_loss": ".3g"}
            texts = ["–" if pd.isna(row[key]) else format(row[key], form) for key, form in forms.items()]
            lines.append(f"| {row['method']} | {row['status']} | {' | '.join(texts)} |")
        reasons = rows.dropna(subset="error")
        said = [f"- {row['method']}: {row['error']}" for row in reasons.to_dict("records")]
        parts += [f"## {pair}", "\n".join(lines), "\n".join(said)]
    counts = "/".join(map(str, sorted(measured["images"].unique())))
    parts.append(
        f"{counts} training images of {SUITE}, seed 0: one epoch with the number and the highest learning rate of the "
        "suite's first (methods of two stages are in their first), its batch, views and precision. Teachers without "
        "weights at hand were trained for this one epoch, so nothing here is about accuracy. s: processor seconds of "
        "the epoch's steps, batches and teacher included, what `prepare` does once not; measured once, so 20 % is "
        "noise. MB: peak of the whole process, interpreter and libraries included; every row in a process of its own. "
        "student, extra: parameters deployed, and learned beside them. "
        f"Device: {', '.join(measured['device'].unique())}."
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _write(measured: pd.DataFrame, out: Path) -> None:
    try:
        write_atomic(out / FILE, measured.to_csv(index=False).encode())
        write_atomic((out / FILE).with_suffix(".md"), markdown(measured).encode())
    except OSError as error:
        raise KdbenchError(f"cannot write {out / FILE} ({error.strerror}); choose another --out") from error
