"""What the tests of the benchmark time: methods on the laboratory's pair."""

from kdbench.bench.workload import work
from kdbench.suites import Pair

PAIR = Pair("teacher", "student")


def ask(lab, *methods, **more):
    """The work of ``methods`` on the laboratory's pair on a CPU."""
    return work(lab.suite, PAIR, methods, "cpu", **more)
