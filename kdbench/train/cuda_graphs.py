"""A CUDA device's fast path: steps recorded as CUDA graphs and replayed on each batch.

A recorded step launches as one, so a small network no longer waits for Python. It computes what the eager step does
from the same random streams, up to the rounding of a learning rate that is an fp32 tensor on the device. Used
with `kdbench run --graphs` only. A recorded step knows one `batch.epoch`, so each epoch is recorded again; the first
steps of an epoch, its last one and smaller batches run eagerly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from kdbench.data.mixup import Mixed
from kdbench.method import Batch, Outputs
from kdbench.train.cell_trainer import Trainee

EAGER = 2  # runs before a recording: they make the sums and the libraries' workspaces

# Takes what is to be recorded and the generators that it draws from; returns what replays it.
Recorder = Callable[[Callable[[], None], tuple[torch.Generator, ...]], Callable[[], None]]


def cuda_graph(function: Callable[[], None], generators: tuple[torch.Generator, ...]) -> Callable[[], None]:
    """Record ``function``, without running it, as a CUDA graph."""
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        function()
    return graph.replay


class Recorded:
    """``function(*inputs)`` on fixed buffers. A call copies its inputs into them and replays."""

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: tuple,
        record: Recorder,
        generators: tuple[torch.Generator, ...] = (),
    ) -> None:
        self.inputs = _cloned(inputs)

        def run() -> None:
            self.result = function(*self.inputs)

        self.replay = record(run, generators)

    def __call__(self, *inputs: Any) -> Any:
        """Return the result, whose tensors the next call overwrites."""
        for buffer, value in zip(_tensors(self.inputs), _tensors(inputs), strict=True):
            buffer.copy_(value)
        self.replay()
        return self.result


class RecordedStep:
    """`Trainee.step`, recorded once per epoch."""

    def __init__(self, trainee: Trainee, record: Recorder = cuda_graph) -> None:
        self.trainee, self.record = trainee, record
        self.recorded: Recorded | None = None
        self.eager, self.epoch = 0, -1
        trainee.take_step.move_rate(trainee.device)

    def step(
        self,
        batch: Batch,
        images: Mapping[str, Tensor],
        teacher: Mapping[str, Outputs],
        lr: float,
        mixed: Mixed | None = None,
    ) -> None:
        """Train one step on one batch at the learning rate ``lr``, as `Trainee.step` does."""
        trainee, inputs = self.trainee, (batch, images, teacher, mixed)
        if trainee.epoch != self.epoch:
            self.epoch, self.eager, self.recorded = trainee.epoch, 0, None
        if self.eager < EAGER or batch.last or len(batch.target) < trainee.context.batch_size:
            self.eager += 1
            trainee.step(batch, images, teacher, lr, mixed)
            return
        with trainee.stepping(batch, lr):
            if self.recorded is None:
                generators = (trainee.streams.generator,)
                self.recorded = Recorded(trainee.compute, inputs, self.record, generators)
            self.recorded(*inputs)


class RecordedForward:
    """A frozen network's forward, recorded once for each shape and each set of needs."""

    def __init__(self, forward: Callable[[Tensor, Any], Outputs], record: Recorder = cuda_graph) -> None:
        self.forward, self.record = forward, record
        self.runs: dict[Any, int] = {}
        self.recorded: dict[Any, Recorded] = {}

    def __call__(self, images: Tensor, needs: Any) -> Outputs:
        """Run the forward pass; from the third call with the same shape and needs on, from its recording."""
        key = (tuple(images.shape), needs)
        self.runs[key] = self.runs.get(key, 0) + 1
        if self.runs[key] <= EAGER:
            return self.forward(images, needs)
        if key not in self.recorded:
            self.recorded[key] = Recorded(lambda x: self.forward(x, needs), (images,), self.record)
        return self.recorded[key](images)


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a nest of dataclasses, mappings and tuples, in a fixed order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value):
            yield from _tensors(value[key])
    elif isinstance(value, tuple):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


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
