"""Forecasts of volatility to beat: what their formulas say, from the past alone."""

import math

import numpy as np
import pytest
from arch import arch_model
from helpers import random_bars, random_market

from maml_jax.backtest.baselines.volatility import (
    HAR,
    align_to_panel,
    ewma_volatility,
    garch_volatility,
    pooled_regression,
    recent_regression,
    remove_mean_error,
)
from maml_jax.data import garch_bars
from maml_jax.features import Target, compute_features, find_features, fit_scaler, fit_target
from maml_jax.features.volatility import log_return
from maml_jax.tasks import make_panel

TARGET = Target(4, kind="volatility")
TRAIN_LAST = 149


def panel_of(bars):
    tables = {a: compute_features(b, find_features(["har"])) for a, b in bars.items()}
    dates = next(iter(bars.values())).index
    scaler = fit_scaler([table.loc[: dates[TRAIN_LAST]] for table in tables.values()])
    scaler = fit_target(scaler, bars, TARGET, dates[0], dates[TRAIN_LAST])
    return make_panel(bars, {a: scaler.transform(t) for a, t in tables.items()}, TARGET, scaler)


BARS = random_market(count=220, assets=3)
BARS["A1"] = BARS["A1"].drop(BARS["A1"].index[[90, 91, 130]])
BARS["A2"] = BARS["A2"].iloc[30:]
PANEL = panel_of(BARS)


def normal_equations(x, y, penalty):
    """Fit with a constant that is not shrunk, by the normal equations of all columns."""
    full = np.c_[np.ones(len(x)), x]
    shrunk = penalty * np.diag([0.0] + [1.0] * x.shape[1])
    return np.linalg.solve(full.T @ full + shrunk, full.T @ y)


@pytest.mark.parametrize(("features", "penalty"), [(HAR, 0.0), (None, 3.0)])
def test_a_regression_is_on_the_last_complete_rows(features, penalty):
    found = recent_regression(PANEL, window=30, features=features, penalty=penalty, first=100)
    names = list(features or PANEL.feature_names)
    columns = [PANEL.feature_names.index(name) for name in names]
    x = np.asarray(PANEL.features, float)[..., columns]
    y, ends, valid = (np.asarray(each) for each in (PANEL.targets, PANEL.label_end, PANEL.valid))
    for a in range(3):
        for t in range(220):
            complete = [s for s in range(t) if ends[a, s] <= t][-30:]
            if not valid[a, t] or t < 100 or len(complete) < 30:
                assert np.isnan(found[a, t])
                continue
            beta = normal_equations(x[a, complete], y[a, complete].astype(float), penalty)
            assert found[a, t] == pytest.approx(beta[0] + x[a, t] @ beta[1:], rel=1e-6, abs=1e-8)
    assert np.isfinite(found).sum() > 200


def test_too_few_rows_for_the_slopes_give_a_forecast_still():
    found = recent_regression(PANEL, window=3, assets=["A0"], last=200)
    assert np.isfinite(found[0, 70:201]).all()
    assert np.isnan(found[1:]).all()
    assert np.isnan(found[:, 201:]).all()


def test_the_pooled_regression_is_fitted_on_the_span_alone():
    found = pooled_regression(PANEL, train_assets=["A0", "A1"], train_last=TRAIN_LAST)
    rows = np.asarray(PANEL.label_end) <= TRAIN_LAST
    rows[2] = False
    x, y = np.asarray(PANEL.features, float), np.asarray(PANEL.targets, float)
    beta = normal_equations(x[rows], y[rows], 0.0)
    valid = np.asarray(PANEL.valid)
    np.testing.assert_allclose(found[valid], (beta[0] + x @ beta[1:])[valid], rtol=1e-6)
    assert np.isnan(found[~valid]).all()


def test_the_shift_is_learned_in_the_span_alone():
    forecast = np.asarray(PANEL.targets, float) + 0.7
    forecast[:, TRAIN_LAST + 1 :] = 5.0
    found = remove_mean_error(forecast, PANEL, train_last=TRAIN_LAST)
    np.testing.assert_allclose(found, forecast - 0.7, atol=1e-6)


@pytest.mark.parametrize(
    "forecast",
    [
        lambda b: ewma_volatility(b),
        lambda b: garch_volatility(b, horizon=3, window=250, refit=20),
    ],
)
def test_later_bars_change_no_forecast(forecast):
    bars = random_bars(count=330)
    full = forecast(bars)
    for t in (270, 285, 300):
        changed = bars.copy()
        changed.iloc[t + 1 :] *= 1.4
        for other in (bars.iloc[: t + 1], changed):
            np.testing.assert_allclose(forecast(other).iloc[: t + 1], full.iloc[: t + 1])
    assert np.isfinite(full.iloc[260:]).all()


def test_later_bars_change_no_regression():
    changed = {a: b.copy() for a, b in BARS.items()}
    t = 170
    time = PANEL.timestamps[t]
    for bars in changed.values():
        bars.loc[bars.index > time] *= 1.4
    other = panel_of(changed)
    for make in (
        lambda p: recent_regression(p, window=20, penalty=1.0),
        lambda p: pooled_regression(p, train_last=TRAIN_LAST),
    ):
        before, after = (make(p)[:, : t + 1] for p in (PANEL, other))
        np.testing.assert_allclose(after, before, atol=1e-4)  # features are of single precision


def test_the_exponential_average_is_that_of_riskmetrics():
    bars = random_bars(count=100)
    found, closes = ewma_volatility(bars, decay=0.9), bars["close"].tolist()
    variance = math.log(closes[1] / closes[0]) ** 2
    assert np.isnan(found.iloc[0])
    for t in range(1, 100):
        if t > 1:
            variance = 0.9 * variance + 0.1 * math.log(closes[t] / closes[t - 1]) ** 2
        assert found.iloc[t] == pytest.approx(0.5 * math.log(variance))


def test_garch_forecasts_as_arch_does():
    bars = random_bars(count=330)
    found = garch_volatility(bars, horizon=4, window=260, refit=10, first=280)
    assert np.isnan(found.iloc[:280]).all()
    r = 100 * log_return(bars).to_numpy()[1:]  # the return of bar t is r[t - 1]
    for t in (280, 290, 320):
        model = arch_model(r[t - 260 : t], mean="Zero", rescale=False)
        fitted = model.fit(disp="off")
        expected = fitted.forecast(horizon=4).variance.iloc[-1].mean() / 100**2
        assert found.iloc[t] == pytest.approx(0.5 * math.log(expected), rel=1e-6)
    # Between two fits the parameters rest and the variance goes on.
    omega, alpha, beta = fitted.params
    variance = fitted.conditional_volatility[-1] ** 2
    for t in (320, 321, 322):
        variance = omega + alpha * r[t - 1] ** 2 + beta * variance
    ahead = [variance]
    for _ in range(3):
        ahead.append(omega + (alpha + beta) * ahead[-1])
    expected = 0.5 * math.log(np.mean(ahead) / 100**2)
    assert found.iloc[322] == pytest.approx(expected, rel=1e-6)


def test_a_masked_bar_is_passed_over():
    bars = random_bars(count=320)
    bars.iloc[300] = np.nan
    found = garch_volatility(bars, horizon=1, refit=5)
    assert np.isnan(found.iloc[[300, 301]]).all()  # the move out of it is unknown too
    assert np.isfinite(found.iloc[302:]).all()
    calm = ewma_volatility(bars)
    assert calm.iloc[301] == calm.iloc[300] == calm.iloc[299]


def test_garch_finds_the_variance_of_its_own_world():
    market = garch_bars(2500, assets=1, seed=0)
    found = garch_volatility(market.bars["A0"], horizon=1, refit=250, first=1500)
    truth = np.log(market.truth["A0"])
    error = (found - truth).iloc[1500:]
    assert abs(error.mean()) < 0.1
    assert error.std() < 0.4 * truth.iloc[1500:].std()


def test_forecasts_are_laid_out_as_the_panel_is():
    laid = align_to_panel(PANEL, {a: ewma_volatility(BARS[a]) for a in ("A1", "A2")})
    assert np.isnan(laid[0]).all()
    place = PANEL.timestamps.get_loc(BARS["A2"].index[50])
    assert laid[2, place] == ewma_volatility(BARS["A2"]).iloc[50]
    missing = PANEL.timestamps.get_indexer(
        [t for t in BARS["A0"].index if t not in BARS["A1"].index]
    )
    assert np.isnan(laid[1, missing]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: recent_regression(PANEL, window=1), "at least 2 rows"),
        (lambda: recent_regression(PANEL, window=9, penalty=-1.0), "penalty of at least 0"),
        (lambda: recent_regression(PANEL, window=9, features=["rsi"]), r"no features \['rsi'\]"),
        (lambda: pooled_regression(PANEL, train_last=5), "no label is complete"),
        (lambda: pooled_regression(PANEL, train_last=99, penalty=-1.0), "at least 0"),
        (
            lambda: remove_mean_error(np.zeros((3, 220)), PANEL, train_last=5),
            "no forecast with an outcome",
        ),
        (lambda: ewma_volatility(BARS["A0"], decay=1.0), "between 0 and 1"),
        (lambda: garch_volatility(BARS["A0"], horizon=0), "horizon and a refit of at least 1"),
        (lambda: garch_volatility(BARS["A0"], horizon=1, window=100), "window of at least 250"),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
