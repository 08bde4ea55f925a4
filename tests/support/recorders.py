"""Recorders that tell what they did: one for any device, which treats memory as a CUDA graph does, and CUDA's."""

import torch

from kdbench.errors import KdbenchError
from kdbench.train.cuda_graphs import GraphRecorder, tensors


class Overwriting:
    """What a replay returns are the tensors of the first one, overwritten.

    recorded: the functions that were recorded, in order. branches: of each run side by side, how many. refused: the
    number of the function that it refuses to record.
    """

    def __init__(self, refused=None):
        self.recorded, self.refused, self.branches = [], refused, []
        self.calls = 0
        self.waited = False

    def record(self, function, generators=()):
        self.calls += 1
        if self.calls - 1 == self.refused:
            raise KdbenchError("cannot be recorded as a CUDA graph (on purpose); train it without --graphs")
        assert all(isinstance(generator, torch.Generator) for generator in generators)
        self.recorded.append(function)
        held = []

        def replay():
            fresh = function()
            held[:] = held or [fresh]
            for old, new in zip(tensors(held[0]), tensors(fresh), strict=True):
                if old is not new:
                    old.copy_(new.detach())
            return held[0]

        return replay

    def run_watched(self, function):
        self.waited = False
        return function(), self.waited

    def wait(self, tensor):
        """What a method calls in place of an operation that waits."""
        self.waited = True

    def side_by_side(self, functions):
        self.branches.append(len(functions))
        for function in functions:
            function()


class Counted(GraphRecorder):
    """Records CUDA graphs, and tells the same of them."""

    def __init__(self, device):
        super().__init__(device)
        self.recorded, self.branches = [], []

    def record(self, function, generators=()):
        self.recorded.append(function)
        return super().record(function, generators)

    def side_by_side(self, functions):
        self.branches.append(len(functions))
        super().side_by_side(functions)

    def wait(self, tensor):
        float(tensor)
