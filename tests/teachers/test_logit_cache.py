"""The table of a teacher's logits: exact up to fp16, whoever writes, dies or fills the disk."""

import dataclasses
import os
import resource
import signal

import numpy as np
import pytest
import torch

from kdbench import registry
from kdbench.data.augment import draw, render
from kdbench.errors import KdbenchError
from kdbench.method import Needs
from kdbench.models.wrapper import Network
from kdbench.plan.cells import plan_cells
from kdbench.plan.selection import Selection
from kdbench.suites import Pair
from kdbench.suites.schema import View
from kdbench.teachers.logit_cache import (
    CachedLogits,
    Table,
    count_outcomes,
    draws_of_outcome,
    outcome_numbers,
)
from kdbench.train.cohort import train_cohort
from tests.support.cli_process import kdbench

WEAK = View(pad=1, flip=True)


def table(folder, key="k", count=6, view=WEAK, classes=3):
    return Table(folder, key, count, view, classes)


def test_a_table_that_is_no_more_holds_no_file(tmp_path):
    before = os.listdir("/proc/self/fd")
    for number in range(3):
        table(tmp_path, str(number))
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    ("view", "count"),
    [(View(pad=4, flip=True), 162), (View(pad=4), 81), (View(flip=True), 2), (View(), 1)],
)
def test_outcomes_by_hand(view, count):
    assert count_outcomes(view) == count


@pytest.mark.parametrize("view", [View(pad=1, cutout=0.5), View(ops=2, magnitude=10), View(flip=True, ops=1)])
def test_a_view_with_more_than_crop_and_flip_has_no_table(view):
    assert count_outcomes(view) is None


@pytest.mark.parametrize("view", [View(pad=2, flip=True), View(pad=1), View(flip=True), View()])
def test_every_outcome_has_draws_that_come_back(view):
    for number in range(count_outcomes(view)):
        assert outcome_numbers(view, draws_of_outcome(view, number, 2), 2).tolist() == [number, number]


def test_equal_outcomes_are_equal_pixels_and_others_differ():
    image = torch.randint(256, (1, 5, 5, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rendered = {
        n: render(WEAK, image, draws_of_outcome(WEAK, n, 1)).flatten().tolist()
        for n in range(count_outcomes(WEAK))
    }
    assert len({tuple(pixels) for pixels in rendered.values()}) == 18
    draws = draw(WEAK, 200, (5, 5), torch.Generator().manual_seed(1))
    numbers = outcome_numbers(WEAK, draws, 200)
    batch = render(WEAK, image.expand(200, -1, -1, -1), draws)
    for number, pixels in zip(numbers.tolist(), batch, strict=True):
        assert pixels.flatten().tolist() == rendered[number]
    assert set(numbers.tolist()) == set(range(18))


def test_only_written_records_are_known(tmp_path):
    rows, numbers = torch.tensor([0, 5, 5]), torch.tensor([17, 0, 3])
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [65504.0, 1e-7, -0.0]]).half()
    table(tmp_path).write(rows, numbers, logits)
    again = table(tmp_path)
    read, known = again.read(rows, numbers)
    assert known.all()
    assert torch.equal(read.view(torch.int16), logits.view(torch.int16))
    everything = [(r, n) for r in range(6) for n in range(18)]
    known = again.read(*torch.tensor(everything).T)[1]
    assert [pair for pair, there in zip(everything, known.tolist(), strict=True) if there] == [
        (0, 17),
        (5, 0),
        (5, 3),
    ]
    assert again.known_share() == pytest.approx(3 / 108)


def test_other_keys_are_other_files(tmp_path):
    assert table(tmp_path, "a").path != table(tmp_path, "b").path


@pytest.mark.parametrize("byte", range(8))
def test_a_record_with_a_changed_byte_is_unknown(tmp_path, byte):
    place = torch.tensor([2]), torch.tensor([4])
    t = table(tmp_path)
    t.write(*place, torch.tensor([[1.5, -3.0, 0.25]]).half())
    content = bytearray(t.path.read_bytes())
    content[(2 * 18 + 4) * 8 + byte] ^= 0x41
    t.path.write_bytes(bytes(content))
    assert not table(tmp_path).read(*place)[1].any()


# --- through CachedLogits ---


def teacher(rows, numbers):
    """A fake teacher whose logits depend on image and outcome."""
    return torch.stack([rows.float(), numbers.float() / 3, rows * numbers / 7.0], dim=1)


def request(cache, rows, draws, computed):
    numbers = outcome_numbers(WEAK, draws, len(rows))

    def compute(places):
        computed.append(places.tolist())
        return teacher(rows[places], numbers[places])

    return cache.logits("weak", rows, draws, compute), teacher(rows, numbers).half().float()


def test_each_record_is_computed_once_and_always_rounded(tmp_path):
    draws = draw(WEAK, 6, (5, 5), torch.Generator().manual_seed(0))
    rows, computed = torch.arange(6), []
    for _ in range(2):  # and a new process would find it
        cache = CachedLogits({"weak": table(tmp_path)}, {"weak": WEAK}, pytest.fail)
        first, expected = request(cache, rows[:4], {k: v[:4] for k, v in draws.items()}, computed)
        assert torch.equal(first, expected)
        both, expected = request(cache, rows, draws, computed)
        assert torch.equal(both, expected)
    assert computed == [[0, 1, 2, 3], [4, 5]]


def test_logits_beyond_fp16_are_an_error(tmp_path):
    cache = CachedLogits({"weak": table(tmp_path)}, {"weak": WEAK}, pytest.fail)
    with pytest.raises(KdbenchError, match="--teacher-cache"):
        cache.logits(
            "weak", torch.tensor([0]), draws_of_outcome(WEAK, 0, 1), lambda places: torch.full((1, 3), 1e6)
        )


def _fill(folder, name):
    """Write every record over and over, in an order of this writer's own."""
    t = table(folder, count=200)
    order = np.random.default_rng(name).permutation(200 * 18)
    while True:
        for place in order:
            rows, numbers = torch.tensor([place // 18]), torch.tensor([place % 18])
            t.write(rows, numbers, teacher(rows, numbers).half())


def test_killed_writers_leave_right_records_or_none(tmp_path, in_child, wait_for):
    reader = table(tmp_path, count=200)
    writers = [in_child(_fill, tmp_path, n) for n in range(3)]
    everything = torch.tensor([(r, n) for r in range(200) for n in range(18)]).T
    expected = teacher(*everything).half()
    for writer in writers:
        for share in (0.2, 0.5):
            wait_for(lambda share=share: reader.known_share() > share)
            logits, known = reader.read(*everything)  # while they write
            assert torch.equal(logits[known], expected[known])
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    logits, known = table(tmp_path, count=200).read(*everything)
    assert known.float().mean() > 0.5
    assert torch.equal(logits[known], expected[known])


def _on_a_full_disk(folder, report):
    t = table(folder, count=200)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    warnings = []
    cache = CachedLogits({"weak": t}, {"weak": WEAK}, warnings.append)
    for row in (0, 150, 151):
        answer, expected = request(cache, torch.tensor([row]), draws_of_outcome(WEAK, 3, 1), [])
        assert torch.equal(answer, expected)
    report.write_text("\n".join(warnings))


def test_a_full_disk_costs_the_table_not_the_training(tmp_path, in_child):
    report = tmp_path / "report"
    child = in_child(_on_a_full_disk, tmp_path / "cache", report)
    child.join()
    assert report.read_text().count("training goes on without filling it") == 1
    rows, numbers = torch.tensor([0, 150]), torch.tensor([3, 3])
    assert table(tmp_path / "cache", count=200).read(rows, numbers)[1].tolist() == [True, False]


def test_a_folder_that_cannot_be_used_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KdbenchError, match="choose another --teacher-cache"):
        table(tmp_path / "file" / "cache")


# --- in training ---


def cells(lab, *methods, **options):
    registry.load()
    pair = [Pair("teacher", "student")]
    ids = {"teacher": lab.teacher.id}
    return plan_cells(Selection(lab.suite, methods, pair, [0]), lab.split.id, ids, **options)


def trained(lab, cells, cache=None):
    results, _ = train_cohort(dataclasses.replace(lab.job(cells), teacher_cache=cache))
    for result in results:
        assert result.row["status"] == "ok", result.row["error"]
    return {result.cell.method: result for result in results}


def same(one, other):
    return all(torch.equal(one.student[name], other.student[name]) for name in one.student)


def test_the_id_records_the_cache_where_it_is_used(lab):
    """Methods that need no teacher or more of it than logits bypass the cache and keep their ids."""
    for name, used in {"ce": False, "kd": True, "mlkd": True, "at": False, "srrl": False}.items():
        (plain,), (cached,) = cells(lab, name), cells(lab, name, teacher_cache=True)
        assert (cached.teacher_cache == "fp16") is used
        assert (plain.id != cached.id) is used
        assert plain.teacher_cache is None


def test_numbers_with_the_cache_are_those_without_up_to_fp16(lab, tmp_path):
    """fp16 keeps 11 bits, so logits of size 8 move by at most 1/512; the weights after two epochs hardly."""
    names = ("ce", "kd", "mlkd", "at")
    plain = trained(lab.using(work="a"), cells(lab, *names))
    cached = trained(lab.using(work="b"), cells(lab, *names, teacher_cache=True), tmp_path / "cache")
    for name in names:
        bypassed = name in ("ce", "at")
        assert same(plain[name], cached[name]) is bypassed, name
        for key, value in plain[name].student.items():
            assert torch.allclose(cached[name].student[key].float(), value.float(), atol=3e-3), (name, key)


def test_a_filled_cache_gives_the_same_bits_alone_and_in_company(lab, tmp_path):
    """With fp32 on one machine the batch's make-up leaves no trace that fp16 would keep."""
    first = trained(lab.using(work="a"), cells(lab, "kd", "dkd", teacher_cache=True), tmp_path)
    again = trained(lab.using(work="b"), cells(lab, "kd", teacher_cache=True), tmp_path)
    assert same(first["kd"], again["kd"])


def test_cached_logits_are_not_computed_again(lab, tmp_path, monkeypatch):
    batch_sizes = []
    forward = Network.forward

    def counting(net, images, needs=None):
        if not net.training:
            batch_sizes.append(len(images))
        return forward(net, images, needs or Needs())

    cached = cells(lab, "kd", teacher_cache=True)
    trained(lab.using(work="a"), cached, tmp_path)
    monkeypatch.setattr(Network, "forward", counting)
    trained(lab.using(work="b"), cached, tmp_path)
    with_cache = sum(batch_sizes)
    batch_sizes.clear()
    trained(lab.using(work="c"), cells(lab, "kd"))
    epochs, images = lab.suite.recipe.epochs, len(lab.split.train)
    assert sum(batch_sizes) - with_cache == epochs * images


def test_the_command_line_fills_and_uses_it(lab):
    """Filled ahead, a run computes nothing new; typed again without the cache, kd is another cell and at is not."""
    lab.suite_file()
    usual = ("--suite", "tiny.toml", "--data-dir", "data")
    cache = ("--teacher-cache", "cache")
    missing = kdbench("teachers", "cache", *usual, *cache, cwd=lab.folder)
    assert missing.code == 1
    assert "teachers train" in missing.err
    assert kdbench("teachers", "train", *usual, cwd=lab.folder).code == 0
    filled = kdbench("teachers", "cache", *usual, *cache, cwd=lab.folder)
    assert filled.code == 0, filled.err
    assert "view weak: 100.0% of" in filled.err
    (file,) = (lab.folder / "cache").iterdir()
    before = file.read_bytes()
    assert len(before) == len(lab.split.train) * 18 * 5 * 2
    done = kdbench("run", *usual, "--methods", "kd,at", *cache, cwd=lab.folder)
    assert done.code == 0, done.err
    assert file.read_bytes() == before
    plan_again = kdbench("run", *usual, "--methods", "kd,at", "--dry-run", cwd=lab.folder).out
    assert "2 cells = 1 done + 1 missing" in plan_again
