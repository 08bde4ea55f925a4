"""What holds of the decision rules for any table, with gaps, ties, single runs and collapsed ones."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdbench.results.statistics.baseline import against
from kdbench.results.statistics.best import best
from kdbench.results.statistics.blocks import pool
from kdbench.results.statistics.incomplete import complete_block, with_failed
from kdbench.results.statistics.pairs import pairs_alike, these_pairs

NAMES = list("kabcdefg")
values = st.one_of(st.floats(60, 80).map(lambda x: round(x, 2)), st.sampled_from([np.nan, 70.0, 10.0]))


@st.composite
def tables(draw):
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    cells = draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    return pd.DataFrame(np.reshape(cells, (rows, columns)), columns=NAMES[:columns])


@settings(max_examples=50, deadline=None)
@given(tables())
def test_bold_is_never_below_a_sound_method_that_is_not(scores):
    found = best(scores)
    sound = found.states == "pooled"
    means = pool(scores).methods["adjusted"]
    if found.bold.any():
        others = means[sound & ~found.bold]
        assert others.empty or means[found.bold].min() >= others.max()
        assert means[sound].idxmax() in found.bold.index[found.bold]
    assert not found.bold[~found.states.isin(["pooled", "noisy"])].any()
    assert found.bold.any() == (found.reason == "")


@settings(max_examples=30, deadline=None)
@given(tables())
def test_limits_hold_the_difference_and_agree_with_p(scores):
    cells = against(scores, "k").cells
    known = cells[cells["se"] > 0]
    assert ((known["low"] <= known["delta"]) & (known["delta"] <= known["high"])).all()
    clear = (known["p"] - 0.05).abs() > 1e-6
    beyond = (known["low"] > 0) | (known["high"] < 0)
    assert (beyond == (known["p"] < 0.05))[clear].all()
    assert (known["p_family"] >= known["p"] - 1e-4).all()
    assert cells.loc[cells["n"] < 2, ["se", "p"]].isna().all(axis=None)


@settings(max_examples=30, deadline=None)
@given(tables())
def test_over_pairs_nothing_fails_and_p_are_in_order(scores):
    found = pairs_alike(scores, "k").cells
    known = found.dropna(subset=["p", "p_family"])
    assert (known["p_family"] >= known["p"] - 1e-4).all()
    assert found["p_flip"].dropna().between(0, 1).all()
    cells = pd.concat({"p": against(scores, "k").cells, "q": against(scores, "k").cells}).swaplevel()
    both = these_pairs(cells)
    assert (both["pairs"].isin([0, 2])).all()
    if len(both):
        complete_block(scores.notna())
        runs = pd.concat({"p": scores}, names=["pair", "seed"])
        assert len(with_failed(runs, runs.isna() | (runs < 20), "k")) == len(both)


@settings(max_examples=30, deadline=None)
@given(tables(), st.integers(0, 100))
def test_order_of_methods_and_seeds_does_not_matter(scores, seed):
    rng = np.random.default_rng(seed)
    mixed = scores.iloc[rng.permutation(len(scores)), rng.permutation(scores.shape[1])]
    one, other = best(scores), best(mixed)
    assert other.yardstick == pytest.approx(one.yardstick, nan_ok=True, abs=1e-9)
    assert other.states[scores.columns].tolist() == one.states.tolist()
    delta = against(mixed, "k").cells["delta"]
    assert np.allclose(
        delta[against(scores, "k").cells.index], against(scores, "k").cells["delta"], equal_nan=True
    )


def test_a_shift_of_one_seed_for_all_changes_nothing():
    scores = pd.DataFrame(np.random.default_rng(0).normal(70, 1, (3, 6)), columns=NAMES[:6])
    shifted = scores.add([0.0, 5.0, -4.0], axis=0)
    assert best(shifted).bold.equals(best(scores).bold)
    assert best(shifted).yardstick == pytest.approx(best(scores).yardstick)
    columns = ["delta", "low", "high", "p_family"]
    assert np.allclose(against(shifted, "k").cells[columns], against(scores, "k").cells[columns])
