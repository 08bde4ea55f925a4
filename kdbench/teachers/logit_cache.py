"""Cache the teacher's logits for every image and outcome of a view in one file, shared by later runs.

A crop within ``pad`` pixels and a flip have (2 pad + 1)^2 x 2 outcomes per image, 162 on CIFAR: a finite table. A
record is C logits in fp16 and a 16-bit checksum; a record with a wrong checksum (never written, torn by a crash or by
two writers) is unknown and computed again. Records are read through a memory map and written by one `pwrite` each, so
that readers and writers need no lock and a full disk is an error, not a crash.

B = batch, N = images, O = outcomes of the view, C = classes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kdbench.data.augment import Draws
from kdbench.errors import KdbenchError
from kdbench.suites.schema import View
from kdbench.utils.hashing import digest

PART = 1 << 24  # bytes that are read at once
STORAGE = "fp16"  # part of the identity of every cell whose teacher outputs pass through the table


def count_outcomes(view: View) -> int | None:
    """Count the images O that the view can make of one; None if they are no finite table (RandAugment, cutout ...)."""
    if view != View(pad=view.pad, flip=view.flip):
        return None
    return (2 * view.pad + 1) ** 2 * (2 if view.flip else 1)


def outcome_numbers(view: View, draws: Mapping[str, Tensor], count: int) -> Tensor:
    """Return the number of the view's outcome that each row's draws give: int64 [B] in 0..O-1."""
    number = torch.zeros(count, dtype=torch.int64)
    if view.pad:
        top, left = draws["offset"].unbind(1)
        number = top * (2 * view.pad + 1) + left
    return number * 2 + draws["flip"] if view.flip else number


def draws_of_outcome(view: View, number: int, count: int) -> Draws:
    """Return the draws that give outcome ``number`` on ``count`` images: the inverse of `outcome_numbers`."""
    draws: Draws = {}
    if view.flip:
        draws["flip"] = torch.full((count,), bool(number % 2))
        number //= 2
    if view.pad:
        draws["offset"] = torch.tensor(divmod(number, 2 * view.pad + 1)).expand(count, 2)
    return draws


class Table:
    """One teacher's logits on one view of one train set, in a file that is created if it does not exist.

    Raises ValueError for a view without a finite table, KdbenchError if the file cannot be created.
    """

    def __init__(self, folder: Path, key: object, count: int, view: View, classes: int) -> None:
        count_per_image = count_outcomes(view)
        if count_per_image is None:
            raise ValueError("this view has no finite table")
        self.outcomes, self.classes = count_per_image, classes
        self.path = folder / f"teacher-{digest(key)}.f16"
        self.shape = (count, self.outcomes, classes + 1)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            weakref.finalize(self, os.close, self._file)
            os.ftruncate(self._file, 2 * int(np.prod(self.shape)))  # zeros that take no space until written
        except OSError as error:
            raise KdbenchError(
                f"cannot use the teacher cache {self.path} ({error.strerror}); choose another --teacher-cache"
            ) from error
        self._records = np.memmap(self.path, np.uint16, "r", shape=self.shape)

    def read(self, rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Read fp16 logits [B, C] of images ``rows`` under outcomes ``numbers``, and which are known: bool [B]."""
        records = self._records[rows.numpy(), numbers.numpy()]
        known = records[:, -1] == _sums(records[:, :-1])
        return torch.from_numpy(records[:, :-1].copy()).view(torch.float16), torch.from_numpy(known)

    def write(self, rows: Tensor, numbers: Tensor, logits: Tensor) -> None:
        """Write fp16 ``logits`` [B, C]. Raises OSError on a full disk; complete records stay valid."""
        values = logits.contiguous().numpy().view(np.uint16)
        records = np.concatenate([values, _sums(values)[:, None]], axis=1)
        places = (rows * self.outcomes + numbers).tolist()
        for place, record in zip(places, records, strict=True):
            os.pwrite(self._file, record.tobytes(), place * record.nbytes)

    def parts(self) -> Iterator[tuple[slice, Tensor, np.ndarray]]:
        """Read all that is written: rows of images, their fp16 logits [n, O, C], and which are known: bool [n, O]."""
        count = max(1, PART // (2 * self.shape[1] * self.shape[2]))
        for start in range(0, self.shape[0], count):
            records = np.array(self._records[start : start + count])
            if records[..., -1].any():
                known = records[..., -1] == _sums(records[..., :-1])
                values = np.ascontiguousarray(records[..., :-1])
                yield slice(start, start + count), torch.from_numpy(values).view(torch.float16), known

    def known_share(self) -> float:
        """Return the share of records that are written, 0..1."""
        written = sum(int((chunk[..., -1] != 0).sum()) for chunk in np.array_split(self._records, 64))
        return written / (self.shape[0] * self.shape[1])


class CachedLogits:
    """A teacher's logits by view, computed once and then read from the view's table.

    Logits are rounded to fp16 whether they are computed or read, so that results do not depend on which run came
    first; within that rounding they may depend on the batch in which an image was computed.
    """

    def __init__(
        self, tables: Mapping[str, Table], views: Mapping[str, View], warn: Callable[[str], None]
    ) -> None:
        self.tables, self.views, self._warn = tables, views, warn
        self._full = False

    def settle(self) -> None:
        """At the end of an epoch: nothing is left to write."""

    def logits(self, name: str, rows: Tensor, draws: Draws, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the logits of the images ``rows`` [B] in view ``name``: fp32 [B, C], on the CPU.

        ``compute(places)`` [P, C] is called for the positions in the batch whose logits are not known yet. Raises
        KdbenchError for logits that fp16 cannot represent.
        """
        table = self.tables[name]
        numbers = outcome_numbers(self.views[name], draws, len(rows))
        logits, known = table.read(rows, numbers)
        if not known.all():
            places = (~known).nonzero().flatten()
            fresh = compute(places).half().cpu()
            self.store(name, rows[places], numbers[places], fresh)
            logits[places] = fresh
        return logits.float()

    def store(self, name: str, rows: Tensor, numbers: Tensor, logits: Tensor) -> None:
        """Add fp16 ``logits`` [B, C] to a view's table, unless the disk is full.

        Raises KdbenchError where they were too large for fp16.
        """
        if not logits.isfinite().all():
            raise KdbenchError("the teacher's logits do not fit fp16; train without --teacher-cache")
        if self._full:
            return
        table = self.tables[name]
        try:
            table.write(rows, numbers, logits)
        except OSError as error:
            self._full = True
            self._warn(f"cannot write {table.path} ({error.strerror}); training goes on without filling it")


def _sums(values: np.ndarray) -> np.ndarray:
    """Return one checksum in 1..65535 per row of uint16 [..., C], which depends on the position of each value."""
    weights = 2 * np.arange(values.shape[-1], dtype=np.uint64) + 1
    return ((values.astype(np.uint64) * weights).sum(axis=-1) % 65535 + 1).astype(np.uint16)
