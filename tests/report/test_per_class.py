"""The page's comparison class by class: by hand, on shared seeds, and what a page that would be large leaves out."""

import numpy as np
import pytest

from kdbench.report.page import per_class
from tests.support.figures import keep
from tests.support.scenarios import PAIRS, boards, runs

IMAGES = (4, 2, 0)


def confusion(first, second):
    """Three classes of 4, 2 and no images; the numbers of the first two that are right."""
    return np.array([[first, 4 - first, 0], [2 - second, second, 0], [0, 0, 0]])


def saved(folder, rows, right):
    for row, counts in zip(rows, right, strict=True):
        keep(folder, row, confusion=confusion(*counts))
    return rows


@pytest.fixture
def of_two(tmp_path):
    """Pair 1: kd with seeds 0 and 1, dkd with seed 1 and a run without predictions; pair 2: nothing saved."""
    kd = saved(tmp_path / "d", runs("kd", 70.0, 71.0), [(4, 0), (2, 1)])
    dkd = runs("dkd", 72.0, 73.0)
    saved(tmp_path / "d", dkd[1:], [(3, 2)])
    at = runs("at", 60.0, 60.0, pair=PAIRS[0])
    (board,) = boards(tmp_path, [*kd, *dkd, *at])
    return board, per_class.of_pairs(board, [tmp_path / "d"])


def test_the_numbers_are_those_by_hand(of_two):
    board, shown = of_two
    names = [board.labels[place] for place in shown["labels"]]
    assert sorted(names) == ["dkd", "kd"]
    ours = shown["pairs"][board.table.pairs.index("resnet56 -> resnet20")]
    assert ours["images"] == list(IMAGES)
    top1 = dict(zip(names, ours["top1"], strict=True))
    assert top1 == {"kd": [75.0, 25.0, None], "dkd": [75.0, 100.0, None]}
    sign = 1 if names == ["dkd", "kd"] else -1
    assert ours["differences"] == [[[sign * 25.0, sign * 50.0, None]], []]  # of seed 1, which both have
    assert ours["seeds"] == [[1], []]


def test_a_pair_without_predictions_says_so(of_two):
    board, shown = of_two
    other = shown["pairs"][board.table.pairs.index("wrn_40_2 -> wrn_16_2")]
    assert other == {"images": [], "top1": [[], []], "differences": [[[]], []], "seeds": [[0], []]}
    assert shown["said"] == ""


def test_methods_that_share_no_seed_have_no_difference(tmp_path):
    rows = saved(tmp_path / "d", runs("kd", 70.0), [(4, 0)])
    later = [runs("dkd", 70.0, 71.0)[1]]
    (board,) = boards(tmp_path, [*rows, *saved(tmp_path / "d", later, [(3, 1)])])
    (only,) = per_class.of_pairs(board, [tmp_path / "d"])["pairs"]
    assert only["differences"] == [[[]], []]
    assert only["seeds"] == [[0], []]


def test_too_many_methods_leave_the_best_and_the_baseline(tmp_path, monkeypatch):
    methods = {f"m{i}": 70.0 + i for i in range(6)} | {"kd": 50.0}
    rows = [row for name, top1 in methods.items() for row in runs(name, top1, top1 + 0.1)]
    (board,) = boards(tmp_path, saved(tmp_path / "d", rows, [(1, 1)] * len(rows)))
    monkeypatch.setattr(per_class, "MOST", 6 * len(IMAGES))  # four methods have six differences
    shown = per_class.of_pairs(board, [tmp_path / "d"])
    assert [board.labels[place] for place in shown["labels"]] == ["m5", "m4", "m3", "kd"]
    assert "the best 4 of 7 methods, kd among them" in shown["said"]
    assert len(shown["pairs"][0]["top1"]) == 4
