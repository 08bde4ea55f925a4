"""Progress that goes through messages shows what it would show in one process."""

from kdbench.runner.executors.reports import Display, Reporter
from kdbench.train.callbacks import Progress


class Calls(Progress):
    """Notes every call."""

    def __init__(self):
        self.calls = []

    def __getattribute__(self, name):
        calls = object.__getattribute__(self, "calls")
        return calls if name == "calls" else lambda *arguments: calls.append((name, *arguments))


def train(progress):
    progress.begin(2, 3, 4, 0)
    progress.step(16)
    progress.step(16)
    progress.epoch(1, {"kd": 50.0})
    progress.warn("careful")
    progress.say("hello")
    progress.end()


def test_every_call_arrives_in_its_order():
    direct, shown = Calls(), Calls()
    train(direct)
    train(Reporter(Display(shown).show, pause=60))
    assert shown.calls == direct.calls


def test_steps_are_gathered():
    parcels = []
    reporter = Reporter(parcels.append, pause=60)
    train(reporter)
    assert [[name for name, _ in parcel] for parcel in parcels] == [
        ["begin"],
        ["step", "step", "epoch", "warn"],
        ["say"],
        ["end"],
    ]
    parcels.clear()
    train(Reporter(parcels.append, pause=-1))
    assert [len(parcel) for parcel in parcels] == [1] * 7


def test_a_job_that_dies_leaves_no_bar_behind():
    calls = Calls()
    display = Display(calls)
    display.close()
    display.show([("begin", (1, 1, 1, 0)), ("step", (16,))])
    display.close()
    display.close()
    display.show([("begin", (1, 1, 1, 0)), ("end", ())])
    display.close()
    assert [name for name, *_ in calls.calls] == ["begin", "step", "end", "begin", "end"]
