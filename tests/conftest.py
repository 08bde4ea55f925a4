"""Shared fixtures: one thread, a registry that forgets, and the laboratory of tests/support/lab.py."""

import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from kdbench import registry
from kdbench.contract import toy_suite
from tests.support.lab import SUITE, Lab
from tests.support.pictures import count_decodes, write_images


def pytest_collection_finish(session):
    """What is there by now stays: the garbage collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Decoded folders and downloads of the tests stay among their temporary files."""
    before = os.environ.get("KDBENCH_CACHE")
    os.environ["KDBENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("KDBENCH_CACHE")
    if before is not None:
        os.environ["KDBENCH_CACHE"] = before


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors are tiny here: threads only cost, and their number changes sums."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    # the first backward after a FakeTensorMode would start autograd's threads, and then no fork could train
    torch.ones((), requires_grad=True).backward()
    yield
    torch.set_num_threads(count)


@pytest.fixture
def scratch_registry(monkeypatch):
    """The shipped methods are loaded; whatever a test registers is forgotten after it."""
    registry.load()
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    return registry


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Class folders of pictures, for tests that only read them."""
    return write_images(tmp_path_factory.mktemp("images") / "pictures")


@pytest.fixture
def own(tmp_path):
    """Images that a test may change."""
    return write_images(tmp_path / "pictures")


@pytest.fixture
def decoded(monkeypatch):
    """The files that this process decodes from now on."""
    return count_decodes(monkeypatch)


@pytest.fixture
def in_child():
    """Start ``function(*args)`` in a process of its own; what still runs at the end of the test is killed."""
    started = []

    def start(function: Callable[..., Any], *args: Any) -> multiprocessing.Process:
        process = multiprocessing.get_context("fork").Process(target=function, args=args, daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()


@pytest.fixture
def wait_for():
    """Wait until ``condition()`` holds; fail after ten seconds, or as many as are given."""

    def wait(condition: Callable[[], Any], what: str = "the other process", seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.002)

    return wait


@pytest.fixture(scope="session")
def lab_parts(tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("lab"), SUITE.dataset
    sizes = toy_suite.TRAIN, toy_suite.TEST
    toy_suite.write_images(folder / "data" / f"{data.name}.npz", data.classes, data.size, *sizes)
    return folder, toy_suite.random_teacher(folder, SUITE, "teacher")


@pytest.fixture
def lab(lab_parts, tmp_path, scratch_registry):
    """The laboratory with an empty folder for checkpoints."""
    folder, teacher = lab_parts
    (tmp_path / "data").symlink_to(folder / "data")
    return Lab(tmp_path, SUITE, teacher)


@pytest.fixture
def teacher_state(lab):
    """The state dict of the laboratory's teacher."""
    return lab.teacher.net(lab.suite.dataset).model.state_dict()


@pytest.fixture
def messages():
    """An empty list, for the messages of a session (``say=messages.append``)."""
    return []
