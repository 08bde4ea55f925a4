"""Jobs on a Ray cluster: the same numbers, and nothing is lost whoever dies.

The cluster is of this machine: a head and three nodes of one CPU and a made-up GPU each.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("ray", reason="needs kdbench[ray]")

import ray

from kdbench.contract import toy_suite
from kdbench.errors import KdbenchError
from kdbench.results import store
from kdbench.runner.executors import ray as executor
from kdbench.runner.executors import ray_job
from kdbench.runner.run import run
from kdbench.train.callbacks import Progress
from tests.support.cli_process import ENVIRONMENT
from tests.support.heard import Lanes
from tests.support.tiny import NUMBERS

STARTING = 300  # seconds that processes may take to import torch on a busy machine
# jobs are not to wait for all else that this machine does
SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
PLUGIN = """
from kdbench.method import Method
from kdbench.registry import register
from scales import half


@register
class Mine(Method):
    def loss(self, batch, student, teacher, modules):
        return {"ce": half(student.logits.square().mean())}


@register
class Bad(Method):
    def loss(self, batch, student, teacher, modules):
        if batch.epoch > 1 and not batch.last:  # not in the step that is tried before all
            raise ValueError("on purpose")
        return {"ce": student.logits.square().mean()}
"""


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, and three nodes."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "PYTHONPATH": ENVIRONMENT["PYTHONPATH"]}.items():
            patch.setenv(name, value)
        started = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
        for _ in range(3):
            started.add_node(num_cpus=1, num_gpus=1)
        yield started
        started.shutdown()


@pytest.fixture
def options(lab, monkeypatch, teacher_state):
    """Of `run`, without the executor: ce and kd on three seeds, a job per seed."""
    monkeypatch.setattr(executor, "SAVE_EVERY", 0.2)
    (lab.folder / "weights").mkdir()
    torch.save(teacher_state, lab.folder / "weights" / "teacher.pth")
    return {
        "suite": lab.suite_file(), "methods": ["ce", "kd"], "data_dir": lab.data, "seeds": [0, 1, 2],
        "teacher_weights": lab.folder / "weights", "results": lab.folder / "results", "device": "cpu",
    }  # fmt: skip


@pytest.fixture
def on_cluster(cluster):
    """The options that run jobs there."""
    return {"executor": "ray", "address": cluster.address, "gpus_per_job": 1}


def numbers(rows):
    return rows.sort_values("cell_id")[NUMBERS].to_csv(index=False)


def alone(options, lab):
    """The numbers that one process gives."""
    return numbers(run(**{**options, "results": lab.folder / "alone"}, progress=Progress()).rows)


def rows_of(options):
    return store.read(options["results"] / "tiny.csv")


def checkpoints(options):
    return list((options["results"] / ".work").glob("*.pt"))


def tasks():
    """The processes of this one's descendants that train a job of Ray."""
    parents, names = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            parents[status.parent.name] = status.read_text("utf-8").partition("PPid:")[2].split()[0]
            names[status.parent.name] = (status.parent / "cmdline").read_bytes()
    own, before = {str(os.getpid())}, set()
    while own != before:
        before = own
        own = own | {pid for pid, parent in parents.items() if parent in own}
    return [int(pid) for pid in own if names.get(pid, b"").startswith(b"ray::kdbench")]


@pytest.mark.slow
def test_three_nodes_give_the_numbers_of_one_process(options, on_cluster, lab):
    """Plug-ins and the file that they import travel, a teacher that the driver has trained, and tracebacks back."""
    plugins = lab.folder / "own"
    plugins.mkdir()
    (plugins / "mine.py").write_text(PLUGIN, "utf-8")
    (plugins / "scales.py").write_text("def half(value):\n    return value / 2\n", "utf-8")
    options |= {"plugins": plugins, "methods": ["ce", "kd", "mine", "bad"], "teacher_weights": None}
    lanes = Lanes()
    rows = run(**options, **on_cluster, progress=lanes).rows
    assert rows[["executor", "jobs", "threads"]].drop_duplicates().values.tolist() == [["ray", 1, 1]]
    assert rows.groupby("method")["status"].unique().map(list).to_dict() == {
        "bad": ["error"],
        "ce": ["ok"],
        "kd": ["ok"],
        "mine": ["ok"],
    }
    assert numbers(rows) == alone(options, lab)
    assert sum(lane.steps for lane in lanes.lanes.values()) == 3 * 8
    for cell, error in rows.loc[rows["method"] == "bad", ["cell_id", "error"]].values:
        log = options["results"] / ".work" / "errors" / f"{cell}.txt"
        assert f"ValueError: on purpose (traceback in {log})" in error
        assert "on purpose" in log.read_text("utf-8")
    assert not checkpoints(options)


@pytest.mark.slow
def test_workers_that_die_cost_their_jobs_nothing(options, on_cluster, lab):
    """One is killed, another one segfaults."""
    deaths, dead = [signal.SIGKILL, signal.SIGSEGV], set()

    def kill():
        alive = [pid for pid in tasks() if pid not in dead]  # one that dies is there for a while
        if deaths and alive:
            dead.add(alive[0])
            os.kill(alive[0], deaths.pop())

    options |= {"epochs": 20, "seeds": [0, 1]}
    lanes = Lanes(kill)
    outcome = run(**options, **on_cluster, progress=lanes)
    assert outcome.exit_code == 0, outcome.rows["error"].tolist()
    assert sum("died; they continue" in text for text in lanes.said) == 2
    assert rows_of(options)["attempt"].tolist() == [1] * 4
    assert numbers(outcome.rows) == alone(options, lab)


@pytest.mark.slow
@pytest.mark.parametrize("grace", [False, True])
def test_jobs_of_a_node_that_goes_away_go_on_elsewhere(cluster, options, on_cluster, lab, grace):
    """Without grace it is gone at once; with it Ray says so half a minute before, as with a spot machine."""
    before = set(cluster.worker_nodes)
    going = cluster.add_node(num_cpus=4, num_gpus=1)
    begun = []

    def remove():
        begun.append(1)
        if len(begun) > 1:
            return
        if grace:
            client = ray._raylet.GcsClient(address=cluster.address)
            preemption = 2  # of a spot machine
            assert client.drain_node(going.node_id, preemption, "spot", 0)[0]
        else:
            cluster.remove_node(going, allow_graceful=False)
        cluster.add_node(wait=False, num_cpus=4, num_gpus=1)

    options |= {"epochs": 200, "seeds": [0], "methods": ["ce"]}
    lanes = Lanes(remove)
    try:
        outcome = run(**options, **on_cluster, cpus_per_job=4, progress=lanes)
    finally:
        for added in set(cluster.worker_nodes) - before:
            cluster.remove_node(added)
    assert outcome.exit_code == 0, outcome.rows["error"].tolist()
    assert len(begun) == 2
    said = "is taken away; they go on elsewhere" if grace else "died; they continue"
    assert sum(said in text for text in lanes.said) == 1
    assert rows_of(options)["attempt"].tolist() == [1]


# the command line, whose jobs save their state more often
DRIVER = """
import sys
from kdbench.cli.main import main
from kdbench.runner.executors import ray
ray.SAVE_EVERY = 0.2
sys.argv = ["kdbench", *sys.argv[1:]]
main()
"""


@pytest.fixture
def driver(cluster, options, lab):
    """Start `kdbench run` of two seeds in a process group of its own; what still runs at the end is killed."""
    started = []

    def start(epochs):
        command = [
            "run", "--suite=tiny.toml", "--methods=ce", "--seeds=0-1", f"--epochs={epochs}", "--device=cpu",
            f"--data-dir={lab.data}", f"--results={options['results']}",
            "--executor=ray", f"--address={cluster.address}",
        ]  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, *command],
            cwd=lab.folder,
            env={**ENVIRONMENT, **SETTINGS},
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_driver_that_ends_is_taken_up_again(number, driver, options, on_cluster, lab, wait_for):
    """Ctrl-C saves every job and records it; of a driver that is killed the checkpoints are left."""
    process = driver(epochs=60)
    wait_for(lambda: checkpoints(options), "a checkpoint", STARTING)
    os.killpg(process.pid, number)
    _, said = process.communicate()
    assert "Traceback" not in said
    wait_for(lambda: not tasks(), "the end of the jobs", STARTING)
    assert checkpoints(options)
    if number == signal.SIGINT:
        assert process.returncode == 130, said
        assert len(rows_of(options)) == len(checkpoints(options))
        assert set(rows_of(options)["status"]) == {"interrupted"}
    else:
        assert not (options["results"] / "tiny.csv").exists()
    options |= {"methods": ["ce"], "epochs": 60, "seeds": [0, 1]}
    outcome = run(**options, **on_cluster, progress=Progress())
    assert outcome.exit_code == 0
    assert numbers(outcome.rows) == alone(options, lab)
    assert checkpoints(options) == []


@pytest.mark.slow
def test_a_second_signal_kills(driver, options, wait_for):
    process = driver(epochs=3000)
    wait_for(lambda: checkpoints(options), "a checkpoint", STARTING)
    for pid in tasks():
        os.kill(pid, signal.SIGSTOP)  # so that it does not save
    process.send_signal(signal.SIGINT)
    assert any("the state is being saved" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()  # communicate() would lose what is read ahead
    process.wait()
    assert process.returncode == 130, said
    wait_for(lambda: not tasks(), "the end of the jobs", STARTING)


@pytest.mark.slow
def test_a_node_with_other_data_is_named(cluster, options, on_cluster, lab, monkeypatch):
    monkeypatch.setenv("KDBENCH_DATA", str(lab.data))
    other, data = lab.folder / "other", lab.suite.dataset
    toy_suite.write_images(other / f"{data.name}.npz", data.classes, data.size, train=64, test=16)
    odd = cluster.add_node(num_cpus=9, num_gpus=1, env_vars={"KDBENCH_DATA": str(other)})
    try:
        with pytest.raises(KdbenchError, match=rf"on node .*{odd.node_id[:8]}.*: the images of tiny here"):
            run(
                **{**options, "data_dir": None, "seeds": [0]},
                **on_cluster,
                cpus_per_job=9,
                progress=Progress(),
            )
    finally:
        cluster.remove_node(odd)
    assert not (options["results"] / "tiny.csv").exists()


@pytest.mark.slow
def test_other_versions_on_a_node_are_named(options, on_cluster, monkeypatch):
    monkeypatch.setattr(executor, "versions", lambda: {**ray_job.versions(), "torch": "1.0"})
    installed = re.escape(ray_job.versions()["torch"])
    with pytest.raises(
        KdbenchError, match=rf"on node .*: it has torch {installed}, the driver 1\.0; install"
    ):
        run(**options, **on_cluster, progress=Progress())


@pytest.mark.slow
def test_what_the_cluster_does_not_have_is_refused(options, on_cluster):
    with pytest.raises(
        KdbenchError, match=r"what a job gets, 64 CPU \+ 1 GPU; its nodes have: .*1 CPU \+ 1 GPU"
    ):
        run(**options, **on_cluster, cpus_per_job=64, progress=Progress())
    assert not ray.is_initialized()
