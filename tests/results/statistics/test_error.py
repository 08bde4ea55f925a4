"""The pooled error of blocks x methods, and Dunnett's distribution, against statsmodels, scipy and brute force."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions
from statsmodels.formula.api import ols
from statsmodels.stats.anova import AnovaRM

from kdbench.results.statistics import blocks, critical, fit


def table(values, methods="abcdefgh"):
    values = np.asarray(values, float)
    return pd.DataFrame(values, columns=list(methods[: values.shape[1]]))


def long(scores):
    frame = scores.rename_axis(index="block", columns="method").stack().rename("value").reset_index()
    return frame.dropna()


def noise(shape, seed=0, sd=1.0):
    return 70 + np.random.default_rng(seed).normal(0, sd, shape) + np.arange(shape[0])[:, None]


def test_pooled_error_is_that_of_a_repeated_measures_anova():
    scores = table(noise((4, 5)))
    anova = AnovaRM(long(scores), "value", "block", within=["method"]).fit().anova_table
    between = 4 * scores.mean().var(ddof=1)  # mean square of methods
    found = blocks.pool(scores)
    assert found.df == anova["Den DF"].iloc[0] == 12
    assert between / found.sd**2 == pytest.approx(anova["F Value"].iloc[0])
    assert found.methods["adjusted"].to_numpy() == pytest.approx(scores.mean().to_numpy())


def test_with_gaps_error_and_means_are_those_of_least_squares():
    scores = table(noise((5, 4), 1))
    scores.iloc[0, 1] = scores.iloc[3, 1] = scores.iloc[4, 2] = np.nan
    model = ols("value ~ C(method) + C(block)", long(scores)).fit()
    found = blocks.pool(scores)
    assert (found.df, found.sd**2) == pytest.approx((model.df_resid, model.mse_resid))
    rest = pd.DataFrame({"block": np.tile(scores.index, 4), "method": np.repeat(scores.columns, 5)})
    expected = model.predict(rest).groupby(rest["method"]).mean()
    assert found.methods["adjusted"].to_numpy() == pytest.approx(expected.to_numpy())


def test_many_tables_at_once_are_each_as_alone():
    values = np.stack([noise((4, 5), seed) for seed in range(3)])
    values[1, 2, 3] = np.nan
    values[2, 0, 0] += 40
    together = fit.pooled(values, np.ones((3, 5), bool))
    for i in range(3):
        alone = fit.pooled(values[i], np.ones(5, bool))
        assert np.allclose(together.fit.variance[i], alone.fit.variance)
        assert np.allclose(together.p_noisy[i], alone.p_noisy, equal_nan=True)
        assert (together.kept[i] == alone.kept).all()
    assert not together.kept[2, 0]


def test_the_guards_p_is_uniform_among_equal_methods():
    values = np.random.default_rng(2).normal(size=(4000, 3, 5))
    values += np.random.default_rng(3).normal(size=(4000, 3, 1))  # seeds shift all
    _, p = fit.excess(values, np.ones((4000, 5), bool), 0)
    assert distributions.kstest(p, "uniform").pvalue > 0.01


def test_equal_variances_are_tested_as_scipys_bartlett_does():
    scores = table(noise((4, 6), 4))
    found = blocks.pool(scores)
    left = scores.sub(found.error.fit.blocks, axis=0)
    expected = distributions.bartlett(*(left[method] for method in left)).pvalue
    assert found.unequal == pytest.approx(expected)


def test_a_noisy_method_leaves_the_pool_as_if_it_had_not_run():
    scores = table(noise((5, 6), 5))
    loud = scores.assign(a=70 + 30 * (scores["a"] - 70))
    found, without = blocks.pool(loud), blocks.pool(scores.drop(columns="a"))
    assert found.methods["state"].to_dict() == {"a": "noisy"} | dict.fromkeys("bcdef", "pooled")
    assert (found.sd, found.df) == pytest.approx((without.sd, without.df))


def test_collapsed_runs_are_far_below_and_leave_the_pool():
    scores = table(noise((3, 4), 6))
    scores.iloc[1, 2] = 10.0
    assert blocks.collapsed_runs(scores).to_numpy().nonzero() == ([1], [2])
    assert blocks.pool(scores).of(blocks.COLLAPSED) == ["c"]
    assert blocks.pool(scores).sd == pytest.approx(blocks.pool(scores.drop(columns="c")).sd)
    assert not blocks.collapsed_runs(scores.assign(c=45.0)).any(axis=None)  # a poor method is no collapse
    assert blocks.collapsed_runs(scores.assign(c=45.0), chance=50.0)["c"].all()  # of two classes it is


def test_one_seed_each_leaves_no_error():
    found = blocks.pool(table([[70.0, 71.0, 72.0]]))
    assert np.isnan(found.sd)
    assert found.df == 0
    assert set(found.methods["state"]) == {"short"}


def test_a_method_on_seeds_of_its_own_is_not_compared():
    scores = table(np.full((6, 3), np.nan))
    scores.iloc[:4, :2] = noise((4, 2))
    scores.iloc[4:, 2] = 99.0, 98.0
    assert blocks.pool(scores).methods["state"].to_dict() == {"a": "pooled", "b": "pooled", "c": "short"}


def test_identical_runs_have_no_error():
    found = blocks.pool(table([[95.0, 95.0, 96.0], [94.5, 94.5, 95.5]]))
    assert (found.sd, found.df) == (0.0, 2)
    assert np.isnan(found.unequal)


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize(("k", "df"), [(2, 2), (7, 4), (7, 14), (20, 40)])
def test_dunnetts_limit_is_scipys_multivariate_t(k, df, sides):
    limit = critical.critical(k, df, sides=sides)
    below = np.full(k, -limit if sides == 2 else -np.inf)
    shape = 0.5 * (np.eye(k) + 1)
    law = distributions.multivariate_t(shape=shape, df=df, seed=0)
    assert law.cdf(np.full(k, limit), lower_limit=below) == pytest.approx(
        0.95, abs=5e-4
    )  # scipy's is a random sum


def test_dunnetts_limits_are_those_of_the_tables():
    # Dunnett 1964: k = 3, 12 df, two-sided 2.68; k = 7, 14 df: 2.97; one-sided 2.59
    limits = critical.critical(3, 12), critical.critical(7, 14), critical.critical(7, 14, sides=1)
    assert limits == pytest.approx((2.68, 2.97, 2.59), abs=0.005)


def test_without_blocks_adjusted_p_is_scipys_dunnett():
    groups = np.random.default_rng(7).normal(0, 1, (5, 6)) + np.array([0, 0, 0.5, 1, 2])[:, None]
    error = groups.var(axis=1, ddof=1).mean()
    t = (groups[1:].mean(1) - groups[0].mean()) / np.sqrt(2 * error / 6)
    expected = distributions.dunnett(*groups[1:], control=groups[0], random_state=np.random.default_rng(0))
    assert critical.adjusted_p(t, 4, 25) == pytest.approx(expected.pvalue, abs=2e-3)
    assert critical.adjusted_p(np.inf, 4, 25) == 0
    assert np.isnan(critical.adjusted_p(np.nan, 4, 25))


def test_one_comparison_is_a_t_test():
    assert critical.adjusted_p(2.3, 1, 7) == pytest.approx(2 * distributions.t.sf(2.3, 7), abs=1e-5)
    assert critical.critical(1, 7) == pytest.approx(distributions.t.ppf(0.975, 7))
