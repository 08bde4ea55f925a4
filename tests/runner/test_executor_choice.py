"""Which executor trains, on which devices, and what is refused before anything starts."""

from pathlib import Path

import pytest
import torch

from kdbench.errors import KdbenchError
from kdbench.runner.executors import open_executor, process_devices
from kdbench.runner.options import RunOptions
from kdbench.runner.paths import Paths
from kdbench.train.callbacks import Progress
from kdbench.utils.environment import choose_devices

GPUS = ("cuda:0", "cuda:1")


@pytest.mark.parametrize(
    ("devices", "jobs", "cohorts", "expected"),
    [
        (["cpu"], 1, 9, ["cpu"]),
        (["cpu"], 3, 2, ["cpu", "cpu"]),
        (["cpu"], "auto", 9, ["cpu"] * 4),
        (["cpu"], 2, 0, ["cpu"]),
        (GPUS, 1, 9, list(GPUS)),
        (GPUS, "auto", 9, list(GPUS)),
        (GPUS, "auto", 1, ["cuda:0"]),
        (GPUS, 4, 9, [*GPUS, *GPUS]),
        (["cuda:0"], "auto", 9, ["cuda:0"]),
    ],
)
def test_each_process_has_a_device(monkeypatch, devices, jobs, cohorts, expected):
    """A GPU is shared only where more jobs than GPUs are named."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert process_devices(devices, jobs, cohorts) == expected


@pytest.mark.parametrize(
    ("choice", "devices", "name", "slots", "jobs"),
    [
        ({}, ["cpu"], "serial", 1, 1),
        ({"jobs": 2}, ["cpu"], "processes", 2, 2),
        ({"executor": "processes"}, ["cpu"], "processes", 1, 1),
        ({"device": "all"}, GPUS, "processes", 2, 1),
        ({"device": "all", "jobs": 4}, GPUS, "processes", 4, 2),
        ({"executor": "serial"}, ["cpu"], "serial", 1, 1),
    ],
)
def test_the_executor_follows_from_the_options(choice, devices, name, slots, jobs):
    with open_executor(
        RunOptions(**choice), devices, 9, Paths(Path("results"), "tiny"), Progress(), lambda: False
    ) as executor:
        assert (executor.name, executor.slots, executor.jobs) == (name, slots, jobs)


@pytest.mark.parametrize(
    "more", [{"jobs": 2}, {"jobs": "auto"}, {"device": "all"}, {"device": "cuda:0,cuda:1"}]
)
def test_serial_takes_one_job_and_one_device(more):
    with pytest.raises(
        KdbenchError, match="serial trains one cohort at a time on one device; leave out jobs"
    ):
        RunOptions(executor="serial", **more)


def test_an_unknown_executor_names_the_known_ones():
    with pytest.raises(KdbenchError, match="unknown executor"):
        RunOptions(executor="process")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"address": "auto"}, "address needs the executor ray"),
        ({"executor": "slurm", "gpus_per_job": 1}, "gpus_per_job needs the executor ray"),
        ({"executor": "processes", "cpus_per_job": 1}, "cpus_per_job needs the executor ray"),
        ({"executor": "ray", "jobs": 2}, "the executor ray makes each cohort a job on one device"),
        ({"executor": "ray", "address": "ray://head:1"}, "address must be auto, local or HOST:PORT"),
        ({"executor": "ray", "gpus_per_job": 2}, "a cohort trains on one GPU"),
        ({"executor": "ray", "gpus_per_job": 0, "device": "cuda:0"}, "a job on cuda:0 needs a GPU"),
        ({"executor": "ray", "cpus_per_job": 0.5}, "cpus_per_job must be a whole number of at least 1"),
        ({"executor": "ray", "memory_per_job": "8G"}, "memory_per_job must be a number"),
    ],
)
def test_what_an_executor_does_not_take_is_refused(choice, words):
    with pytest.raises(KdbenchError, match=words):
        RunOptions(**choice)


@pytest.mark.parametrize(("executor", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_package_names_its_extra(monkeypatch, executor, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        KdbenchError, match=rf"the executor {executor} needs {package}; .*'kdbench\[{executor}\]'"
    ):
        RunOptions(executor=executor)


def test_all_devices_and_lists_of_them(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_devices("all") == ("cuda:0", "cuda:1", "cuda:2")
    assert choose_devices("cuda:2, cuda:0") == ("cuda:2", "cuda:0")
    assert choose_devices("auto") == ("cuda:0",)
    for text, words in {
        "cuda:0,cuda:0": "names a device twice; --jobs",
        "cuda,cuda:3": "no device cuda:3: torch sees 3",
        "cpu,cuda:0": "mixes a CPU and GPUs",
    }.items():
        with pytest.raises(KdbenchError, match=words):
            choose_devices(text)


def test_all_devices_where_there_are_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(KdbenchError, match="torch sees none; use cpu or auto"):
        choose_devices("all")
