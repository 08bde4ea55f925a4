"""Hours and cost of a plan: each kind of cohort is timed once, teachers come first, jobs fill the places in turn."""

import pytest

from kdbench.bench import plan_hours
from kdbench.bench.plan_hours import Timed, makespan, report
from kdbench.contract import toy_suite
from kdbench.runner.run import resolve
from tests.support.cli_process import kdbench, refused


@pytest.mark.parametrize(
    ("hours", "jobs", "expected"),
    [([], 3, 0), ([2, 3], 1, 5), ([2, 3], 2, 3), ([2, 3, 4], 2, 6), ([3, 1, 1, 1], 2, 3), ([5], 64, 5)],
)
def test_a_free_place_takes_the_next_job(hours, jobs, expected):
    assert makespan(hours, jobs) == expected


def test_hours_of_a_cohort_by_hand(lab):
    """64 images are 2 steps of 32 in each of 4 epochs; evaluated after epochs 2 and 4."""
    cells = lab.using(epochs=4, batch_size=32, eval_every=2, milestones=(), reference_epochs=4).cells("ce")
    timed = Timed(step_ms=3600, image_s=0.36)
    assert timed.hours(cells, (64, 10), 0) == pytest.approx(8 * 0.001 + 2 * 10 * 0.0001)
    assert timed.hours(cells, (64, 10), 3) == pytest.approx(2 * 0.001 + 10 * 0.0001)


@pytest.fixture
def timings(monkeypatch):
    """The cohorts that are timed, by an hour of 3,600 steps and an evaluation that costs nothing."""
    jobs = []

    def step_and_evaluation(job):
        jobs.append([str(cell) for cell in job.cells])
        return 1000.0, 0.0

    monkeypatch.setattr(plan_hours, "step_and_evaluation", step_and_evaluation)
    return jobs


def test_seeds_are_timed_once_and_remembered(lab, timings):
    choice = {"data_dir": lab.data, "results": lab.folder / "results", "device": "cpu"}
    selection, options = resolve(lab.suite_file(), ["ce", "kd"], seeds="0-2", epochs=900, **choice)
    text = report(selection, options, lambda said: None, price=2.0)
    assert timings == [["ce"], ["ce", "kd"]]  # the teacher, and one cohort of the three
    steps = -(-toy_suite.TRAIN // selection.suite.recipe.batch_size)
    assert f"3 cohorts {3 * 900 * steps / 3600:.2f} hours" in text
    one, eight = (line.split() for line in text.splitlines()[-3:-1])
    assert [one[0], eight[0]] == ["1", "8"]
    assert float(one[2]) == pytest.approx(2 * float(one[1]), abs=0.02)
    assert float(eight[2]) == pytest.approx(16 * float(eight[1]), abs=0.1)
    assert report(selection, options, lambda said: None, price=2.0) == text
    assert len(timings) == 2


def test_two_processes_have_a_line_of_their_own(lab, timings):
    choice = {"data_dir": lab.data, "results": lab.folder / "results", "device": "cpu"}
    text = report(*resolve(lab.suite_file(), ["ce"], seeds="0-2", jobs=2, **choice), lambda said: None)
    assert [line.split()[0] for line in text.splitlines()[2:]] == ["1", "2", "8", "64"]


def test_the_command_times_real_steps(lab):
    lab.suite_file()
    dry = ["run", "--suite=tiny.toml", "--data-dir=data", "--device=cpu", "--methods=ce,kd", "--dry-run"]
    done = kdbench(*dry, "--time-steps", cwd=lab.folder)
    assert done.code == 0, done.err
    assert "1 teachers to train" in done.out
    assert "jobs at a time  hours" in done.out
    assert (lab.folder / "results" / ".work" / "timings.json").is_file()
    refused(kdbench(*dry, "--price=2", cwd=lab.folder), "--price needs --time-steps")
    refused(kdbench("run", "--time-steps", cwd=lab.folder), "--time-steps needs --dry-run")
