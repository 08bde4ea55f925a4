"""Reproduced or not: against statsmodels, by hand, at the edges, and error rates over simulated tables."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_ind

from kdbench.results.statistics import critical
from kdbench.results.statistics.reproduced import Noise, seed_noise, verdicts
from tests.support.rule_tables import SD, SIZES, holm, near

NAN = math.nan
NOISE = Noise(SD, 50)


def line(value=70.0, last=70.0, best=NAN, n=3, std=NAN, runs=3.0, rule="last"):
    return {"value": value, "last": last, "best": best, "n": n, "std": std, "runs": runs, "rule": rule}


def decide(*lines, noise=NOISE):
    return verdicts(pd.DataFrame(lines), noise)


def verdict(noise=NOISE, **options):
    return decide(line(**options), noise=noise)["verdict"].item()


def test_noise_is_pooled_within_cells():
    runs = pd.DataFrame({"cell": [*"aaabbc"], "value": [1.0, 2.0, 3.0, 5.0, 7.0, 50.0]})
    assert seed_noise(runs) == pytest.approx((math.sqrt((2 + 2) / 3), 3))
    assert seed_noise(runs.tail(1)).df == 0
    assert math.isnan(seed_noise(runs.tail(1)).sd)


def test_one_number_is_the_two_sample_t_and_tost_of_statsmodels():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(70.0, 0.3, 4), rng.normal(70.2, 0.3, 5)
    runs = pd.DataFrame({"cell": [*"oooottttt"], "value": [*ours, *theirs]})
    row = decide(line(theirs.mean(), ours.mean(), n=4, runs=5.0), noise=seed_noise(runs)).iloc[0]
    expected = distributions.ttest_ind(ours, theirs)
    assert (row["df"], row["p"]) == pytest.approx((7, expected.pvalue))
    assert row["p_margin"] == pytest.approx(ttost_ind(ours, theirs, -0.5, 0.5)[0])


def test_a_printed_std_is_the_published_numbers_own_error():
    row = decide(line(std=0.6, runs=5.0)).iloc[0]
    ours, theirs = SD**2 / 3, 0.6**2 / 5
    assert row["se"] == pytest.approx(math.sqrt(ours + theirs))
    assert row["df"] == pytest.approx((ours + theirs) ** 2 / (ours**2 / 50 + theirs**2 / 4))


def test_a_number_without_runs_is_taken_for_one_run():
    rows = decide(line(runs=NAN), line(runs=1.0), line(runs=NAN, std=0.4))
    assert rows["se"].tolist() == pytest.approx([SD * math.sqrt(4 / 3)] * 2 + [math.sqrt(SD**2 / 3 + 0.16)])
    assert rows["df"].tolist() == [50, 50, 50]


def test_the_predicted_interval_excludes_what_differs():
    row = decide(line(value=71.0)).iloc[0]
    assert (row["delta"], row["verdict"]) == (-1.0, "differs")
    assert row["high"] < 71.0
    assert row["high"] - row["ours"] == pytest.approx(distributions.t.ppf(0.975, 50) * row["se"])


def test_three_verdicts():
    assert verdict(n=10, runs=10.0) == "agrees"
    assert verdict(value=70.2, n=3, runs=NAN) == "undecided"  # one run of theirs: no agreement can be shown
    assert verdict(value=71.5) == "differs"
    assert verdict(value=70.3, n=100, runs=100.0) == "agrees"  # real, and within the margin


def test_holm_is_that_of_statsmodels_and_leaves_out_what_is_no_test():
    p = pd.Series([0.04, NAN, 0.001, 0.04, 0.9, NAN, 0.013], index=list("abcdefg"))
    found = critical.holm(p)
    assert found[p.notna()].tolist() == pytest.approx(multipletests(p.dropna(), method="holm")[1].tolist())
    assert found[p.isna()].isna().all()
    assert critical.holm(p[p.isna()]).isna().all()


def test_holm_is_over_the_table():
    single = decide(line(value=70.5))
    assert single["verdict"].item() == "differs"
    table = decide(line(value=70.5), *[line() for _ in range(19)])
    assert table["verdict"].iloc[0] == "undecided"
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p"]).tolist())


def test_one_run_of_ours_has_a_verdict_by_the_pooled_noise():
    assert verdict(n=1, value=72.0) == "differs"
    assert verdict(n=1, runs=1.0) == "undecided"


@pytest.mark.parametrize("noise", [Noise(NAN, 0), NOISE])
def test_nothing_to_compare_is_no_verdict(noise):
    assert verdict(noise, last=NAN, n=0) == ""
    assert verdict(Noise(NAN, 0)) == ""


def test_a_best_epoch_is_compared_with_a_best_epoch():
    row = decide(line(value=70.3, last=70.0, best=70.3, rule="best")).iloc[0]
    assert (row["ours"], row["delta"]) == (70.3, 0.0)
    assert verdict(value=70.3, rule="best") == ""  # no best epoch of ours: none


@pytest.mark.slow
def test_an_unknown_rule_is_bracketed_by_both_epochs():
    many = {"n": 10, "runs": 10.0, "rule": "unknown"}
    assert verdict(value=70.1, last=70.0, best=70.2, **many) == "agrees"
    assert verdict(value=70.5, last=70.0, best=71.0, **many) == "undecided"  # between the two
    assert verdict(value=73.0, last=70.0, best=70.5, **many) == "differs"
    assert verdict(value=68.0, last=70.0, best=70.5, **many) == "differs"
    row = decide(line(value=73.0, last=70.0, best=70.5, **many)).iloc[0]
    assert row["ours"] == 70.5  # the nearer
    assert verdict(value=70.9, last=70.0, best=70.8, **many) == "undecided"  # differs from one only


def test_an_unknown_rule_without_our_best_epoch_has_one_end():
    assert verdict(value=72.0, rule="unknown") == "undecided"  # our best epoch may reach it
    assert verdict(value=68.0, rule="unknown") == "differs"  # it can only be further away
    assert verdict(value=70.0, rule="unknown", n=99, runs=99.0) == "undecided"


def simulate(tables, n, runs, miss, cells=20):
    """Verdicts [tables, cells] where our true means are ``miss`` below the published ones."""
    rng = np.random.default_rng(1)
    ours = rng.normal(70 - miss, SD, (tables, cells, n))
    theirs = rng.normal(70, SD, (tables, cells, runs)).mean(2)
    spread = np.sqrt(ours.var(2, ddof=1).mean(1, keepdims=True))  # each table has its own noise
    noise = Noise(np.broadcast_to(spread, theirs.shape).ravel(), cells * (n - 1))
    lines = line(theirs.ravel(), ours.mean(2).ravel(), n=n, runs=float(runs))
    p, p_margin = (
        verdicts(pd.DataFrame(lines), noise)[key].to_numpy().reshape(-1, cells) for key in ("p", "p_margin")
    )
    differs = np.array([holm(one) for one in p]) <= 0.05
    return np.where(p_margin <= 0.05, "agrees", np.where(differs, "differs", "undecided"))


@pytest.mark.parametrize("tables", SIZES)
def test_true_agreement_is_rarely_called_a_difference(tables):
    found = simulate(tables, 3, 3, 0.0)
    assert (found == "differs").any(1).mean() == near(0.045, tables)  # any of 20; 2 standard errors: .998
    assert (found == "agrees").mean() == near(0.56, 5 * tables)  # the table's error is common to its 20


@pytest.mark.parametrize("tables", SIZES)
def test_more_seeds_show_agreement_more_often(tables):
    assert (simulate(tables, 10, 5, 0.0) == "agrees").mean() > 0.93
    assert (simulate(tables, 10, 5, 0.0) == "differs").any(1).mean() <= 0.05 + 4 * math.sqrt(0.05 / tables)


@pytest.mark.parametrize("tables", SIZES)
def test_a_miss_is_found_and_one_at_the_margin_rarely_agrees(tables):
    assert (simulate(tables, 3, 3, 1.0) == "differs").mean() > 0.9
    assert (simulate(tables, 3, 3, 0.5) == "agrees").mean() == near(0.05, 5 * tables)
