"""Simulated bars are in normal form, as their equations say, and grow without changing."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp, kstest, kurtosis

from maml_jax.data import to_bars
from maml_jax.data.synthetic import (
    REGIMES,
    Market,
    Regime,
    garch_bars,
    known_answer_bars,
    known_answer_oracle,
    random_walk_bars,
    regime_bars,
    stationary_distribution,
    trend_bars,
)
from maml_jax.data.synthetic.known_answer import DIRECTIONS, LINKS, _powers
from maml_jax.worlds import known_answer as tasks

pytestmark = pytest.mark.long

SIMULATORS = {
    "random_walk": random_walk_bars,
    "trend": lambda count, **market: trend_bars(count, momentum=0.3, **market),
    "regime": regime_bars,
    "garch": garch_bars,
    "known_answer": known_answer_bars,
    "drifting_answer": lambda count, **market: known_answer_bars(
        count, drift=0.95, noise="student_t", **market
    ),
}
every_simulator = pytest.mark.parametrize("simulate", SIMULATORS.values(), ids=SIMULATORS)


def log_returns(bars, price=100.0):
    """From close to close, `[asset, time]`."""
    closes = np.log([frame["close"] for frame in bars.values()])
    return np.diff(closes, axis=1, prepend=np.log(price))


@every_simulator
@pytest.mark.parametrize("gap", [0.0, 0.3])
def test_bars_are_in_normal_form(simulate, gap):
    options = {"start": "2020-03-01", "interval": "15min", "gap": gap, "correlation": 0.4}
    bars, truth = simulate(300, assets=["BTC", "ETH"], seed=4, **options)
    assert list(bars) == list(truth.columns) == ["BTC", "ETH"]
    for name, frame in bars.items():
        pd.testing.assert_frame_equal(to_bars(frame, symbol=name)[name], frame, check_exact=True)
        assert list(frame.columns) == ["open", "high", "low", "close", "volume"]
        assert frame.index[[0, 1]].equals(
            pd.DatetimeIndex(["2020-03-01", "2020-03-01 00:15"], tz="UTC")
        )
        assert truth.index.equals(frame.index)
        assert (frame > 0).all(axis=None)
        assert (frame["high"] >= frame[["open", "close"]].max(axis=1)).all()
        assert (frame["low"] <= frame[["open", "close"]].min(axis=1)).all()
        before = frame["close"].shift(fill_value=100.0)
        assert (frame["open"] == before).all() == (gap == 0)
    assert truth.notna().all(axis=None)


@every_simulator
def test_one_seed_one_market(simulate):
    options = {"assets": 2, "correlation": 0.5, "gap": 0.1}
    one, again, other = (simulate(60, seed=seed, **options) for seed in (1, 1, 2))
    for name in one.bars:
        pd.testing.assert_frame_equal(one.bars[name], again.bars[name], check_exact=True)
        assert (one.bars[name] != other.bars[name]).iloc[1:].all(axis=None)
    pd.testing.assert_frame_equal(one.truth, again.truth, check_exact=True)


@every_simulator
def test_more_bars_and_more_assets_change_nothing_before(simulate):
    options = {"correlation": 0.5, "gap": 0.1, "seed": 3}
    short, long = simulate(77, assets=2, **options), simulate(300, assets=5, **options)
    for name in short.bars:
        pd.testing.assert_frame_equal(long.bars[name].iloc[:77], short.bars[name], rtol=1e-10)
    pd.testing.assert_frame_equal(long.truth.iloc[:77, :2], short.truth, rtol=1e-10)


def test_a_random_walk_has_its_drift_volatility_and_correlation():
    volatility, correlation = [0.01, 0.02, 0.03], [[1, 0.5, -0.2], [0.5, 1, 0.0], [-0.2, 0, 1]]
    options = {"drift": 0.001, "volatility": volatility, "correlation": correlation}
    bars, truth = random_walk_bars(40_000, assets=3, **options)
    r = log_returns(bars)
    assert (np.abs(r.mean(axis=1) - 0.001) < 4 * np.array(volatility) / 200).all()
    np.testing.assert_allclose(r.std(axis=1), volatility, rtol=0.015)
    np.testing.assert_allclose(np.corrcoef(r), correlation, atol=0.02)
    assert abs(np.corrcoef(r[0, :-1], r[0, 1:])[0, 1]) < 0.02
    assert kstest((r[0] - 0.001) / 0.01, "norm").pvalue > 0.001
    assert (truth == 0.001).all(axis=None)


@pytest.mark.parametrize("correlation", [1.0, -0.5])
def test_correlations_may_be_singular(correlation):
    r = log_returns(random_walk_bars(20_000, assets=3, correlation=correlation).bars)
    assert np.corrcoef(r)[0, 2] == pytest.approx(correlation, abs=0.02)
    if correlation < 0:
        np.testing.assert_allclose(r.sum(axis=0), 0, atol=1e-8)


def test_momentum_is_the_autocorrelation_of_returns():
    bars, truth = trend_bars(40_000, assets=2, drift=0.001, momentum=[0.3, -0.5])
    r = log_returns(bars)
    np.testing.assert_allclose(r.std(axis=1), 0.01, rtol=0.02)
    for row, expected, momentum in zip(r, truth.to_numpy().T, (0.3, -0.5), strict=True):
        assert np.corrcoef(row[:-1], row[1:])[0, 1] == pytest.approx(momentum, abs=0.02)
        np.testing.assert_allclose(expected, 0.001 + momentum * (row - 0.001), atol=1e-10)
    starts = log_returns(trend_bars(1, assets=500, momentum=0.9).bars)
    assert starts.std() == pytest.approx(0.01, rel=0.12)


def test_highs_and_lows_are_those_of_a_path_simulated_by_brute_force():
    rng, bars, steps, volatility = np.random.default_rng(0), 2000, 3000, 0.02
    high, low, close = np.empty((3, bars))
    for part in np.split(np.arange(bars), 10):
        paths = np.cumsum(rng.standard_normal((len(part), steps), np.float32), axis=1) / steps**0.5
        # The highest of n steps lies 0.5826 steps below that of the motion (Siegmund 1979).
        high[part] = np.maximum(paths.max(axis=1), 0) + 0.5826 / steps**0.5
        low[part] = np.minimum(paths.min(axis=1), 0) - 0.5826 / steps**0.5
        close[part] = paths[:, -1]
    frame = random_walk_bars(20_000, volatility=volatility).bars["A0"]
    ours = np.log(frame.div(frame["open"], axis=0)) / volatility
    for statistic in (
        lambda high, low, close: high,
        lambda high, low, close: -low,
        lambda high, low, close: high - low,
        lambda high, low, close: high - np.maximum(close, 0),
        lambda high, low, close: high + low - close,
    ):
        by_hand = statistic(high, low, close)
        assert ks_2samp(by_hand, statistic(ours["high"], ours["low"], ours["close"])).pvalue > 0.01
    # The mean square of a Brownian motion's range is 4 log 2 (Parkinson 1980).
    square = (ours["high"] - ours["low"]) ** 2
    assert square.mean() == pytest.approx(4 * np.log(2), rel=0.02)


def test_a_gap_leaves_returns_as_they_are_and_takes_its_share_of_their_variance():
    with_gap, without = (random_walk_bars(20_000, gap=gap).bars for gap in (0.25, 0.0))
    np.testing.assert_allclose(log_returns(with_gap), log_returns(without), atol=1e-12)
    frame = with_gap["A0"]
    night = np.log(frame["open"] / frame["close"].shift()).iloc[1:]
    day = np.log(frame["close"] / frame["open"]).iloc[1:]
    assert night.var() == pytest.approx(0.25e-4, rel=0.04)
    assert day.var() == pytest.approx(0.75e-4, rel=0.04)
    assert night.corr(day) == pytest.approx(0, abs=0.03)


def test_volume_grows_with_the_move():
    bars = random_walk_bars(5000, assets=2, volume=[10, 1000]).bars
    for frame, size in zip(bars.values(), (10, 1000), strict=True):
        moves = np.log(frame["close"] / frame["open"]).abs()
        rest = np.log(frame["volume"] / size / (1 + moves / 0.01))
        assert kstest(rest / 0.3, "norm").pvalue > 0.001
        assert frame["volume"].corr(moves) > 0.5


def test_garch_has_its_moments():
    volatility, alpha, beta = 0.02, 0.15, 0.75
    options = {"volatility": volatility, "alpha": alpha, "beta": beta, "degrees": None}
    bars, truth = garch_bars(20_000, assets=10, **options)
    r = log_returns(bars)
    assert r.var() == pytest.approx(volatility**2, rel=0.03)
    total = alpha + beta
    assert kurtosis(r, axis=None, fisher=False) == pytest.approx(
        3 * (1 - total**2) / (1 - total**2 - 2 * alpha**2), rel=0.08
    )
    first = alpha * (1 - total * beta) / (1 - total**2 + alpha**2)
    squares = r**2
    for lag in (1, 5):
        seen = np.corrcoef(squares[:, :-lag].ravel(), squares[:, lag:].ravel())[0, 1]
        assert seen == pytest.approx(first * total ** (lag - 1), abs=0.03)
    z = r[:, 1:] / truth.to_numpy().T[:, :-1]
    assert kstest(z.ravel(), "norm").pvalue > 0.001
    variance = truth.to_numpy().T ** 2
    by_hand = (1 - total) * volatility**2 + alpha * squares[:, 1:] + beta * variance[:, :-1]
    np.testing.assert_allclose(variance[:, 1:], by_hand, rtol=1e-8)


def test_students_noise_is_of_unit_variance_and_its_correlation_as_asked():
    bars, truth = garch_bars(100_000, assets=2, degrees=5.0, correlation=0.6, alpha=0.02, beta=0.5)
    z = log_returns(bars)[:, 1:] / truth.to_numpy().T[:, :-1]
    assert z.var() == pytest.approx(1, rel=0.03)
    assert kstest(z[0] * (5 / 3) ** 0.5, "t", args=(5,)).pvalue > 0.001
    assert np.corrcoef(z)[0, 1] == pytest.approx(0.6, abs=0.02)


def test_uncorrelated_students_noise_is_independent():
    # Both tails at once would show as a correlation of sizes.
    r = np.abs(log_returns(garch_bars(20_000, assets=2, alpha=0.0, beta=0.0, degrees=3.0).bars))
    assert np.corrcoef(np.argsort(np.argsort(r)))[0, 1] == pytest.approx(0, abs=0.03)


def test_regimes_come_as_often_and_stay_as_long_as_they_should():
    bars, truth = regime_bars(10_000, assets=20)
    assert truth["A0"].cat.categories.tolist() == list(REGIMES)
    codes = np.stack([truth[name].cat.codes for name in truth])
    r = log_returns(bars)
    lengths = np.array([regime.bars for regime in REGIMES.values()])
    # All regimes are entered as often as each other.
    share = np.bincount(codes.ravel()) / codes.size
    np.testing.assert_allclose(share, lengths / lengths.sum(), rtol=0.12)
    leaves = codes[:, 1:] != codes[:, :-1]
    for code, regime in enumerate(REGIMES.values()):
        inside = codes == code
        stay = inside[:, :-1].sum() / leaves[inside[:, :-1]].sum()
        assert stay == pytest.approx(regime.bars, rel=0.2)
        error = regime.volatility / inside.sum() ** 0.5
        assert r[inside].mean() == pytest.approx(regime.drift, abs=4 * error)
        if not regime.reversion:
            assert r[inside].std() == pytest.approx(regime.volatility, rel=0.03)


def test_own_regimes_follow_their_matrix():
    regimes = {"up": Regime(0.01, 0.001), "down": Regime(-0.01, 0.002), "flat": Regime(0, 0)}
    matrix = np.array([[0.8, 0.2, 0.0], [0.0, 0.9, 0.1], [0.5, 0.0, 0.5]])
    options = {"regimes": regimes, "transition": matrix}
    bars, truth = regime_bars(3000, assets=10, **options)
    codes = np.stack([truth[name].cat.codes for name in truth])
    seen = np.zeros((3, 3))
    np.add.at(seen, (codes[:, :-1].ravel(), codes[:, 1:].ravel()), 1)
    np.testing.assert_allclose(seen / seen.sum(axis=1, keepdims=True), matrix, atol=0.015)
    share = stationary_distribution(matrix)
    np.testing.assert_allclose(share @ matrix, share, atol=1e-12)
    np.testing.assert_allclose(np.bincount(codes.ravel()) / codes.size, share, atol=0.03)
    flat = codes == 2
    np.testing.assert_allclose(log_returns(bars)[flat], 0, atol=1e-12)
    firsts = regime_bars(1, assets=500, **options).truth.iloc[0].value_counts(normalize=True)
    np.testing.assert_allclose(firsts[list(regimes)], share, atol=0.07)


def test_shared_regimes_are_the_same_for_all_assets():
    truth = regime_bars(2000, assets=3, shared=True).truth
    assert (truth["A0"] == truth["A2"]).all()
    own = regime_bars(2000, assets=3).truth
    assert (own["A0"] != own["A2"]).any()


def test_a_range_holds_the_price():
    regimes = {"ranging": Regime(0.0, 0.01, reversion=0.2)}
    bars = regime_bars(30_000, regimes=regimes).bars
    away = np.log(bars["A0"]["close"] / 100)
    assert away.std() == pytest.approx(0.01 / (1 - 0.8**2) ** 0.5, rel=0.04)
    assert away.autocorr(1) == pytest.approx(0.8, abs=0.02)


def test_the_matrix_may_fall_apart_or_run_in_circles():
    np.testing.assert_allclose(stationary_distribution(np.eye(3)), 1 / 3)
    np.testing.assert_allclose(stationary_distribution([[0, 1], [1, 0]]), 0.5)
    np.testing.assert_allclose(stationary_distribution([[1, 0], [0.1, 0.9]]), [1, 0], atol=1e-12)


def test_the_known_answer_is_that_of_the_tasks():
    np.testing.assert_allclose(DIRECTIONS, tasks._directions(), atol=1e-8)
    x = np.random.default_rng(0).standard_normal((200_000, 10))
    for link, g in LINKS.items():
        phi = g(x @ DIRECTIONS)
        np.testing.assert_allclose(_powers(link), phi.T @ phi / len(x), atol=0.01)
        np.testing.assert_allclose(np.diag(_powers(link)), tasks._powers(link), atol=1e-6)


@pytest.mark.parametrize("noise", ["gaussian", "student_t"])
@pytest.mark.parametrize("link", LINKS)
def test_the_known_answer_has_its_variances(link, noise):
    snr = 0.02
    bars, truth = known_answer_bars(
        2000, assets=200, snr=snr, link=link, noise=noise, volatility=0.03
    )
    x, f = log_returns(bars) / 0.03, truth.to_numpy().T / 0.03
    assert x.var() == pytest.approx(1, rel=0.03)
    # Var f over Var y, of an asset's z; the mean over z of what is about linear at a low snr.
    share = tasks.signal_variance() * snr
    assert f.var() == pytest.approx(share / (1 + share), rel=0.15)
    rest = x[:, 1:] - f[:, :-1]
    assert rest.var() == pytest.approx(1 / (1 + share), rel=0.03)
    assert np.corrcoef(rest.ravel(), f[:, :-1].ravel())[0, 1] == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("link", LINKS)
def test_the_truth_is_a_function_of_ten_past_returns(link):
    bars, truth = known_answer_bars(300, assets=2, snr=0.3, link=link)
    x = np.lib.stride_tricks.sliding_window_view(log_returns(bars) / 0.01, 10, axis=1)[..., ::-1]
    for asset, column in enumerate(truth):
        phi, f = LINKS[link](x[asset] @ DIRECTIONS), truth[column].to_numpy()[9:]
        z = np.linalg.lstsq(phi, f)[0]
        np.testing.assert_allclose(phi @ z, f, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("snr", "least"), [(1.0, 0.85), (0.1, 0.5), (0.02, 0.25)])
def test_the_oracle_finds_the_answer(snr, least):
    bars, truth = known_answer_bars(1000, assets=10, snr=snr)
    predicted = known_answer_oracle(bars, snr=snr)
    assert predicted.notna().all(axis=1).to_numpy().tolist() == [False] * 30 + [True] * 970
    longer = known_answer_oracle(bars, snr=snr, window=40)
    ic = predicted.corrwith(truth).mean()
    assert least < ic < longer.corrwith(truth).mean()
    stranger = known_answer_oracle({"A0": bars["A1"]}, snr=snr)["A0"]
    assert stranger.corr(truth["A0"]) < ic / 2


def test_the_oracle_is_bayesian_regression_on_the_last_rows():
    bars, _ = known_answer_bars(60, snr=0.5, volatility=0.02)
    ours = known_answer_oracle(bars, snr=0.5, volatility=0.02, window=8, drift=0.9)["A0"]
    r = log_returns(bars)[0] / 0.02
    phi = {t: 1.5 / 3**0.5 * np.tanh(r[t - 9 : t + 1][::-1] @ DIRECTIONS) for t in range(10, 60)}
    for t in (18, 59):
        rows = range(t - 8, t)
        kernel = [[phi[s] @ phi[u] * 0.9 ** abs(s - u) for u in rows] for s in rows]
        to_now = [phi[t] @ phi[s] * 0.9 ** (t - s) for s in rows]
        known = [r[s + 1] for s in rows]
        by_hand = to_now @ np.linalg.solve(np.array(kernel) + 2 * np.eye(8), known)
        assert ours.iloc[t] == pytest.approx(0.02 * by_hand, rel=1e-9)
    assert np.isnan(ours.iloc[17])


def test_coefficients_that_drift_are_forgotten():
    bars, truth = known_answer_bars(1500, assets=5, snr=1.0, drift=0.95)
    told = known_answer_oracle(bars, snr=1.0, drift=0.95, window=40)
    untold = known_answer_oracle(bars, snr=1.0, window=40)
    assert told.corrwith(truth).mean() > untold.corrwith(truth).mean() + 0.05


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"count": 2.5}, "count must be a whole number"),
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"assets": 0}, "assets must be"),
        ({"assets": 1.5}, "assets must be"),
        ({"assets": ["A", "A"]}, "assets must be"),
        ({"interval": "fortnight"}, "do not give 5 times"),
        ({"interval": "-1D"}, "interval must be positive"),
        ({"start": "yesterweek"}, "do not give 5 times"),
        ({"correlation": 1.1, "assets": 2}, "positive semi-definite"),
        ({"correlation": -0.6, "assets": 3}, "smallest eigenvalue is -0.2"),
        ({"correlation": np.eye(2), "assets": 3}, r"shape \(3, 3\)"),
        ({"correlation": [[1, 0.1], [0.2, 1]], "assets": 2}, "symmetric"),
        ({"correlation": [[2, 0], [0, 2]], "assets": 2}, "ones on the diagonal"),
        ({"price": 0}, "price must be above 0"),
        ({"price": [1, 2, 3], "assets": 2}, "one for each of 2 assets"),
        ({"volume": -1}, "volume must be above 0"),
        ({"gap": 1.0}, "gap must lie in"),
    ],
)
def test_impossible_markets_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        Market(**{"count": 5, **settings})


@pytest.mark.parametrize(
    ("simulate", "settings", "problem"),
    [
        (random_walk_bars, {"volatility": -0.1}, "volatility must be at least 0"),
        (random_walk_bars, {"drift": np.nan}, "drift must be finite"),
        (random_walk_bars, {"drift": 100.0}, "A0 leaves what numbers can hold at bar 5"),
        (trend_bars, {"momentum": 1.0}, "momentum must be above -1 and below 1"),
        (garch_bars, {"alpha": 0.2, "beta": 0.8}, "alpha . beta must be below 1"),
        (garch_bars, {"alpha": -0.1}, "alpha must be at least 0"),
        (garch_bars, {"degrees": 2.0}, "degrees must be above 2"),
        (regime_bars, {"regimes": {}}, "at least one"),
        (regime_bars, {"regimes": {"a": Regime(volatility=-1)}}, "volatility of regime 'a'"),
        (regime_bars, {"regimes": {"a": Regime(bars=0.5)}}, "bars of regime 'a'"),
        (regime_bars, {"regimes": {"a": Regime(reversion=1.5)}}, "reversion of regime 'a'"),
        (regime_bars, {"transition": np.eye(2)}, "of 2 regimes, but there are 6"),
        (regime_bars, {"transition": np.ones((2, 3))}, "square"),
        (regime_bars, {"transition": np.ones((6, 6))}, "row 0 sums to 6"),
        (regime_bars, {"transition": [[1.5, -0.5], [0, 1]]}, "none negative"),
        (regime_bars, {"transition": [[np.nan, 1], [0, 1]]}, "none negative or missing"),
        (known_answer_bars, {"snr": 0}, "snr must be positive"),
        (known_answer_bars, {"link": "quadratic"}, "link must be one of"),
        (known_answer_bars, {"noise": "cauchy"}, "noise must be one of"),
        (known_answer_bars, {"drift": 1.5}, "drift must lie in"),
        (known_answer_bars, {"volatility": 0}, "volatility must be above 0"),
    ],
)
def test_impossible_settings_are_refused(simulate, settings, problem):
    with pytest.raises(ValueError, match=problem):
        simulate(10, **settings)


def test_an_impossible_oracle_is_refused():
    bars = known_answer_bars(20).bars
    with pytest.raises(ValueError, match="window must be at least 1"):
        known_answer_oracle(bars, window=0)
    assert known_answer_oracle(bars).isna().all(axis=None)
