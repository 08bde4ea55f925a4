"""`kdbench bench`: both loops do the same work, the clocks count what they say, the files say what was measured."""

import dataclasses
import itertools
import os
import shlex
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kdbench import suites
from kdbench.bench import command, estimate, figures, precision, reference_loop, scaling, table, timing
from kdbench.bench.background_load import neighbours
from kdbench.bench.timing import Blocks, Seconds
from kdbench.bench.workload import made_up, work
from kdbench.cli.main import main
from kdbench.data.augment import render
from kdbench.data.loading import load_split
from kdbench.errors import KdbenchError
from kdbench.plan.cells import Pair
from kdbench.results import store
from kdbench.suites.schema import View
from kdbench.utils import fresh_process
from kdbench.utils.memory import peak_mb
from tests.support.cli_process import kdbench
from tests.support.scenarios import hex12
from tests.support.tiny import make

PAIR = Pair("teacher", "student")


@pytest.fixture
def here(monkeypatch):
    """Nothing in fresh processes: they take seconds to start."""
    monkeypatch.setattr(fresh_process, "call", lambda function, *args: function(*args))


def ask(lab, *methods, **more):
    return work(lab.suite, PAIR, methods, "cpu", **more)


# --- the same work ---


@pytest.mark.parametrize("method", ["kd", "dkd"])
def test_a_step_of_the_plain_loop_gives_the_cohorts_weights(lab, method):
    """Same initial weights, one batch of all images, no augmentation, fp32: equal up to rounding."""
    suite = dataclasses.replace(lab.suite, views={"weak": View()})
    asked = work(suite, PAIR, ["ce", method], "cpu", batch_size=32)
    with made_up(asked, 1) as job:
        train = load_split(job.cells[0].dataset, "test", job.data_dir).train
        runs = [reference_loop.Plain(cell, job.teacher, train, torch.device("cpu")) for cell in job.cells]
        before = {k: v.clone() for k, v in runs[1].student.model.state_dict().items()}
        loader = reference_loop.batches(job)
        for run in runs:
            run.block(loader, 1)
        blocks = Blocks(job, 0, 1)
        blocks.run()
        ours = [trainee.net.model.state_dict() for trainee in blocks.cohort.trainees]
    theirs = [run.student.model.state_dict() for run in runs]
    for name, value in theirs[1].items():
        torch.testing.assert_close(value, ours[1][name], rtol=1e-4, atol=2e-6, msg=name)
    weight = next(iter(before))
    moved = (theirs[1][weight] - before[weight]).abs().max()
    assert moved > 1e-3
    assert (theirs[1][weight] - theirs[0][weight]).abs().max() > 0.01 * moved  # and the teacher has a say
    curves = {name: value for _, name, value in blocks.cohort.trainees[1].curves}
    loss, top1, _ = runs[1].log[0]
    assert loss == pytest.approx(curves["loss"], rel=1e-4)
    assert 100 * top1 == pytest.approx(curves["train_top1"])


def test_the_plain_transform_draws_the_views_that_kdbench_draws(lab):
    """Pad 1, mirror: of 4 px images exactly the 9 x 2 images that `render` makes of all draws."""
    view = View(pad=1, flip=True)
    pixels = torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3) + 1
    data = dataclasses.replace(lab.suite.dataset, size=4, mean=(0.0,) * 3, std=(1.0,) * 3)
    ours = {
        render(view, pixels, {"offset": torch.tensor([[y, x]]), "flip": torch.tensor([f])}).numpy().tobytes()
        for y, x, f in itertools.product(range(3), range(3), (False, True))
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transform = reference_loop.transform(view, data)
        image = Image.fromarray(pixels[0].numpy())
        theirs = {transform(image)[None].numpy().tobytes() for _ in range(300)}
    assert len(ours) == 18
    assert theirs == ours


def test_the_plain_loop_refuses_what_it_has_no_place_for(lab):
    with (
        made_up(ask(lab, "mlkd"), 1) as job,
        pytest.raises(KdbenchError, match=r"one view .* leave out mlkd"),
    ):
        reference_loop.Plain(job.cells[0], job.teacher, lab.split.train, torch.device("cpu"))


def test_a_known_teacher_is_not_run_again(lab):
    with made_up(ask(lab, "kd", "ce", cached=True), 3) as job:
        known = Blocks(job, 1, 2).run()
    with made_up(ask(lab, "kd", "ce"), 3) as job:
        unknown = Blocks(job, 1, 2).run()
    assert known[0].teacher == 0
    assert unknown[0].teacher > 0


# --- the clocks ---


def test_blocks_leave_out_the_warm_up_and_others_turns(lab, monkeypatch):
    clock = [0.0]

    class Ticking(Blocks):
        def step(self, images):
            clock[0] += 1  # a step takes a second
            super().step(images)

    def other():
        clock[0] += 1000

    monkeypatch.setattr(timing, "now", lambda device: clock[0])
    with made_up(ask(lab, "kd"), 2 + 2 * 3) as job:
        blocks = Ticking(job, 2, 3, other).run()
    assert [block.total for block in blocks] == [3, 3]
    assert clock[0] == 8 + 3 * 1000


def test_a_block_counts_teacher_students_and_losses(lab):
    with made_up(ask(lab, "kd", "dkd"), 3) as job:
        (block,) = Blocks(job, 1, 2).run()
    assert 0 < block.losses < block.students < block.total
    assert 0 < block.teacher < block.total - block.students
    with made_up(ask(lab, "ce"), 3) as job:
        assert Blocks(job, 1, 2).run()[0].teacher == 0


def test_a_method_that_skips_the_pair_cannot_be_timed(lab):
    """fsp needs stages of equal widths."""
    with made_up(ask(lab, "fsp"), 2) as job, pytest.raises(KdbenchError, match="fsp cannot be timed: "):
        Blocks(job, 1, 1)


def test_shares_by_hand():
    shares = Seconds(total=10, teacher=2, students=7, losses=1).shares
    assert shares == pytest.approx({"data": 0.1, "teacher": 0.2, "students": 0.6, "losses": 0.1})


def test_ratios_by_hand():
    """Rounds of 2 cells: 2 s side by side against 1 + 3 s, and 4 s against 2 + 10 s."""
    theirs = [[Seconds(1, 0, 0, 0), Seconds(3, 0, 0, 0)], [Seconds(2, 0, 0, 0), Seconds(10, 0, 0, 0)]]
    assert table.ratios([Seconds(2, 0, 0, 0), Seconds(4, 0, 0, 0)], theirs) == [2.0, 3.0]
    assert table.ratios([Seconds(2, 0, 0, 0), Seconds(4, 0, 0, 0)], theirs, jobs=2) == [4.0, 6.0]


def test_neighbours_train_unless_they_are_paused_and_leave_nothing_behind(lab, wait_for):
    def seconds(pid):
        """Processor time of the process."""
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    with neighbours(ask(lab, "kd"), 1) as crew:
        pid, folder = crew.processes[0].pid, crew.folder
        assert list(Path(folder).iterdir())
        with crew.paused():
            wait_for(lambda: " T " in Path(f"/proc/{pid}/stat").read_text())
            before = seconds(pid)
            time.sleep(0.3)
            assert seconds(pid) == before
        wait_for(lambda: seconds(pid) > before)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()


# --- the command ---


def test_the_table_and_its_csv(lab, here, tmp_path):
    file = tmp_path / "out" / "bench.csv"
    text = command.compare(str(lab.suite_file()), None, ["ce", "kd"], 4, file, batch_size=8)
    found = pd.read_csv(file)
    assert list(found.columns) == table.COLUMNS
    assert list(found["loop"]) == ["kdbench", "plain"]
    ours, theirs = found.to_dict("records")
    assert (ours["pair"], ours["methods"], ours["batch_size"], ours["steps"]) == (
        "teacher:student",
        "ce,kd",
        8,
        4,
    )
    assert theirs["ratio"] == 1
    assert ours["ratio_low"] <= ours["ratio"] <= ours["ratio_high"]
    for row in (ours, theirs):
        assert row["ms_low"] <= row["ms"] <= row["ms_high"]
        assert row["img_per_s"] == pytest.approx(8000 / row["ms"])
        assert sum(row[share] for share in table.SHARES) == pytest.approx(1)
        assert row["peak_mem_mb"] > 50
        assert np.isnan(row["hours"])  # nobody knows how many images the set "tiny" has
    lines = text.splitlines()
    assert lines[1].split()[:3] == ["teacher:student", "kdbench", "fp32"]
    assert f"{ours['ratio']:.2f} [{ours['ratio_low']:.2f}, {ours['ratio_high']:.2f}]" in lines[1]
    assert "2 cells side by side" in lines[-1]


def test_the_cli_refuses_an_unknown_pair(tmp_path):
    done = kdbench(
        "bench", "step", "--suite", "tiny.toml", "--pairs", "large:smal", cwd=make(tmp_path / "place")
    )
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("kdbench: unknown model 'smal'")
    assert "Traceback" not in done.err


def test_the_cli_refuses_no_steps(tmp_path):
    done = kdbench("bench", "step", "--steps", "0", cwd=tmp_path)
    assert (done.code, "'--steps'" in done.err, "x>=1" in done.err) == (1, True, True)


@pytest.mark.slow
def test_a_fresh_process_has_its_own_peak():
    """1 GiB that this process holds is not counted."""
    ballast = np.ones(2**27)
    assert peak_mb(torch.device("cpu")) > ballast.nbytes / 2**20
    assert 50 < fresh_process.call(peak_mb, torch.device("cpu")) < 1024


# --- hours ---


def test_sizes_of_known_sets():
    data = suites.load("cifar100").dataset
    assert estimate.sizes(data) == (50_000, 10_000)
    assert estimate.sizes(dataclasses.replace(data, train_per_class=20)) == (2_000, 10_000)
    assert estimate.sizes(suites.load("digits").dataset) == (600, 899)


def test_training_hours_by_hand():
    """782 steps an epoch, 240 epochs, 0.1 s each: 5 h 12 min 48 s."""
    assert estimate.training_hours(100, 50_000, 64, 240) == pytest.approx(5 + 12 / 60 + 48 / 3600)
    assert estimate.training_hours(100, 50_000, 64, 240, runs=3) == pytest.approx(15.64)


def test_costs_add_up_steps_evaluations_and_seeds(lab, monkeypatch):
    """A clock that ticks 1 s a reading: each timed step and the evaluation of 64 images take a second."""
    clock = itertools.count()
    monkeypatch.setattr(timing, "now", lambda device: float(next(clock)))
    monkeypatch.setattr(estimate, "now", timing.now)
    asked = work(lab.suite, PAIR, ["ce", "kd"], "cpu")
    cost = estimate.cost(asked, 3, (64, 128))
    assert cost.step_ms == 1000
    assert cost.hours == pytest.approx(
        3 * (2 * 4 * 1 + 2 * 128 / 64) / 3600
    )  # 2 epochs of 4 steps, 2 evaluations


def test_a_method_that_skips_a_pair_takes_no_hours(lab):
    alone = estimate.cost(work(lab.suite, PAIR, ["fsp"], "cpu"), 1, (64, 24))
    assert (alone.step_ms, alone.hours) == (0, pytest.approx(0, abs=1e-6))
    assert estimate.cost(work(lab.suite, PAIR, ["fsp", "ce"], "cpu"), 1, (64, 24)).step_ms > 0


def test_large_batches_are_timed_in_part(lab, monkeypatch):
    """4 of a batch's 16 images take a second, so the batch takes 4."""
    clock = itertools.count()
    monkeypatch.setattr(timing, "now", lambda device: float(next(clock)))
    monkeypatch.setattr(estimate, "PIXELS", 4 * 8 * 8)
    assert estimate.cost(work(lab.suite, PAIR, ["ce"], "cpu"), 1, (64, 24)).step_ms == 4000


def test_suites_tells_hours_or_why_not(tmp_path):
    place = make(tmp_path / "place")
    done = kdbench("suites", "tiny.toml", cwd=place, before=lambda: _data(place))
    assert done.code == 0
    assert "timing large:small: a few steps of ce, kd side by side" in done.err
    line = next(line for line in done.out.splitlines() if line.startswith("all pairs"))
    assert float(line.split()[-1]) >= 0
    unknown = kdbench("suites", "tiny.toml", cwd=place, before=lambda: _data(tmp_path / "none"))
    assert "no estimate of hours: the data folder" in unknown.out
    assert "hours" not in kdbench("suites", "tiny.toml", "--no-timing", cwd=place).out


def _data(folder):
    os.environ["KDBENCH_DATA"] = str(folder / "data")


# --- scale ---


def test_every_point_is_measured_once():
    points = scaling.points()
    assert len(points) == len(set(points))
    assert {point.cells for point in points if point.pair == scaling.MAIN} >= {1, 2, 5, 10, 12}


def test_work_of_a_step_by_the_literatures_macs():
    """resnet56 125.8 M, resnet20 40.8 M multiply-accumulates: a forward of the teacher, 3 of each of 5 students."""
    suite = suites.load("cifar100")
    work = scaling.work_of(suite, scaling.Point(scaling.MAIN), "cpu", None)
    assert scaling.flop_per_step(work, 5) == pytest.approx(2 * 64 * (125.8e6 + 15 * 40.8e6), rel=2e-3)


def test_scale_writes_curves_for_its_points(lab, here, tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "MATRIX", {"cpu": 64})
    monkeypatch.setattr(scaling, "starts", lambda: pd.DataFrame([{"what": "kdbench --help", "seconds": 0.1}]))
    pair = str(PAIR)
    points = [scaling.Point(pair, cells, 8) for cells in (1, 3)]
    command.measure_scale(str(lab.suite_file()), tmp_path, "cpu", which=points)
    found = pd.read_csv(tmp_path / "scale-cpu.csv")
    assert list(found.columns) == scaling.COLUMNS
    assert list(found["cells"]) == [1, 3]
    np.testing.assert_allclose(found["ms"], found["ms_step"] / found["cells"])
    np.testing.assert_allclose(found["img_per_s"], 8000 / found["ms"])
    np.testing.assert_allclose(found["tflop_per_s"], found["gflop_step"] / found["ms_step"])
    np.testing.assert_allclose(found["share_of_peak"], found["tflop_per_s"] / found["peak_tflop_per_s"])
    assert (tmp_path / "scale-cpu.png").stat().st_size > 0
    assert list(pd.read_csv(tmp_path / "startup.csv")["seconds"]) == [0.1]


def test_the_scale_figure_draws_each_pairs_curve_over_cells():
    row = {
        "batch_size": 64,
        "ms": 9.0,
        "ms_low": 8.0,
        "ms_high": 10.0,
        "peak_mem_mb": 500.0,
        "idle_mem_mb": 9.0,
        "precision": "bf16",
    }
    row |= {"device": "d", "threads": 2, "torch": "2", "peak_tflop_per_s": 1.0}
    pairs = [scaling.MAIN, "wrn_40_2:wrn_16_2"]
    rows = [
        {**row, "pair": pair, "cells": cells, "gflop_step": 2.0 * cells}
        for pair in pairs
        for cells in (1, 2, 5)
    ]
    figure = figures.draw(pd.DataFrame(rows))
    first = figure.get_axes()[0]
    assert [line.get_label() for line in first.get_lines()] == pairs
    assert list(first.get_lines()[0].get_xdata()) == [1, 2, 5]


@pytest.mark.slow
def test_starts_are_timed():
    found = scaling.starts(repeats=1)
    assert found["seconds"].between(0.01, 120).all()
    assert found["seconds"].is_monotonic_increasing  # help before the first step of a run


# --- precision ---


def attempts(changes, seeds=range(3)):
    """Rows of digits: fp32 at 90 + seed; bf16 that much plus ``changes[method][seed]``."""
    suite, rows = suites.load("digits"), []
    for (method, change), kind, seed in itertools.product(changes.items(), precision.PRECISIONS, seeds):
        recipe = dataclasses.replace(suite.recipe, precision=kind)
        rows.append(
            dict.fromkeys(store.COLUMNS)
            | {"suite": "digits", "dataset": "digits", "split": "test", "status": "ok", "method": method}
            | {
                "cell_id": f"{method}{kind}{seed}",
                "student": "s",
                "teacher": "t",
                "teacher_id": "x",
                "seed": seed,
            }
            | {"recipe_id": recipe.id, "epochs_done": recipe.epochs, "method_version": 1}
            | {"precision": kind}
            | {
                "params": "{}",
                "train_s": 1.0,
                "top1": 90.0 + seed + (change[seed] if kind == "bf16" else 0.0),
            }
        )
    return suite, pd.DataFrame(rows)


def test_differences_are_paired_by_seed():
    """kd: +1, +2, +3: mean 2, t-interval 2 ± 4.303 / sqrt(3); dkd: always +2, which exceeds any noise."""
    suite, rows = attempts({"kd": [1.0, 2.0, 3.0], "dkd": [2.0, 2.0, 2.5]})
    pairs = precision.paired(precision.sides(suite, rows))
    found = precision.summary(pairs).set_index("label")
    assert found.loc["kd", "fp32"] == pytest.approx(91)
    assert found.loc["kd", "fp32_std"] == pytest.approx(1)
    assert found.loc["kd", "delta"] == pytest.approx(2)
    assert found.loc["kd", "low"] == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-3)
    assert list(found["exceeds"][["kd", "dkd"]]) == [False, True]
    text = precision.verdict(found.reset_index())
    assert text.startswith("The difference exceeds the noise for 1 of 2: dkd on t -> s (+2.17).")


def test_the_study_says_when_nothing_exceeds_the_noise(tmp_path):
    _, rows = attempts({"kd": [1.0, -1.0, 0.5]})
    (tmp_path / "results").mkdir()
    rows = rows.assign(schema=store.SCHEMA, cell_id=rows["cell_id"].map(hex12), teacher_id=hex12("x"))
    rows.to_csv(tmp_path / "results" / "digits.csv", index=False)
    text = command.study_precision("digits", tmp_path / "results", tmp_path / "out")
    assert "No difference exceeds the noise: all 1 intervals contain 0" in text
    assert "kdbench run --suite digits --methods kd --seeds 0,1,2 --precision bf16" in text
    assert (tmp_path / "out" / "precision-digits.md").read_text() == text
    assert list(pd.read_csv(tmp_path / "out" / "precision-digits.csv")["n"]) == [3]
    assert (tmp_path / "out" / "precision-digits.png").stat().st_size > 0


def test_one_precision_alone_is_no_study():
    suite, rows = attempts({"kd": [1.0, 2.0, 3.0]})
    one = rows[rows["cell_id"].str.contains("bf16")]
    with pytest.raises(KdbenchError, match="in fp32 and in bf16; type the same `kdbench run --suite digits`"):
        precision.sides(suite, one)


def test_the_study_takes_the_longest_recipe_in_both_precisions_and_says_what_to_type():
    suite, rows = attempts({"kd": [1.0, 2.0, 3.0], "dkd": [2.0, 2.0, 2.5]})
    longer, shorter = ({"epochs_done": n, "cell_id": rows["cell_id"] + f"/{n}"} for n in (99, 2))
    for change, kept in ((longer, "bf16"), (shorter, "fp32|bf16")):
        recipe = {
            kind: dataclasses.replace(suite.recipe, precision=kind, epochs=change["epochs_done"]).id
            for kind in precision.PRECISIONS
        }
        ids = [recipe["bf16" if "bf16" in cell else "fp32"] for cell in rows["cell_id"]]
        more = rows.assign(**change, recipe_id=ids)
        rows = pd.concat([rows, more[more["cell_id"].str.contains(kept)]], ignore_index=True)
    rows = rows[~rows["cell_id"].isin(["kdfp320", "kdfp320/2"])]  # seed 0 of kd is not there in fp32
    both = precision.sides(suite, rows)
    assert {table.epochs for table in both.values()} == {str(suite.recipe.epochs)}
    assert precision.summary(precision.paired(both)).set_index("label")["n"].to_dict() == {"dkd": 3, "kd": 2}
    few = rows[rows["cell_id"].str.endswith("/2")]
    command = precision.commands("digits", suite, precision.sides(suite, few))[0]
    assert command == "kdbench run --suite digits --methods dkd,kd --seeds 0,1,2 --epochs 2 --precision fp32"


# --- the script for a machine with a GPU ---


def gpu_commands():
    lines = (Path(__file__).parents[2] / ".ci" / "gpu").read_text().splitlines()
    return [shlex.split(line)[2:] for line in lines if line.startswith("part kdbench ")]


@pytest.mark.parametrize("words", gpu_commands(), ids=lambda words: " ".join(words[:4]))
def test_every_command_of_the_gpu_script_is_one_that_kdbench_has(words):
    verb = main.commands[words[0]].commands[words[1]]
    assert verb.make_context("kdbench", words[2:]).params["device"] == "cuda:0"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device: the script would run")
def test_the_gpu_script_says_what_it_needs(tmp_path):
    script = Path(__file__).parents[2] / ".ci" / "gpu"
    run = subprocess.run(["bash", script, tmp_path / "out"], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "needs kdbench installed and a CUDA device that torch sees; nvidia-smi lists them\n"
    assert not (tmp_path / "out").exists()
