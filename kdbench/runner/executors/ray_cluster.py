"""The connection to a Ray cluster, and whether its nodes have what a job gets."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from kdbench.errors import KdbenchError
from kdbench.runner.executors.ray_code import stage
from kdbench.runner.options import RunOptions

GIB = 1 << 30
TIMEOUT = 10.0  # seconds in which a cluster must answer
Resources = Mapping[str, float]  # by Ray's names: CPU, GPU, memory (bytes)


@contextlib.contextmanager
def connected(address: str, plugins: Path | None, threads: int) -> Iterator[None]:
    """Within the block this process is the driver of a cluster, whose nodes get kdbench's code and ``plugins``.

    address: auto (RAY_ADDRESS, else the cluster of this machine), HOST:PORT, or local: one of its own.
    Raises KdbenchError where there is no cluster or it has other versions.
    """
    _check_reachable(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    if ray.is_initialized():
        raise KdbenchError(
            "Ray is in use in this process; call ray.shutdown() first, kdbench connects by itself"
        )
    with tempfile.TemporaryDirectory(prefix="kdbench-") as folder, _own_signals():
        environment = {
            "py_modules": stage(Path(folder), plugins),
            "env_vars": {"OMP_NUM_THREADS": str(threads)},  # it counts only before torch is imported
        }
        own: dict[str, Any] = {}
        if address == "local":
            own = {"include_dashboard": False}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report its use over the network
        try:
            ray.init(
                address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR, **own
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()).rstrip(".")  # of other versions it has several lines
            raise KdbenchError(
                f"cannot connect to the Ray cluster {address}: {reason}; see docs/clusters.md for how to start one, or "
                "say --address local"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise KdbenchError where nothing answers: Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    try:
        if colon:
            socket.create_connection((host.strip("[]"), int(port)), TIMEOUT).close()
    except (OSError, ValueError) as error:
        raise KdbenchError(
            f"no Ray cluster answers at {address} ({error}); see docs/clusters.md for how to start one, or say "
            "--address local"
        ) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets handlers of its own, which would end the driver without saving; after the block ours are back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def nodes() -> list[Resources]:
    """What each node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def resources_of(options: RunOptions, nodes: Iterable[Resources]) -> dict[str, float]:
    """What a job gets, by Ray's names: as the options say, else a CPU per rank, and a GPU where the cluster has any."""
    gpus = options.gpus_per_job
    if gpus is None:
        on_gpu = options.device.startswith("cuda") or any(node.get("GPU") for node in nodes)
        gpus = float(options.device != "cpu" and on_gpu)
    memory = round((options.memory_per_job or 0) * GIB)
    ranks = int(options.ranks)
    gpus = float(ranks) if gpus and ranks > 1 else gpus
    return {"CPU": ranks * (options.cpus_per_job or 1), "GPU": gpus, "memory": memory}


def check_fits(job: Resources, nodes: Iterable[Resources]) -> None:
    """Raise KdbenchError where no node has what a job gets: Ray would wait for one for ever."""
    nodes = list(nodes)
    if not any(all(node.get(name, 0) >= amount for name, amount in job.items()) for node in nodes):
        known = "; ".join(dict.fromkeys(_text(node) for node in nodes))
        raise KdbenchError(
            f"no node of the Ray cluster has what a job gets, {_text(job)}; its nodes have: {known}; say less by "
            "--gpus-per-job, --cpus-per-job and --memory-per-job, or add a node first"
        )


def _text(resources: Resources) -> str:
    gpus, memory = resources.get("GPU", 0), resources.get("memory", 0) / GIB
    parts = [
        f"{resources.get('CPU', 0):g} CPU",
        f"{gpus:g} GPU" if gpus else "",
        f"{memory:.3g} GiB" if memory else "",
    ]
    return " + ".join(filter(None, parts))


def here() -> dict[str, Any]:
    """Options of an actor that runs on this machine and takes nothing from jobs."""
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    return {"num_cpus": 0, "scheduling_strategy": strategy}
