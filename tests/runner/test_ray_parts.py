"""The parts of the Ray executor that need no cluster: what a job gets, what travels, and what is refused."""

import os
import re
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ray", reason="needs kdbench[ray]")

import ray

from kdbench.errors import KdbenchError
from kdbench.runner.executors import ray as executor
from kdbench.runner.executors import ray_job
from kdbench.runner.executors.ray_cluster import GIB, check_fits, connected, resources_of
from kdbench.runner.executors.ray_code import PLUGINS, stage
from kdbench.runner.options import RunOptions
from kdbench.train.cell_trainer import build_net
from tests.support.local_networks import network, write


def node(cpu, gpu=0.0, memory=8.0):
    """What Ray says of a node."""
    return {"CPU": cpu, "memory": memory * GIB, **({"GPU": gpu} if gpu else {}), "node:10.0.0.1": 1.0}


@pytest.mark.parametrize(
    ("choice", "cluster", "expected"),
    [
        ({}, [node(4)], (1, 0, 0)),
        ({}, [node(4), node(4, gpu=2.0)], (1, 1, 0)),
        ({"device": "cpu"}, [node(4, gpu=2.0)], (1, 0, 0)),
        ({"device": "cuda"}, [node(4)], (1, 1, 0)),
        (
            {"gpus_per_job": 0.5, "cpus_per_job": 3, "memory_per_job": 1.5},
            [node(4)],
            (3, 0.5, 3 << 29),
        ),
    ],
)
def test_a_job_gets_a_gpu_where_there_are_any(choice, cluster, expected):
    found = resources_of(RunOptions(executor="ray", **choice), cluster)
    assert (found["CPU"], found["GPU"], found["memory"]) == expected


@pytest.mark.parametrize(
    "wish", [{"CPU": 5}, {"GPU": 1}, {"CPU": 4, "memory": 9 * GIB}, {"CPU": 2, "GPU": 0.5}]
)
def test_what_no_node_has_is_refused(wish):
    """The last one: one node has the CPUs, the other the GPU."""
    cluster = [node(4), node(1, gpu=1.0)] if wish.get("GPU") == 0.5 else [node(4)]
    with pytest.raises(
        KdbenchError, match=r"no node .* has what a job gets, .*; its nodes have: 4 CPU \+ 8 GiB"
    ):
        check_fits({"CPU": 1, **wish}, cluster)


def test_what_one_node_has_is_enough():
    check_fits({"CPU": 1, "GPU": 1, "memory": 8 * GIB}, [node(4), node(1, gpu=1.0)])


def test_versions_that_differ_are_named():
    own = ray_job.versions()
    ray_job.check_versions(own, own)
    assert list(own) == ["Python", "kdbench", "torch", "Ray"]
    for name in own:
        with pytest.raises(
            KdbenchError, match=f"it has {name} 0.1.2, the driver {re.escape(own[name])}; install"
        ):
            ray_job.check_versions(own, {**own, name: "0.1.2"})


def test_the_code_that_travels(tmp_path, scratch_registry):
    """The package with its methods, and of the plug-ins' folder what they import."""
    plugins = tmp_path / "own"
    plugins.mkdir()
    for name in ("mine.py", "scales.py", "test_mine.py", "notes.txt"):
        (plugins / name).write_text("import scales\n" if name == "mine.py" else "", "utf-8")
    places = stage(tmp_path / "staged", plugins / "mine.py")
    package, copies = map(Path, places)
    assert (package / "methods" / "kd.py").is_file()
    assert (package / "suites" / "builtin" / "digits.toml").is_file()
    assert not list(package.rglob("__pycache__"))
    inside = copies / plugins.resolve().relative_to("/")
    assert copies.name == PLUGINS
    assert sorted(path.name for path in inside.iterdir()) == ["mine.py", "scales.py"]


def test_a_node_without_a_package_says_so(monkeypatch):
    """The task itself needs nothing but Ray."""
    monkeypatch.setitem(sys.modules, "kdbench.runner.executors.ray_job", None)
    answer = executor._entry()(b"", {}, None)
    assert isinstance(answer, KdbenchError)
    assert re.match(r"node \S+ lacks what kdbench needs: .*; install it there", str(answer))


MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.9.0
    Python: 3.10.1
This process on 10.0.0.1 was started with:
    Ray: 2.60.0
    Python: 3.11.7
"""


def refuse(*arguments, **options):
    """What Ray does at a cluster of other versions: its handler is set before."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    raise RuntimeError(MISMATCH)


def test_a_cluster_of_other_versions_is_refused(monkeypatch):
    """Both are named, and SIGTERM is the driver's again."""
    monkeypatch.setattr(ray, "init", refuse)
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with (
            pytest.raises(KdbenchError, match=r"started with: Ray: 2\.9\.0 .* Ray: 2\.60\.0"),
            connected("auto", None, 1),
        ):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_a_place_without_a_cluster_is_refused_at_once():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with (
            pytest.raises(KdbenchError, match=f"no Ray cluster answers at {address}"),
            connected(address, None, 1),
        ):
            pass


def test_a_process_that_uses_ray_itself_is_refused(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(KdbenchError, match=r"call ray\.shutdown\(\) first"), connected("local", None, 1):
        pass


def test_the_files_that_a_job_reads_travel(lab, tmp_path):
    """Teacher and the weights that a student starts from are built from the node's copies."""
    name = write(tmp_path / "net", network("test_resnet", 4, seed=1))
    inputs = lab.inputs(pairs=f"teacher->{name}", methods=["kd"], teacher_weights=lab.teacher.path.parent)
    job = inputs.job(inputs.cells())
    paths = ray_job.input_files(job)
    contents = [np.fromfile(path, np.uint8) if path.is_file() else None for path in paths]
    moved = ray_job._on_node(replace(job, work=tmp_path / "node"), contents)
    for path in filter(Path.is_file, paths):
        path.rename(path.with_suffix(".away"))
    try:
        assert moved.teacher.net(lab.suite.dataset)
        net = build_net(moved.cells[0], torch.device("cpu"), moved.work)
    finally:
        for path in paths:
            if (away := path.with_suffix(".away")).is_file():
                away.rename(path)
    start = network("test_resnet", 4, seed=1).state_dict()
    assert all(torch.equal(net.model.state_dict()[key], start[key]) for key in start)
