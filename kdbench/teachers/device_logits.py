"""A teacher's logits in a GPU's memory: the tables of `logit_cache`, read and filled without waiting for the GPU.

B = batch, N = images, O = outcomes of the view, C = classes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kdbench.data.augment import Draws
from kdbench.teachers.logit_cache import CachedLogits, Table, outcome_numbers

SHARE = 0.5  # of the free memory of a GPU that tables may take


@dataclass(frozen=True, eq=False)
class _Written:
    """Logits on their way to the CPU. ``there``: the event after which they are; None: they are already."""

    view: str
    rows: Tensor
    numbers: Tensor
    logits: Tensor
    there: torch.cuda.Event | None

    @property
    def arrived(self) -> bool:
        return self.there is None or self.there.query()


class DeviceLogits:
    """`CachedLogits` with copies of its tables on ``device``: fp16 [N, O, C] per view, filled from the files.

    What is known is a matter of the host, so that no lookup waits. What is computed is written to the file when it
    has arrived on the CPU.
    """

    def __init__(self, cache: CachedLogits, device: torch.device) -> None:
        self.tables, self._cache, self._device = cache.tables, cache, device
        self._known = {name: np.zeros(table.shape[:2], bool) for name, table in cache.tables.items()}
        self._values = {name: self._filled(name, table) for name, table in cache.tables.items()}
        self._waiting: deque[_Written] = deque()

    def _filled(self, name: str, table: Table) -> Tensor:
        count, outcomes, record = table.shape
        values = torch.zeros(count, outcomes, record - 1, dtype=torch.float16, device=self._device)
        for rows, logits, known in table.parts():
            values[rows] = logits.to(self._device)
            self._known[name][rows] = known
        return values

    def logits(self, name: str, rows: Tensor, draws: Draws, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the logits of the images ``rows`` [B] in view ``name``, as `CachedLogits.logits`, on the device.

        Raises KdbenchError some calls later than that: when those that fp16 cannot represent arrive on the CPU.
        """
        while self._waiting and self._waiting[0].arrived:
            self._write(self._waiting.popleft())
        numbers = outcome_numbers(self._cache.views[name], draws, len(rows))
        where = rows.to(self._device, non_blocking=True), numbers.to(self._device, non_blocking=True)
        known, values = self._known[name], self._values[name]
        places = torch.from_numpy(np.flatnonzero(~known[rows.numpy(), numbers.numpy()]))
        if len(places):
            there = places.to(self._device, non_blocking=True)
            fresh = compute(there).half()
            values[where[0][there], where[1][there]] = fresh
            known[rows[places].numpy(), numbers[places].numpy()] = True
            self._wait_for(name, rows[places], numbers[places], fresh)
        return values[where].float()

    def _wait_for(self, name: str, rows: Tensor, numbers: Tensor, fresh: Tensor) -> None:
        event = None
        copy = fresh.to("cpu", non_blocking=True)
        if self._device.type == "cuda":
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(self._device))
        self._waiting.append(_Written(name, rows, numbers, copy, event))

    def _write(self, written: _Written) -> None:
        self._cache.store(written.view, written.rows, written.numbers, written.logits)

    def settle(self) -> None:
        """At the end of an epoch: wait for what is computed, and write it."""
        while self._waiting:
            written = self._waiting.popleft()
            if written.there is not None:
                written.there.synchronize()
            self._write(written)


def fits(tables: Mapping[str, Table], device: torch.device) -> bool:
    """Whether copies of ``tables`` leave enough memory of a GPU free."""
    needed = sum(2 * int(np.prod(table.shape)) for table in tables.values())
    return needed <= SHARE * torch.cuda.mem_get_info(device)[0]
