"""The teacher's logits for every (image, outcome of a view), kept in one file and shared by later runs.

A crop within ``pad`` pixels and a flip have (2 pad + 1)^2 x 2 outcomes an image, 162 on CIFAR: a finite table. A record
is C logits in fp16 and a 16-bit check sum; a record whose sum is wrong (never written, torn by a crash or by two
writers) is unknown and is computed again. Records are read through a memory map and written one `pwrite` each, so
readers and writers need no lock and a full disk is an error, not a crash.

B = batch, N = images, O = outcomes of the view, C = classes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdbench.data.augment import Draws
from kdbench.errors import KdbenchError
from kdbench.suites.schema import View
from kdbench.utils.hashing import digest

STORAGE = "fp16"  # stands in the identity of every cell whose teacher outputs went through the table


def outcomes(view: View) -> int | None:
    """O: how many images the view can make of one; None where that is no finite table (RandAugment, cutout ...)."""
    if view != View(pad=view.pad, flip=view.flip):
        return None
    return (2 * view.pad + 1) ** 2 * (2 if view.flip else 1)


def outcome(view: View, draws: Mapping[str, Tensor], count: int) -> Tensor:
    """Which of the view's outcomes each row's draws are: int64 [B] in 0..O-1."""
    number = torch.zeros(count, dtype=torch.int64)
    if view.pad:
        top, left = draws["offset"].unbind(1)
        number = top * (2 * view.pad + 1) + left
    return number * 2 + draws["flip"] if view.flip else number


def all_draws(view: View, number: int, count: int) -> Draws:
    """The draws that make outcome ``number`` of ``count`` images: the inverse of `outcome`."""
    draws: Draws = {}
    if view.flip:
        draws["flip"] = torch.full((count,), bool(number % 2))
        number //= 2
    if view.pad:
        draws["offset"] = torch.tensor(divmod(number, 2 * view.pad + 1)).expand(count, 2)
    return draws


class Table:
    """One teacher's logits on one view of one train set; the file is made when it is not there."""

    def __init__(self, folder: Path, key: object, count: int, view: View, classes: int) -> None:
        number = outcomes(view)
        if number is None:
            raise ValueError("this view has no finite table")
        self.outcomes, self.classes = number, classes
        self.path = folder / f"teacher-{digest(key)}.f16"
        self.shape = (count, self.outcomes, classes + 1)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(self._file, 2 * int(np.prod(self.shape)))  # zeros that take no space until written
        except OSError as error:
            raise KdbenchError(
                f"cannot use the teacher cache {self.path} ({error.strerror}); choose another --teacher-cache"
            ) from error
        self._records = np.memmap(self.path, np.uint16, "r", shape=self.shape)

    def read(self, rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Logits fp16 [B, C] of the images ``rows`` under the outcomes ``numbers``, and which are known: bool [B]."""
        records = self._records[rows.numpy(), numbers.numpy()]
        known = records[:, -1] == _sums(records[:, :-1])
        return torch.from_numpy(records[:, :-1].copy()).view(torch.float16), torch.from_numpy(known)

    def write(self, rows: Tensor, numbers: Tensor, logits: Tensor) -> None:
        """Keep fp16 ``logits`` [B, C]. Raises OSError when the disk is full: what is kept stays."""
        values = logits.contiguous().numpy().view(np.uint16)
        records = np.concatenate([values, _sums(values)[:, None]], axis=1)
        places = (rows * self.outcomes + numbers).tolist()
        for place, record in zip(places, records, strict=True):
            os.pwrite(self._file, record.tobytes(), place * record.nbytes)

    def known(self) -> float:
        """The share of records that are there."""
        part = [int((chunk[..., -1] != 0).sum()) for chunk in np.array_split(self._records, 64)]
        return sum(part) / (self.shape[0] * self.shape[1])


class CachedLogits:
    """A teacher's logits by view, from tables where the view is finite: computed once, then read.

    What is handed out is rounded to fp16 whether it was just computed or read, so a number does not depend on who
    came first; it may depend, within that rounding, on which batch an image was computed in.
    """

    def __init__(
        self, tables: Mapping[str, Table], views: Mapping[str, View], warn: Callable[[str], None]
    ) -> None:
        self.tables, self.views, self._warn = tables, views, warn
        self._full = False

    def logits(self, name: str, rows: Tensor, draws: Draws, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """fp32 [B, C] on the CPU of the images ``rows`` [B] in view ``name``.

        ``compute(places)``: the teacher's logits of the batch's places that are not known yet. Raises KdbenchError
        for logits that fp16 cannot hold.
        """
        table = self.tables[name]
        numbers = outcome(self.views[name], draws, len(rows))
        kept, known = table.read(rows, numbers)
        if not known.all():
            places = (~known).nonzero().flatten()
            fresh = compute(places).half().cpu()
            if not fresh.isfinite().all():
                raise KdbenchError("the teacher's logits do not fit fp16; train without --teacher-cache")
            kept[places] = fresh
            self._keep(table, rows[places], numbers[places], fresh)
        return kept.float()

    def _keep(self, table: Table, rows: Tensor, numbers: Tensor, logits: Tensor) -> None:
        if self._full:
            return
        try:
            table.write(rows, numbers, logits)
        except OSError as error:
            self._full = True
            self._warn(f"cannot write {table.path} ({error.strerror}); training goes on without filling it")


def _sums(values: np.ndarray) -> np.ndarray:
    """uint16 [B, C] -> a check sum in 1..65535 a row, that depends on the place of each value."""
    weights = 2 * np.arange(values.shape[1], dtype=np.uint64) + 1
    return ((values.astype(np.uint64) * weights).sum(axis=1) % 65535 + 1).astype(np.uint16)
