"""The driver's own cost over 20,000 cells: see docs/performance.md for what was measured."""

import json
import subprocess
import sys

import pytest

from tests.support.cli_process import ENVIRONMENT


@pytest.mark.slow
def test_twenty_thousand_cells(tmp_path):
    """Processor time (user and system): a busy machine has another wall clock, and the disk's syncs are its own."""
    command = [sys.executable, "-m", "tests.support.scale", str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["cells"] == 20_000
    assert found["plan_s"] < 10, found
    assert max(found["row_first_ms"], found["row_last_ms"]) < 2, found
    assert found["row_last_ms"] < 1.5 * found["row_first_ms"], found
    assert found["report_s"] < 60, found
    assert max(found["driver_mib"], found["report_mib"]) < 1024, found
