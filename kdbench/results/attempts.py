"""How often each cell of a results file was tried, kept up to date while this process and others add rows."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from kdbench.errors import KdbenchError
from kdbench.results import lines, store
from kdbench.utils.status import Status


class Attempts:
    """Counts the rows of one file at each `refresh`, which reads what was added since the last one.

    The cost of a refresh does not grow with the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget()

    def _forget(self, file: int = 0) -> None:
        self._file = file  # its number: an upgrade replaces the file
        self._read = 0  # bytes that are counted
        self._header = b""
        self._counted = _Count()
        self._last = _Count()  # of a last line without its end: it may still grow

    def rows(self, cell_id: str) -> int:
        """How many rows a cell had at the last refresh."""
        return self._counted.rows[cell_id] + self._last.rows[cell_id]

    def tries(self, cell_id: str) -> int:
        """The same, interrupted ones left out."""
        return self.rows(cell_id) - self._counted.interrupted[cell_id] - self._last.interrupted[cell_id]

    def refresh(self) -> None:
        """Count the rows that were added. Raises KdbenchError where the file is damaged."""
        try:
            data = self._added()
        except FileNotFoundError:
            self._forget()
            return
        whole = lines.last_start(data)
        if not self._header:
            self._header = data[: lines.first_end(data)]
        if self._header:
            self._counted.add(self._table(data[:whole]))
            self._last = _Count()
            if data[whole:]:
                self._last.add(self._table(data[whole:]))
        self._read += whole

    def _added(self) -> bytes:
        with open(self._path, "rb") as file:
            state = os.fstat(file.fileno())
            if state.st_ino != self._file or state.st_size < self._read:
                self._forget(state.st_ino)
            file.seek(self._read)
            return file.read()

    def _table(self, data: bytes) -> lines.Lines:
        try:
            return lines.read(self._path, self._header + data, store.COLUMNS)
        except KdbenchError:
            store.read(self._path)  # its error has the line's number in the file
            raise


class _Count:
    def __init__(self) -> None:
        self.rows: Counter[str] = Counter()
        self.interrupted: Counter[str] = Counter()

    def add(self, table: lines.Lines) -> None:
        if table.rows:
            cell, status = table.header.index("cell_id"), table.header.index("status")
            self.rows.update(row[cell] for row in table.rows)
            self.interrupted.update(row[cell] for row in table.rows if row[status] == Status.INTERRUPTED)
