"""Recording and replaying: fixed buffers, and what the recorder asks of torch, which is not there on this machine."""

import contextlib
import warnings
from pathlib import Path

import pytest
import torch

from kdbench.errors import KdbenchError
from kdbench.method import Batch, Outputs
from kdbench.train.cuda_graphs import WAITED, Buffers, GraphRecorder, Recording, tensors
from kdbench.utils.graph_kinds import graphs_of
from kdbench.utils.precision import autocast, check, computing, tensor_cores
from tests.support.recorders import Overwriting

CUDA = torch.device("cuda:1")


def nest(value):
    generator = torch.Generator()
    batch = Batch(
        torch.full((2,), int(value)), 1.0, False, torch.tensor(value), generator, torch.ones(2) * value
    )
    outputs = Outputs(torch.ones(2) * value, stages=(torch.ones(1) * value, torch.ones(2) * value))
    return batch, {"b": torch.ones(3) * value, "a": torch.ones(1) * value}, {"v": outputs}, None


def test_buffers_are_copies_that_stay_where_they_are():
    first = nest(1.0)
    buffers = Buffers(first)
    places = [tensor.data_ptr() for tensor in tensors(buffers.values)]
    for tensor in tensors(first):
        tensor.fill_(99)
    assert all((tensor == 1).all() for tensor in tensors(buffers.values))
    buffers.fill(nest(2.0))
    assert all((tensor == 2).all() for tensor in tensors(buffers.values))
    assert [tensor.data_ptr() for tensor in tensors(buffers.values)] == places
    assert buffers.values[0].generator is first[0].generator


def test_a_recording_runs_twice_before_it_replays():
    recorder, x = Overwriting(), torch.zeros(1)
    run = Recording(lambda: x + 1, recorder)
    results = []
    for value in range(5):
        x.fill_(value)
        run.prepare()
        results.append(run())
        assert results[-1] == value + 1
        assert run.is_recorded is (value >= 2)
    assert len(recorder.recorded) == 1
    assert results[2] is results[4]  # one place, overwritten
    run.restart()
    for recorded in (False, True):
        run.prepare()
        assert run.is_recorded is recorded
        run()


def test_a_function_that_waits_is_not_recorded():
    recorder = Overwriting()
    run = Recording(lambda: recorder.wait(torch.zeros(1)), recorder)
    for _ in range(4):
        run.prepare()
        run()
    assert run.waits
    assert not recorder.recorded


# --- the recorder of CUDA graphs, with torch's part replaced ---


class Torch:
    """What `GraphRecorder` uses of torch.cuda: the current stream, and captures that may fail as torch's do."""

    def __init__(self, monkeypatch):
        self.stream, self.modes, self.mode = "main", [], 0
        self.end = lambda: None  # what the end of a capture does
        self.graphs = []
        for name in ("graph_pool_handle", "Stream", "CUDAGraph", "graph", "current_stream", "set_stream"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: self.mode)
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", self.modes.append)

    def graph_pool_handle(self):
        return "pool"

    def Stream(self, device):
        assert device == CUDA
        return "side"

    def CUDAGraph(self):
        self.graphs.append(Graph())
        return self.graphs[-1]

    @contextlib.contextmanager
    def graph(self, graph, pool, stream, capture_error_mode):
        assert (pool, stream, capture_error_mode) == ("pool", "side", "thread_local")
        self.stream = (
            stream  # stays so where the end of the capture raises: torch restores it only after that
        )
        try:
            yield
        finally:
            self.end()
            self.stream = "main"

    def current_stream(self, device):
        assert device == CUDA
        return self.stream

    def set_stream(self, stream):
        self.stream = stream


class Graph:
    def __init__(self):
        self.generators, self.replays = [], 0

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.replays += 1


@pytest.fixture
def fake(monkeypatch):
    return Torch(monkeypatch)


def test_a_replay_returns_what_was_recorded(fake):
    generator = torch.Generator()
    result = torch.ones(1)
    replay = GraphRecorder(CUDA).record(lambda: result, [generator])
    assert replay() is replay() is result
    (graph,) = fake.graphs
    assert graph.replays == 2
    assert graph.generators == [generator]
    assert fake.stream == "main"


def test_the_memory_of_graphs_is_never_without_a_graph(fake):
    """torch cannot use a pool again whose graphs are all gone."""
    recorder = GraphRecorder(CUDA)
    for number in range(2):
        recorder.record(lambda: None)
        assert recorder._latest is fake.graphs[number]


def test_an_empty_graph_is_refused(fake):
    """torch only warns: with a wrong current device the graph holds nothing, and its replays train nothing."""
    fake.end = lambda: warnings.warn(
        "The CUDA Graph is empty. This usually means that the graph was attempted to be captured on wrong device or "
        "stream.",
        stacklevel=1,
    )
    with pytest.raises(KdbenchError, match=r"cannot be recorded .*Graph is empty.*without --graphs"):
        GraphRecorder(CUDA).record(lambda: None)
    assert fake.stream == "main"


def _fail(error):
    def fail():
        raise error

    return fail


def test_a_failed_capture_restores_the_stream_and_says_why(fake):
    fake.end = _fail(RuntimeError("operation failed due to a previous error during capture"))
    with pytest.raises(KdbenchError, match=r"cannot be recorded as a CUDA graph \(the first error\)"):
        GraphRecorder(CUDA).record(_fail(ValueError("the first error")))
    assert fake.stream == "main"


def test_out_of_memory_in_a_capture_is_out_of_memory(fake):
    fake.end = _fail(RuntimeError("operation failed due to a previous error during capture"))
    with pytest.raises(torch.OutOfMemoryError):
        GraphRecorder(CUDA).record(_fail(torch.OutOfMemoryError("too much")))


@pytest.mark.parametrize("mode", [0, 2])
def test_a_watched_run_hears_waits_and_restores_the_mode(fake, mode):
    fake.mode = mode
    recorder = GraphRecorder(CUDA)
    warned = recorder.run_watched(lambda: warnings.warn(WAITED, stacklevel=1))
    assert warned == (None, True)
    assert recorder.run_watched(lambda: warnings.warn("another thing", stacklevel=1)) == (None, False)
    assert recorder.run_watched(lambda: 7) == (7, False)
    assert fake.modes == ["warn", mode] * 3


def test_torch_still_warns_of_a_wait_in_these_words():
    library = Path(torch.__path__[0]) / "lib" / "libc10_cuda.so"
    if not library.exists():
        pytest.skip("torch without CUDA")
    assert WAITED.encode() in library.read_bytes()


# --- settings ---


def test_graphs_and_tf32_need_a_cuda_device(lab):
    for graphs in (True, "sequential"):
        with pytest.raises(KdbenchError, match="--graphs needs a CUDA device"):
            lab.open(graphs=graphs)
    with pytest.raises(KdbenchError, match="tf32 needs a CUDA device"):
        lab.open(precision="tf32")
    check("tf32", "branches", "cuda:0")


def test_graphs_has_two_kinds():
    assert [graphs_of(value) for value in (True, False, "sequential", "branches", "")] == [
        "branches",
        "",
        "sequential",
        "branches",
        "",
    ]
    for value in ("parallel", 1, None):
        with pytest.raises(KdbenchError, match="graphs must be True, False, 'branches' or 'sequential'"):
            graphs_of(value)


def test_tensor_cores_only_where_the_recipe_says_so():
    before = torch.backends.cudnn.allow_tf32
    for precision, expected in (("tf32", True), ("fp32", False), ("bf16", False)):
        with tensor_cores(precision):
            assert torch.backends.cudnn.allow_tf32 is expected
            assert torch.backends.cuda.matmul.allow_tf32 is expected
            with autocast(precision, torch.device("cpu")):
                assert torch.is_autocast_enabled("cpu") is (precision == "bf16")
    assert torch.backends.cudnn.allow_tf32 == before


def test_training_makes_its_device_the_current_one(monkeypatch):
    """Streams, events and graphs are the current device's: on another one they would time and record nothing."""
    entered, cudnn = [], torch.backends.cudnn
    device = contextlib.contextmanager(lambda device: iter([entered.append(device)]))
    monkeypatch.setattr(torch.cuda, "device", device)
    before = cudnn.deterministic, cudnn.benchmark
    with computing(CUDA, "tf32"):
        assert entered == [CUDA]
        assert (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32) == (True, False, True)
    assert (cudnn.deterministic, cudnn.benchmark) == before
    with computing(torch.device("cpu"), "fp32"):
        assert entered == [CUDA]
