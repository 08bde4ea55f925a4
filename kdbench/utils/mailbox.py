"""A folder and a list of messages that jobs on other machines reach. Imports no torch: its process starts fast."""

from __future__ import annotations

from pathlib import Path

from kdbench.utils.files import write_atomic


class Mailbox:
    """Reads and writes files of ``folder`` and passes messages on, for jobs by their numbers.

    What a job sends after `close` is dropped: it may be one that was given up and still runs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parcels: list[tuple[int, bytes]] = []
        self._closed: set[int] = set()

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, job: int, name: str, content: bytes) -> None:
        """Write a file of the job ``job``. Raises OSError (a full disk ...)."""
        if job not in self._closed:
            write_atomic(self._folder / name, content)

    def post(self, job: int, parcel: bytes) -> None:
        """Keep messages, packed by who sends them, for the next `take`."""
        if job not in self._closed:
            self._parcels.append((job, parcel))

    def take(self) -> list[tuple[int, bytes]]:
        """Return (job, parcel) in the order in which they came, and forget them."""
        parcels, self._parcels = self._parcels, []
        return parcels

    def close(self, job: int) -> None:
        """The job is over; nothing of it is written or passed on any more."""
        self._closed.add(job)
