"""Tables of a teacher's logits in a device's memory: the same numbers as from the files, without a wait."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdbench.data.augment import draw
from kdbench.errors import KdbenchError
from kdbench.suites.schema import View
from kdbench.teachers import device_logits, logit_cache
from kdbench.teachers.device_logits import DeviceLogits, fits
from kdbench.teachers.logit_cache import CachedLogits, Table, outcome_numbers

CPU, WEAK = torch.device("cpu"), View(pad=1, flip=True)
COUNT = 40


def table(folder):
    return Table(folder, "k", COUNT, WEAK, 3)


def opened(folder, warn=pytest.fail):
    return CachedLogits({"weak": table(folder)}, {"weak": WEAK}, warn)


def batches(epochs=3):
    for epoch in range(epochs):
        draws = draw(WEAK, COUNT, (5, 5), torch.Generator().manual_seed(epoch))
        order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(100 + epoch))
        for rows in order.split(16):
            yield rows, {name: values[rows] for name, values in draws.items()}


def ask(cache, rows, draws, computed):
    numbers = outcome_numbers(WEAK, draws, len(rows))
    logits = torch.stack([rows.float(), numbers.float() / 3, rows * numbers / 7.0], dim=1)

    def compute(places):
        computed.extend(places.tolist())
        return logits[places]

    return cache.logits("weak", rows, draws, compute)


def test_the_device_gives_what_the_files_give(tmp_path, monkeypatch):
    monkeypatch.setattr(logit_cache, "PART", 1000)  # bytes: the file is read in parts
    files, device = opened(tmp_path / "files"), DeviceLogits(opened(tmp_path / "device"), CPU)
    computed = {"files": [], "device": []}
    for rows, draws in batches():
        expected = ask(files, rows, draws, computed["files"])
        assert torch.equal(ask(device, rows, draws, computed["device"]), expected)
    device.settle()
    assert computed["device"] == computed["files"]
    paths = [table(tmp_path / name).path for name in computed]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = DeviceLogits(opened(tmp_path / "device"), CPU)
    for rows, draws in batches():
        expected = ask(files, rows, draws, [])
        assert torch.equal(ask(again, rows, draws, unknown := []), expected)
        assert unknown == []


def test_damaged_records_are_computed_again(tmp_path):
    cache = opened(tmp_path)
    rows, draws = next(batches())
    expected = ask(cache, rows, draws, [])
    path = table(tmp_path).path
    content = bytearray(path.read_bytes())
    record = 2 * 4
    place = (int(rows[0]) * 18 + int(outcome_numbers(WEAK, draws, 16)[0])) * record
    content[place] ^= 1
    path.write_bytes(bytes(content))
    device, computed = DeviceLogits(opened(tmp_path), CPU), []
    assert torch.equal(ask(device, rows, draws, computed), expected)
    assert computed == [0]


class Asynchronous(TorchDispatchMode):
    """Raises where the value of a tensor is asked for, which on a GPU waits for all that is under way."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.name() not in ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"), (
            func.name()
        )
        return func(*args, **(kwargs or {}))


def test_neither_hit_nor_miss_asks_for_a_value(tmp_path):
    device = DeviceLogits(opened(tmp_path), CPU)
    for rows, draws in batches():
        with Asynchronous():
            device.logits("weak", rows, draws, lambda places: torch.ones(len(places), 3))
        device._waiting.clear()  # what has arrived is looked at: on the CPU


class Event:
    """Of a copy that is under way until ``query`` has been called twice."""

    def __init__(self):
        self.asked = 0

    def query(self):
        self.asked += 1
        return self.asked > 2

    def synchronize(self):
        self.asked = 2


def test_logits_are_written_when_they_have_arrived(tmp_path, monkeypatch):
    class Late(device_logits._Written):
        def __init__(self, view, rows, numbers, logits, there):
            super().__init__(view, rows, numbers, logits, Event())

    monkeypatch.setattr(device_logits, "_Written", Late)
    device = DeviceLogits(opened(tmp_path), CPU)
    known = []
    for rows, draws in batches(epochs=2):
        ask(device, rows, draws, [])
        known.append(round(table(tmp_path).known_share() * COUNT * 18))
    assert known[:4] == [0, 0, 0, 16]
    device.settle()
    assert table(tmp_path).known_share() * COUNT * 18 == pytest.approx(int(device._known["weak"].sum()))


def test_logits_beyond_fp16_are_an_error(tmp_path):
    device = DeviceLogits(opened(tmp_path), CPU)
    rows, draws = next(batches())
    device.logits("weak", rows, draws, lambda places: torch.full((len(places), 3), 1e6))
    with pytest.raises(KdbenchError, match="train without --teacher-cache"):
        device.settle()


@pytest.mark.parametrize(
    ("free", "expected"), [(2 * 2 * COUNT * 18 * 4, True), (2 * 2 * COUNT * 18 * 4 - 1, False)]
)
def test_tables_take_half_of_the_free_memory(tmp_path, monkeypatch, free, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    assert fits({"weak": table(tmp_path)}, torch.device("cuda:1")) is expected
