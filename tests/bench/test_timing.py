"""The clocks of the benchmark count what they say."""

import dataclasses
import time
from pathlib import Path

import pytest

from kdbench.bench import table, timing
from kdbench.bench.background_load import background_load
from kdbench.bench.timing import Blocks, Seconds
from kdbench.bench.workload import made_up
from kdbench.errors import KdbenchError
from kdbench.train import recorded_steps
from kdbench.train.recorded_steps import settled
from tests.support.recorders import Overwriting
from tests.support.timed import ask


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


@pytest.mark.parametrize("kind", ["branches", "sequential"])
def test_recordings_end_before_the_first_timed_block(lab, monkeypatch, kind):
    recorder, at_blocks = Overwriting(), []
    monkeypatch.setattr(recorded_steps, "TIMED", 2)
    monkeypatch.setattr("kdbench.train.cohort.GraphRecorder", lambda device: recorder)
    warmup = settled(kind)
    with made_up(ask(lab, "kd", "dkd"), warmup + 4) as job:
        job = dataclasses.replace(job, graphs=kind)
        blocks = Blocks(job, warmup, 1, lambda: at_blocks.append(len(recorder.recorded))).run()
    assert at_blocks == [3 + (kind == "branches")] * 5
    assert all(0 < block.students < block.total for block in blocks)


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


def test_neighbours_train_unless_paused_and_leave_nothing(lab, wait_for):
    def seconds(pid):
        """Processor time of the process."""
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    with background_load(ask(lab, "kd"), 1) as load:
        pid, folder = load.processes[0].pid, load.folder
        assert list(Path(folder).iterdir())
        with load.paused():
            wait_for(lambda: " T " in Path(f"/proc/{pid}/stat").read_text())
            before = seconds(pid)
            time.sleep(0.3)
            assert seconds(pid) == before
        wait_for(lambda: seconds(pid) > before)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()
