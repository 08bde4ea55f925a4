"""Who else hears of the training beside the user's own progress."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kdbench.runner.heartbeat import Heartbeat
from kdbench.runner.options import RunOptions
from kdbench.runner.paths import Paths
from kdbench.runner.trackers import open_trackers
from kdbench.train.callbacks import Progress, Together


@contextlib.contextmanager
def heard_by_all(progress: Progress, suite: str, options: RunOptions) -> Iterator[Progress]:
    """Within the block: ``progress``, the heartbeat that `kdbench status` reads, and the trackers of the options.

    Raises KdbenchError for a tracker that is not installed or has no account.
    """
    with Heartbeat(Paths(options.results, suite).running, suite) as heartbeat:
        trackers = open_trackers(options.trackers, options.results / "track", progress.warn)
        yield Together(progress, heartbeat, *trackers)
