"""The driver's own cost over 20,000 cells: see docs/performance.md for what was measured."""

import json
import subprocess
import sys

import pytest

from tests.support.cli_process import ENVIRONMENT


@pytest.mark.slow
def test_twenty_thousand_cells(tmp_path):
    """Above all, a row costs the same at the end of the file as at its begin."""
    command = [sys.executable, "-m", "tests.support.scale", str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["plan_s"] < 20
    assert found["rate_last"] < 0.01
    assert found["rate_last"] < 1.5 * found["rate_first"]
    assert found["report_s"] < 60
    assert max(found["driver_mib"], found["report_mib"]) < 1400
