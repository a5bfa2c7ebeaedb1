"""Baselines that learn little or nothing: random times, the past return, pooled trees."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.errors import ConfigError
from maml_jax.tasks.families import asset_numbers
from maml_jax.tasks.panel import Panel

TREES = 200
TREE_RATE = 0.05
TREE_LEAVES = 8
TREE_SHARE = 100
"""A leaf holds at least one of so many rows, so that no leaf is a story of a few days."""


def shift_decisions(
    decisions: pd.DataFrame,
    rng: np.random.Generator,
    *,
    present: pd.DataFrame | None = None,
    least: int = 1,
) -> pd.DataFrame:
    """Move decisions to a random other time: the same sizes and holding times, no knowledge.

    What was decided at an asset's bar k stands at its bar k + lag, and what would fall beyond the
    last bar continues at the first. One lag, drawn uniformly as a share of the span, holds for
    all assets: what was decided at one time stays at one time, so that gross exposure, neutrality
    and turnover are those of the decisions, but for the seam where the end meets the beginning.

    Such a draw reads decisions from the whole span. It is nothing that could have been traded, but
    a draw of what luck would have made of the same trading; many of them are a test of it.

    Args:
        decisions: wanted weights, `[time, asset]`.
        rng: draws the lag.
        present: whether an asset has a bar, of the same bars and assets; it is moved within its
            own bars, and 0 elsewhere. Default: every asset has all bars.
        least: bars that the lag keeps away from no lag at all, in either direction (but never more
            than a quarter of the span): what is decided a few bars earlier or later knows some of
            the same.

    Raises:
        ValueError: if `least` is below 1.
    """
    if least < 1:
        raise ValueError(f"a lag is at least 1 bar, not {least}")
    there = np.ones(decisions.shape, bool) if present is None else present.to_numpy(bool)
    counts = there.sum(axis=0)
    margin = min(least / max(counts.max(initial=1), 1), 0.25)
    share = rng.uniform(margin, 1 - margin)
    values, moved = decisions.to_numpy(float), np.zeros(decisions.shape)
    lags = np.clip(np.round(share * counts).astype(int), 1, np.maximum(counts - 1, 1))
    whole = counts == len(there)
    for lag in np.unique(lags[whole]):  # of assets without gaps all at once
        moved[:, whole] = np.roll(values[:, whole], lag, axis=0)
    for column in np.flatnonzero(~whole):
        own = there[:, column]
        moved[own, column] = np.roll(values[own, column], lags[column])
    return pd.DataFrame(moved, index=decisions.index, columns=decisions.columns)


def past_return(
    bars: pd.DataFrame,
    scale: pd.Series,
    *,
    window: int,
    horizon: int,
    side: pd.Series | None = None,
) -> pd.Series:
    r"""Momentum: the past return as a forecast, at the pace of the horizon, in volatilities.

    $$\hat y_t = \frac{h}{w}\, \frac{\ln (c_t / c_{t-w})}{s_t}$$

    with $s$ the trailing volatility over the horizon of $h$ bars, as targets are divided by.

    Args:
        bars: of one asset, in normal form. A close that is missing is the last one before it.
        scale: $s$, as `compute_target` returns it.
        window: $w$, bars to look back, >= 1.
        horizon: $h$, bars that are predicted, >= 1.
        side: that a rule takes at each bar, -1 to 1: then the return is that of following it, each
            bar's by the side that was taken at the bar before.

    Returns:
        Forecasts in volatilities over the horizon; 0, which takes no side, where there are not so
        many bars or no volatility yet.

    Raises:
        ValueError: if a number of bars is below 1.

    Reference:
        Moskowitz, Ooi, Pedersen (2012), Time series momentum, equation 3, with the size of the past
        return kept.
    """
    if window < 1 or horizon < 1:
        raise ValueError(f"window and horizon are at least 1 bar, got {window} and {horizon}")
    returns = pd.Series(np.log(bars["close"].ffill()), index=bars.index).diff()
    if side is not None:
        returns = returns * side.shift(1)
    forecast = returns.rolling(window).sum() * (horizon / window) / scale
    return forecast.where(np.isfinite(forecast), 0.0)


def boosted_trees(
    panel: Panel,
    *,
    train_assets: Sequence[str],
    train_first: int = 0,
    train_last: int,
    seed: int = 0,
) -> Float[np.ndarray, "asset time"] | None:
    """Gradient-boosted trees fitted on the rows of many assets in one span, used everywhere.

    200 trees of at most 8 leaves with at least a hundredth of the rows each, learning rate 0.05: no
    row is left out to stop early by, since at the noise of markets it would stop by chance.

    Args:
        panel: standardised features and the targets.
        train_assets: names of the assets to fit on.
        train_first: index of the first bar to fit on.
        train_last: index of the bar at which the last label must be complete.
        seed: of the ties that the trees break at random.

    Returns:
        Predictions of the panel's targets, NaN where there is no row of features. None where no
        label is complete in the span.

    Raises:
        ConfigError: if scikit-learn is not installed.
        DataError: if an asset is unknown.

    Reference:
        Friedman (2001), Greedy function approximation: a gradient boosting machine; Ke et al.
        (2017), LightGBM, whose histograms scikit-learn uses.
    """
    regressor, one_thread = _trees()
    x, ends = np.asarray(panel.features, float), np.asarray(panel.label_end)
    rows = np.zeros(ends.shape, bool)
    if len(train_assets):
        rows[asset_numbers(panel, train_assets), max(train_first, 0) :] = True
    rows &= ends <= train_last
    if not rows.any():
        return None
    model = regressor(
        max_iter=TREES,
        learning_rate=TREE_RATE,
        max_leaf_nodes=TREE_LEAVES,
        min_samples_leaf=max(int(rows.sum()) // TREE_SHARE, 1),
        early_stopping=False,
        random_state=seed,
    )
    valid = np.asarray(panel.valid)
    result = np.full(valid.shape, np.nan)
    # Threads that wait for each other at every split cost more than they bring.
    with one_thread(limits=1):
        model.fit(x[rows], np.asarray(panel.targets, float)[rows])
        if valid.any():
            result[valid] = model.predict(x[valid])
    return result


def require_trees() -> None:
    """Refuse what `boosted_trees` would refuse, before anything is computed.

    Raises:
        ConfigError: if scikit-learn is not installed.
    """
    _trees()


def _trees() -> tuple[Any, Any]:
    try:
        from sklearn.ensemble import (  # pyright: ignore[reportMissingImports]
            HistGradientBoostingRegressor,
        )
        from threadpoolctl import threadpool_limits  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ConfigError(
            "key 'backtest.baselines': \"trees\" needs scikit-learn, which is not installed: "
            "pip install 'maml-jax[trees]', or leave \"trees\" out"
        ) from None
    return HistGradientBoostingRegressor, threadpool_limits
