"""Record functions as CUDA graphs, which launch as one, so that a small network no longer waits for Python.

A graph reads and writes fixed memory: what it returns is the same tensors every time, overwritten by each replay.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from kdbench.errors import KdbenchError, first_line

T = TypeVar("T")
WAITED = "called a synchronizing CUDA operation"  # torch's warning


class Recorder(Protocol):
    """Records functions without arguments that compute on tensors of the device."""

    def record(
        self, function: Callable[[], T], generators: Sequence[torch.Generator] = ()
    ) -> Callable[[], T]:
        """Record ``function``, which draws from ``generators``; return what replays it.

        A replay returns what the function returned when it was recorded, with new values. Raises KdbenchError where it
        cannot be recorded.
        """

    def run_watched(self, function: Callable[[], T]) -> tuple[T, bool]:
        """Run ``function``; return its result, and whether it waited for the device: then it cannot be recorded."""

    def side_by_side(self, functions: Sequence[Callable[[], object]]) -> None:
        """Run ``functions``, none of which reads what another one writes, at the same time."""


class GraphRecorder:
    """Records CUDA graphs of one cohort on ``device``. They share their memory: one replays at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)
        self._latest: torch.cuda.CUDAGraph | None = None  # memory without any graph could not be shared again

    def record(
        self, function: Callable[[], T], generators: Sequence[torch.Generator] = ()
    ) -> Callable[[], T]:
        """Record ``function``, without running it, as a CUDA graph, as `Recorder.record` says."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        try:
            result = self._capture(graph, function)
        except Exception as error:
            cause = _first(error)
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            raise KdbenchError(
                f"cannot be recorded as a CUDA graph ({first_line(cause)}); train it without --graphs"
            ) from error
        self._latest = graph

        def replay() -> T:
            graph.replay()
            return result

        return replay

    def _capture(self, graph: torch.cuda.CUDAGraph, function: Callable[[], T]) -> T:
        # thread_local: the thread of a loader that pins memory meanwhile is none of the recording's business
        capturing = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        stream = torch.cuda.current_stream(self._device)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", "The CUDA Graph is empty")
                with capturing:
                    return function()
        finally:
            torch.cuda.set_stream(stream)  # a capture that fails leaves its own stream the current one

    def run_watched(self, function: Callable[[], T]) -> tuple[T, bool]:
        """Run ``function`` and watch for waits, as `Recorder.run_watched` says."""
        before = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                result = function()
        finally:
            torch.cuda.set_sync_debug_mode(before)
        return result, any(WAITED in str(warning.message) for warning in heard)

    def side_by_side(self, functions: Sequence[Callable[[], object]]) -> None:
        """Run each of ``functions`` on a stream of its own: in a recording, as a branch of the graph."""
        main = torch.cuda.current_stream(self._device)
        streams = [torch.cuda.Stream(self._device) for _ in functions]
        for stream, function in zip(streams, functions, strict=True):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                function()
        for stream in streams:
            main.wait_stream(stream)


def _first(error: BaseException) -> BaseException:
    """What went wrong first: the end of a capture that failed raises an error of its own."""
    while error.__context__ is not None:
        error = error.__context__
    return error


class Recording:
    """A function that runs eagerly at first, then from its recording; one that waits for the device stays eager.

    The runs before the recording make what it finds: libraries' workspaces, buffers of momenta, sums.
    """

    EAGER = 2  # runs before a recording; the last of them is watched

    def __init__(
        self, function: Callable[[], Any], recorder: Recorder, generators: Sequence[torch.Generator] = ()
    ) -> None:
        self._function, self._recorder, self._generators = function, recorder, generators
        self._runs = 0
        self._replay: Callable[[], Any] | None = None
        self.waits = False

    @property
    def is_recorded(self) -> bool:
        """Whether a call replays."""
        return self._replay is not None

    def prepare(self) -> None:
        """Record the function where it is time to."""
        if self._replay is None and not self.waits and self._runs >= self.EAGER:
            self._replay = self._recorder.record(self._function, self._generators)

    def __call__(self) -> Any:
        """Run the function, or replay it."""
        if self._replay is not None:
            return self._replay()
        self._runs += 1
        if self._runs != self.EAGER:
            return self._function()
        result, self.waits = self._recorder.run_watched(self._function)
        return result

    def restart(self) -> None:
        """Forget the recording: the function is another one from here on. It runs eagerly once, watched."""
        self._replay, self._runs, self.waits = None, min(self._runs, self.EAGER - 1), False


class Buffers:
    """A nest of dataclasses, mappings and tuples whose tensors are copies that stay where they are."""

    def __init__(self, values: Any) -> None:
        self.values = _cloned(values)

    def fill(self, values: Any) -> None:
        """Copy the tensors of ``values``, a nest of the same form."""
        for buffer, value in zip(tensors(self.values), tensors(values), strict=True):
            buffer.copy_(value, non_blocking=True)


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a nest of dataclasses, mappings and tuples, in a fixed order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from tensors(value[key])
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors(getattr(value, field.name))


def _cloned(value: Any) -> Any:
    """Copy a nested value with new buffers in place of its tensors."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Mapping):
        return {key: _cloned(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_cloned(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: _cloned(item) for name, item in fields.items()})
    return value
