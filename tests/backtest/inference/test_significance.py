import warnings

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import SPA

from maml_jax.backtest.inference.alpha import SIZE, _bootstrap_null, alpha_tests, regress
from maml_jax.backtest.inference.bootstrap import block_length, resample
from maml_jax.backtest.inference.significance import (
    Roles,
    assess_significance,
    deflated_sharpe,
    long_run_variance,
    probabilistic_sharpe,
    superior_ability,
)

HELD = "buy and hold"


def world(seed, length=400, alpha=0.0, strategies=1):
    """Strategies that go long and short by themselves beside a market, heavy tails."""
    rng = np.random.default_rng(seed)
    market = rng.standard_t(4, length) * 0.008 + 0.0003
    sides = np.sign(rng.normal(size=(length, strategies)))
    net = pd.DataFrame(sides * market[:, None] + alpha)
    net.columns = [f"s{n}" for n in range(strategies)]
    return net.assign(**{HELD: market})


def table(net, **given):
    roles = {"headline": "s0", "methods": ["s0"], "baselines": [HELD]}
    roles |= {name: given.pop(name) for name in roles if name in given}
    settings = {"bars_per_year": 252, "seed": 0, "samples": 199, **given}
    return assess_significance(net, Roles(**roles), **settings)


def test_alpha_and_beta_are_those_of_least_squares():
    net = world(0, strategies=3)
    found = alpha_tests(net, HELD, seed=0, samples=99)
    for name, each in found.items():
        design = np.stack([np.ones(len(net)), net[HELD]], axis=1)
        value, beta = np.linalg.lstsq(design, net[name].to_numpy(), rcond=None)[0]
        assert each.value == pytest.approx(value) and each.beta == pytest.approx(beta)
        assert each.low < value < each.high


def clustered(y, x, first):
    """Alpha over its standard error with bars in clusters, by matrices."""
    design = np.stack([np.ones(len(x)), x], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    scores = np.add.reduceat(design * (y - design @ beta)[:, None], first, axis=0)
    error = np.sqrt((inverse @ scores.T @ scores @ inverse)[0, 0])
    return beta[0] / error, error


def test_samples_are_regressions_of_returns_whose_blocks_change_their_signs():
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.3, 1, 60), rng.standard_t(4, 60) + 0.2
    value, beta = regress(y, x)
    error, statistics = _bootstrap_null(y, x, y - value - beta * x, 30, np.random.default_rng(7))
    blocks = round(60 / block_length(y[:, None]))
    first = np.linspace(0, 60, blocks + 1).round().astype(int)[:-1]
    assert error == pytest.approx(clustered(y, x, first)[1])
    null = y - x * (x @ y) / (x @ x)
    signs = np.random.default_rng(7).choice([-1.0, 1.0], (30, blocks))
    for row, statistic in zip(signs, statistics, strict=True):
        drawn = (y - null) + np.repeat(row, np.diff(first, append=60)) * null
        assert statistic == pytest.approx(clustered(drawn, x, first)[0])


@pytest.mark.parametrize("samples", [19, 99, 100, 199, 250])
def test_the_interval_is_above_zero_exactly_where_the_test_rejects(samples):
    decisions = set()
    for seed in range(40):
        net = world(seed, length=80, alpha=0.0015 * (seed % 3))
        found = alpha_tests(net, HELD, seed=seed, samples=samples)["s0"]
        assert (found.p_value < SIZE) == (found.low > 0)
        decisions.add(found.p_value < SIZE)
    assert decisions == ({False} if samples == 19 else {False, True})


@pytest.mark.slow
@pytest.mark.long
def test_strategies_without_alpha_are_called_significant_as_often_as_is_said():
    rejected = [
        each.p_value
        for seed in range(10)
        for each in alpha_tests(
            world(1000 + seed, length=250, strategies=40), HELD, seed=seed, samples=199
        ).values()
    ]
    # 400 draws of 5 % lie between 2.3 and 8.2 % but for one time in a hundred.
    assert 0.023 <= np.mean(np.array(rejected) < SIZE) <= 0.082
    assert np.mean(np.array(rejected) > 1 - SIZE) <= 0.082
    assert np.mean(rejected) == pytest.approx(0.5, abs=0.05)


def test_an_alpha_is_found_and_a_negative_one_is_not():
    found = [
        alpha_tests(world(seed, alpha=sign * 0.004), HELD, seed=0, samples=199)["s0"].p_value
        for sign in (1, -1)
        for seed in range(5)
    ]
    assert max(found[:5]) < 0.05 and min(found[5:]) > 0.9


def test_the_test_does_not_depend_on_the_unit_of_returns_nor_on_other_strategies():
    net = world(3, strategies=3)
    small = alpha_tests(net * 1e-6, HELD, seed=0, samples=99)
    for name, each in alpha_tests(net, HELD, seed=0, samples=99).items():
        assert small[name].p_value == each.p_value
        assert small[name].low == pytest.approx(each.low * 1e-6)


def test_many_trials_are_answered_for_and_can_be():
    net = world(5, alpha=0.003)
    one = table(net).loc["s0"]
    many = table(net, trials=200, trial_variance=0.002).loc["s0"]
    assert one["p_adjusted"] == pytest.approx(one["p_value"])
    assert many["trials"] == 200
    # 199 samples tell no probability below 1 / 200, which 200 trials would make 0.63.
    assert many["p_value"] < 1e-3
    assert many["p_adjusted"] == pytest.approx(1 - (1 - many["p_value"]) ** 200)
    assert many["p_adjusted"] < 0.05
    assert many["deflated_sharpe"] < one["deflated_sharpe"] == one["probabilistic_sharpe"]
    luck = table(world(6), trials=200).loc["s0"]
    assert luck["p_adjusted"] > 0.9


def test_the_table_says_what_belongs_to_whom():
    net = world(7, strategies=4)
    found = table(
        net,
        methods=["s0", "s1"],
        baselines=["s2", "s3", HELD, "absent"],
        trials=4,
        trial_variance=0.001,
    )
    assert found.index.tolist() == net.columns.tolist() and found.index.name == "strategy"
    assert found["trials"].notna().tolist() == [True, True, False, False, False]
    assert found["spa_p"].notna().tolist() == [True, False, True, True, True]
    assert found.loc["s0", "spa_p"] == found.loc[["s2", "s3", HELD], "spa_p"].max()
    assert np.isnan(found.loc[HELD, "alpha [%]"]) and found.loc["s2", "alpha [%]"] != 0
    assert found.loc["s1", "probabilistic_sharpe"] == probabilistic_sharpe(net["s1"])
    assert found.loc["s1", "deflated_sharpe"] == deflated_sharpe(
        net["s1"], trials=4, trial_variance=0.001
    )
    assert found.loc["s0", "alpha [%]"] == pytest.approx(
        252 * 100 * alpha_tests(net, HELD, seed=0, samples=99)["s0"].value
    )
    with pytest.raises(KeyError, match="no returns of 'maml'"):
        table(net, headline="maml")
    with pytest.raises(ValueError, match="at least one trial"):
        table(net, trials=0)


def test_degenerate_series_are_nan_and_disturb_nobody():
    net = world(8, strategies=1)
    odd = net.assign(
        flat=0.0,
        constant=0.001,
        unknown=np.nan,
        infinite=np.where(np.arange(len(net)) == 3, np.inf, 0.0),
        held=net[HELD],
        half=0.5 * net[HELD],
        ruined=np.where(np.arange(len(net)) == 7, -1.0, np.where(np.arange(len(net)) < 7, 0.01, 0)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = table(odd, methods=["s0", "flat"], baselines=[HELD, "unknown", "held", "constant"])
    undecided = ["flat", "constant", "unknown", "infinite", "held", "half"]
    assert found.loc[undecided, ["p_value", "p_adjusted"]].isna().all(axis=None)
    assert found.loc["half", "beta"] == pytest.approx(0.5)
    assert found.loc["held", "alpha [%]"] == pytest.approx(0, abs=1e-9)
    assert found.loc["flat", "beta"] == 0
    assert not found.loc["ruined", "p_value"] < 0.5
    assert 0 < found.loc["s0", "p_value"] < 1
    assert np.isnan(found.loc["unknown", "spa_p"])
    assert found.loc["s0", "p_value"] == pytest.approx(table(net).loc["s0", "p_value"], abs=0.1)


@pytest.mark.parametrize("length", [0, 1, 2, 19])
def test_a_few_bars_say_nothing(length):
    found = table(world(9).iloc[:length])
    assert found[["p_value", "p_adjusted", "spa_p"]].isna().all(axis=None)


def test_without_a_benchmark_or_one_that_moves_there_is_no_alpha():
    net = world(10)
    for odd in (net[["s0"]], net.assign(**{HELD: 0.0})):
        found = table(odd)
        assert found.loc["s0", ["alpha [%]", "beta", "p_value", "p_adjusted"]].isna().all()
        assert 0 < found.loc["s0", "probabilistic_sharpe"] < 1


def test_superior_ability_finds_what_beats_a_baseline_and_nothing_else():
    net = world(11, length=600, strategies=3)
    net["better"] = net["s1"] + 0.004 + np.random.default_rng(0).normal(0, 0.003, len(net))
    settings = {"seed": 0, "samples": 199}
    found = superior_ability(net, ["s0", "better"], ["s1", "s2", HELD], **settings)
    assert found.index.tolist() == ["s1", "s2", HELD]
    assert (found < 0.05).all()
    # One that is far worse is not recentred, and beats its own mean in half of the samples.
    assert (superior_ability(net, ["s1"], ["better"], **settings) > 0.4).all()
    assert superior_ability(net.assign(same=net["s0"]), ["s0"], ["same"], **settings)["same"] == 1
    assert superior_ability(net, ["s0"], ["s0", "absent"], **settings).empty
    again = superior_ability(net, ["s0", "better"], ["s1", "s2", HELD], **settings)
    assert again.equals(found)


def test_who_lost_everything_is_never_significant():
    rng = np.random.default_rng(0)
    net = pd.DataFrame(
        {"bold": 0.02 + 0.05 * rng.standard_normal(400), "buy and hold": 0.0},
        index=pd.bdate_range("2020-01-01", periods=400, tz="UTC"),
    )
    net["buy and hold"] = 0.01 * rng.standard_normal(400)
    roles = Roles("bold", ["bold"], ["buy and hold"])
    terms = {"bars_per_year": 252, "seed": 0, "samples": 50}
    assert assess_significance(net, roles, **terms).loc["bold", "p_adjusted"] < 0.05
    net.iloc[200, 0] = -1.0
    found = assess_significance(net, roles, **terms).loc["bold"]
    assert found["p_adjusted"] == found["p_value"] == 1.0
    assert found["deflated_sharpe"] == found["probabilistic_sharpe"] == 0.0


@pytest.mark.long
def test_superior_ability_agrees_with_another_implementation():
    net = world(5, length=300, strategies=4)
    net["better"] = net["s1"] + 0.001
    methods, baselines, samples = ["s0", "better"], ["s1", "s2", HELD], 4000
    drawn = resample(net, 252.0, seed=0, samples=samples)
    found = superior_ability(net, methods, baselines, seed=0, resampled=drawn)
    for baseline in baselines:
        losses = -(net[methods].to_numpy() - net[[baseline]].to_numpy())
        block = round(drawn.block)
        test = SPA(np.zeros(len(net)), losses, block_size=block, reps=samples, seed=1)
        test.compute()
        expected = test.pvalues["consistent"]
        error = np.sqrt(2 * 0.25 / samples)
        assert abs(found[baseline] - expected) < 5 * error
    assert 0.05 < found[HELD] < 0.95  # else there is nothing to agree about


@pytest.mark.parametrize("block", [1.0, 7.3])
def test_the_long_run_variance_is_the_sum_over_all_lags(block):
    values = np.random.default_rng(0).standard_normal((50, 2)).cumsum(axis=0)
    off, n, q = values - values.mean(axis=0), 50, 1 - 1 / block
    expected = np.mean(off**2, axis=0)
    for lag in range(1, n):
        weight = (1 - lag / n) * q**lag + lag / n * q ** (n - lag)
        expected += 2 * weight * (off[lag:] * off[:-lag]).sum(axis=0) / n
    np.testing.assert_allclose(long_run_variance(values, block), expected, rtol=1e-9)
