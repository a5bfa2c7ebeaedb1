r"""Forecasts of volatility that learners have to beat, each from the past alone.

Of two kinds. **Regressions** of the panel's targets on its features: on an asset's own last rows,
as learners adapt, or on the rows of many assets in the meta-training span. **Models of the
variance** of an asset's returns, $\ln (c_t / c_{t-1})$: they forecast a mean of squares, whose
logarithm lies above the mean of logarithms that is the target; `remove_mean_error` takes the
difference away.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from maml_jax.features.volatility import log_return
from maml_jax.tasks.families import asset_numbers
from maml_jax.tasks.panel import Panel

HAR = ("log_volatility_1", "log_volatility_5", "log_volatility_22")
"""Features of the heterogeneous autoregressive model of a day, a week and a month."""

RISKMETRICS = 0.94
GARCH_WINDOW, GARCH_LEAST = 1000, 250
_PER_CENT = 100.0
"""Returns are fitted in per cent, as the fit's tolerances want them."""

_FLOOR = 1e-6
"""The least volatility per bar, as of the features."""


def recent_regression(
    panel: Panel,
    *,
    window: int,
    features: Sequence[str] | None = None,
    penalty: float = 0.0,
    first: int = 0,
    last: int | None = None,
    assets: Sequence[str] | None = None,
) -> Float[np.ndarray, "asset time"]:
    r"""Regression on the last rows of an asset whose labels are complete, refitted at every bar.

    $$\hat y_t = \bar y + (x_t - \bar x)^\top
      \bigl(\tilde X^\top \tilde X + \lambda I\bigr)^{-1} \tilde X^\top \tilde y$$

    with $\tilde X, \tilde y$ the rows minus their means: the constant is not shrunk. The HAR model
    per asset is this on `HAR`, without a penalty.

    Args:
        panel: standardised features and the targets.
        window: rows to fit on.
        features: names of the features to use; default all.
        penalty: $\lambda$; with 0 the least of all equally good slopes is taken where the rows do
            not tell them apart.
        first: index on the time axis of the first bar to predict at.
        last: index of the last one; default the end.
        assets: names of the assets to predict; default all.

    Returns:
        Predictions of the panel's targets; NaN where there is no row of features or fewer than
        `window` complete labels, and outside `first..last` and `assets`.

    Raises:
        DataError: if an asset is unknown.
        ValueError: if `window` is below 2, the penalty negative, or a feature unknown.
    """
    if window < 2 or not penalty >= 0:
        raise ValueError(
            "a regression needs a window of at least 2 rows and a penalty of at least 0, got "
            f"{window} and {penalty}"
        )
    x, y = _columns(panel, features), np.asarray(panel.targets, float)
    ends = np.asarray(panel.label_end)
    result = np.full(y.shape, np.nan)
    for asset in asset_numbers(panel, assets):
        rows = np.flatnonzero(ends[asset] < y.shape[1])
        # Labels of an asset are completed in the order of its rows.
        due = _span(np.asarray(panel.valid)[asset], first, last)
        complete = np.searchsorted(ends[asset, rows], due, side="right")
        due, complete = due[complete >= window], complete[complete >= window]
        for time, stop in zip(due, complete, strict=True):
            support = rows[stop - window : stop]
            slopes, x_mean, y_mean = _fit(x[asset, support], y[asset, support], penalty)
            result[asset, time] = y_mean + (x[asset, time] - x_mean) @ slopes
    return result


def pooled_regression(
    panel: Panel,
    *,
    train_assets: Sequence[str] | None = None,
    train_first: int = 0,
    train_last: int,
    features: Sequence[str] | None = None,
    penalty: float = 0.0,
) -> Float[np.ndarray, "asset time"]:
    """Regression on the rows of many assets in one span, used everywhere without adapting.

    Args:
        panel: standardised features and the targets.
        train_assets: names of the assets to fit on; default all.
        train_first: index of the first bar to fit on.
        train_last: index of the bar at which the last label must be complete.
        features: names of the features to use; default all.
        penalty: on the squared slopes, as in `recent_regression`; 0 for none.

    Returns:
        Predictions of the panel's targets, NaN where there is no row of features.

    Raises:
        DataError: if an asset is unknown.
        ValueError: if a feature is unknown, the penalty is negative, or no label is complete.
    """
    if not penalty >= 0:
        raise ValueError(f"a penalty is at least 0, not {penalty}")
    x = _columns(panel, features)
    rows = np.zeros(x.shape[:2], bool)
    rows[asset_numbers(panel, train_assets), train_first:] = True
    rows &= np.asarray(panel.label_end) <= train_last
    if not rows.any():
        raise ValueError("no label is complete in the span to fit on")
    slopes, x_mean, y_mean = _fit(x[rows], np.asarray(panel.targets, float)[rows], penalty)
    return np.where(np.asarray(panel.valid), y_mean + (x - x_mean) @ slopes, np.nan)


def ewma_volatility(bars: pd.DataFrame, *, decay: float = RISKMETRICS) -> pd.Series:
    r"""Log of the volatility per bar that RiskMetrics expects, over any number of bars to come.

    $$\sigma^2_{t+1} = \lambda\, \sigma^2_t + (1 - \lambda)\, r_t^2$$

    beginning with the first squared return. NaN at the first bar. Bars without a return leave it as
    it is.

    Args:
        bars: of one asset.
        decay: $\lambda$.

    Raises:
        ValueError: if the decay is not between 0 and 1.

    Reference:
        J.P. Morgan (1996), RiskMetrics technical document, fourth edition.
    """
    if not 0 < decay < 1:
        raise ValueError(f"a decay lies between 0 and 1, not {decay}")
    squares = log_return(bars) ** 2
    variance = squares.ewm(alpha=1 - decay, adjust=False, ignore_na=True).mean()
    return _log_root(variance)


def garch_volatility(
    bars: pd.DataFrame,
    *,
    horizon: int,
    window: int = GARCH_WINDOW,
    refit: int = 21,
    first: int = 0,
) -> pd.Series:
    r"""Log of the volatility per bar that a GARCH(1,1) expects over the bars to come.

    $$\sigma^2_{t+1} = \omega + \alpha r_t^2 + \beta \sigma^2_t, \qquad
      \sigma^2_{t+k} = \omega + (\alpha + \beta)\, \sigma^2_{t+k-1}$$

    and the mean of the next h variances. Every `refit` bars the three parameters are fitted by
    maximum likelihood (Gaussian, mean zero) on the last `window` returns; between two fits the
    variance goes on with them.

    Args:
        bars: of one asset. Bars without a return, such as masked ones, are passed over.
        horizon: $h$.
        window: returns to fit on; fewer, at least 250, where there are no more.
        refit: bars from one fit to the next.
        first: index of the first bar to predict at.

    Returns:
        NaN before `first`, and until there are 250 returns.

    Raises:
        ValueError: if a number is impossible.

    Reference:
        Bollerslev (1986), Generalized autoregressive conditional heteroskedasticity.
    """
    if horizon < 1 or refit < 1 or window < GARCH_LEAST:
        raise ValueError(
            f"garch needs a horizon and a refit of at least 1 bar and a window of at least "
            f"{GARCH_LEAST}, got {horizon}, {refit} and {window}"
        )
    returns = log_return(bars)
    known = np.flatnonzero(np.isfinite(returns))
    r = _PER_CENT * returns.to_numpy()[known]
    ahead = np.full(len(bars), np.nan)
    begin = max(int(np.searchsorted(known, first)), GARCH_LEAST - 1)
    for start in range(begin, len(r), refit):
        seen = r[max(0, start + 1 - window) : start + 1]
        parameters, variance = _fit_garch(seen)
        omega, alpha, beta = parameters
        for bar in range(start, min(start + refit, len(r))):
            if bar > start:
                variance = omega + alpha * r[bar] ** 2 + beta * variance
            ahead[known[bar]] = _mean_ahead(parameters, variance, horizon)
    return _log_root(pd.Series(ahead / _PER_CENT**2, bars.index))


def remove_mean_error(
    forecast: Float[np.ndarray, "asset time"],
    panel: Panel,
    *,
    train_assets: Sequence[str] | None = None,
    train_first: int = 0,
    train_last: int,
) -> Float[np.ndarray, "asset time"]:
    """Shift forecasts by the mean of their errors on the labels that a span completes.

    Args:
        forecast: in the units of the panel's targets.
        panel: with the outcomes.
        train_assets: names of the assets whose errors count; default all.
        train_first: index of the first bar of the span.
        train_last: index of the bar at which the last label must be complete.

    Raises:
        DataError: if an asset is unknown.
        ValueError: if the span has no forecast with an outcome.
    """
    rows = np.zeros(forecast.shape, bool)
    rows[asset_numbers(panel, train_assets), train_first:] = True
    rows &= (np.asarray(panel.label_end) <= train_last) & np.isfinite(forecast)
    if not rows.any():
        raise ValueError("there is no forecast with an outcome in the span")
    return forecast + (np.asarray(panel.targets, float)[rows] - forecast[rows]).mean()


def align_to_panel(
    panel: Panel, forecasts: dict[str, pd.Series]
) -> Float[np.ndarray, "asset time"]:
    """Lay out forecasts by asset as the panel is, NaN where there is none."""
    result = np.full(panel.valid.shape, np.nan)
    for asset, series in forecasts.items():
        result[panel.assets.index(asset)] = series.reindex(panel.timestamps).to_numpy()
    return result


def _columns(panel: Panel, names: Sequence[str] | None) -> Float[np.ndarray, "asset time column"]:
    x = np.asarray(panel.features, float)
    if names is None:
        return x
    unknown = [name for name in names if name not in panel.feature_names]
    if unknown:
        raise ValueError(f"the panel has no features {unknown}; it has {panel.feature_names}")
    return x[..., [panel.feature_names.index(name) for name in names]]


def _span(valid: Bool[np.ndarray, " time"], first: int, last: int | None) -> np.ndarray:
    bars = np.flatnonzero(valid)
    return bars[(bars >= first) & (bars <= (len(valid) if last is None else last))]


def _fit(x: np.ndarray, y: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray, float]:
    x_mean, y_mean = x.mean(axis=0), y.mean()
    centred = x - x_mean
    if penalty:
        gram = centred.T @ centred + penalty * np.eye(x.shape[1])
        slopes = np.linalg.solve(gram, centred.T @ (y - y_mean))
    else:
        slopes = np.linalg.lstsq(centred, y - y_mean, rcond=None)[0]
    return slopes, x_mean, float(y_mean)


def _fit_garch(r: np.ndarray) -> tuple[tuple[float, float, float], float]:
    """Return omega, alpha and beta, and the variance of the bar after the last."""
    from arch import arch_model

    model = arch_model(r, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)
    fitted = model.fit(disp="off", show_warning=False)
    omega, alpha, beta = (float(value) for value in fitted.params)
    variance = omega + alpha * r[-1] ** 2 + beta * float(fitted.conditional_volatility[-1]) ** 2
    return (omega, alpha, beta), variance


def _mean_ahead(parameters: tuple[float, float, float], variance: float, horizon: int) -> float:
    omega, alpha, beta = parameters
    total = 0.0
    for _ in range(horizon):
        total += variance
        variance = omega + (alpha + beta) * variance
    return total / horizon


def _log_root(variance: pd.Series) -> pd.Series:
    return pd.Series(0.5 * np.log(variance.clip(lower=_FLOOR**2)), index=variance.index)
