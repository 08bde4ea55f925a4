"""`kdbench bench`: its table, its file and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch

from kdbench.bench import command, table
from kdbench.utils import fresh_process
from kdbench.utils.memory import peak_mb
from tests.support.cli_process import kdbench
from tests.support.tiny import make


def test_the_table_and_its_csv(lab, here, tmp_path):
    file = tmp_path / "out" / "bench.csv"
    text = command.compare(str(lab.suite_file()), None, ["ce", "kd"], 4, file, batch_size=8)
    found = pd.read_csv(file)
    assert list(found.columns) == table.COLUMNS
    assert list(found["loop"]) == ["kdbench", "plain"]
    ours, theirs = found.to_dict("records")
    assert (ours["pair"], ours["methods"], ours["batch_size"], ours["steps"]) == (
        "teacher:student",
        "ce,kd",
        8,
        4,
    )
    assert theirs["ratio"] == 1
    assert ours["ratio_low"] <= ours["ratio"] <= ours["ratio_high"]
    for row in (ours, theirs):
        assert row["ms_low"] <= row["ms"] <= row["ms_high"]
        assert row["img_per_s"] == pytest.approx(8000 / row["ms"])
        assert sum(row[share] for share in table.SHARES) == pytest.approx(1)
        assert row["peak_mem_mb"] > 50
        assert np.isnan(row["hours"])  # nobody knows how many images the set "tiny" has
    lines = text.splitlines()
    assert lines[1].split()[:3] == ["teacher:student", "kdbench", "fp32"]
    assert f"{ours['ratio']:.2f} [{ours['ratio_low']:.2f}, {ours['ratio_high']:.2f}]" in lines[1]
    assert "2 cells side by side" in lines[-1]


def test_the_cli_refuses_an_unknown_pair(tmp_path):
    done = kdbench(
        "bench", "step", "--suite", "tiny.toml", "--pairs", "large:smal", cwd=make(tmp_path / "place")
    )
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("kdbench: unknown model 'smal'")
    assert "Traceback" not in done.err


def test_the_cli_refuses_no_steps(tmp_path):
    done = kdbench("bench", "step", "--steps", "0", cwd=tmp_path)
    assert (done.code, "'--steps'" in done.err, "x>=1" in done.err) == (1, True, True)


@pytest.mark.slow
def test_a_fresh_process_has_its_own_peak():
    """1 GiB that this process holds is not counted."""
    ballast = np.ones(2**27)
    assert peak_mb(torch.device("cpu")) > ballast.nbytes / 2**20
    assert 50 < fresh_process.call(peak_mb, torch.device("cpu")) < 1024
