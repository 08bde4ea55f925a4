"""How processes share the processor's threads."""

from __future__ import annotations


def thread_share(threads: int, processes: int) -> int:
    """Threads of each of ``processes`` that run at the same time on ``threads`` together; at least 1."""
    return max(1, threads // processes)
