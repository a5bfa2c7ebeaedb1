"""From predictions to positions, and from decisions to what is held."""

import numpy as np
import pandas as pd

from maml_jax.errors import DataError

PATIENCE = pd.Timedelta(days=30)
"""An asset that has had no bar for longer is taken to have ended; at least 6 bars."""


def patience_at(index: pd.DatetimeIndex) -> pd.Series:
    """Return the seconds without a bar, at each bar, after which an asset is taken to have ended.

    30 days, or 6 of the usual steps until then if that is longer: a longer history ends no asset
    earlier or later.
    """
    least = PATIENCE.total_seconds()
    step = index.to_series().diff().dt.total_seconds().expanding().median()
    return (6 * step).clip(lower=least).fillna(least)


def threshold_positions(predictions: pd.DataFrame, threshold: float = 0.0) -> pd.DataFrame:
    """Long above the threshold, short below its negative, flat between.

    Args:
        predictions: one column per asset, in the units of the target (volatilities over the
            horizon); NaN where there is none.
        threshold: in the same units, >= 0.

    Returns:
        +1, -1 or 0, where the prediction was made; 0 where there is none.

    Raises:
        ValueError: if the threshold is negative.
    """
    if not threshold >= 0:
        raise ValueError(f"the threshold must not be negative, got {threshold}")
    return (predictions > threshold).astype(float) - (predictions < -threshold).astype(float)


LEVELS = {1.0: "strong buy", 0.5: "buy", 0.0: "hold", -0.5: "sell", -1.0: "strong sell"}
"""Names of the five levels by the position that each takes."""


def level_positions(
    predictions: pd.DataFrame, threshold: float = 0.0, strong: float = 0.1
) -> pd.DataFrame:
    r"""Five levels: a whole position beyond the strong threshold, a half one beyond the other.

    $$w = \tfrac12\,\mathrm{sign}(\hat y)\,
      \bigl(1_{|\hat y| > \text{threshold}} + 1_{|\hat y| > \text{strong}}\bigr)$$

    Args:
        predictions: one column per asset, in the units of the target; NaN where there is none.
        threshold: in the same units, >= 0.
        strong: in the same units, above `threshold`.

    Returns:
        +1, +0.5, 0, -0.5 or -1, where the prediction was made; 0 where there is none.

    Raises:
        ValueError: if the thresholds are not in order.
    """
    if not 0 <= threshold < strong < np.inf:
        raise ValueError(
            f"thresholds must be 0 <= threshold < strong, got {threshold} and {strong}"
        )
    beyond = threshold_positions(predictions, threshold) + threshold_positions(predictions, strong)
    return 0.5 * beyond


def level_signals(
    predictions: pd.DataFrame, threshold: float = 0.0, strong: float = 0.1
) -> pd.DataFrame:
    """Turn each prediction into one of five levels, with a confidence.

    Confidence is the size of the prediction as a share of the strong threshold, at most 1. It is no
    probability.

    Args:
        predictions: one column per asset, in the units of the target; NaN where there is none.
        threshold: prediction beyond which a half position is taken, >= 0.
        strong: prediction beyond which a whole one is taken, above `threshold`.

    Returns:
        One row per prediction that is a number: `timestamp`, `asset`, `prediction`, `level`
        ("strong buy", "buy", "hold", "sell", "strong sell"), `confidence` (0 to 1), `position`; by
        timestamp, then in the order of the columns.

    Raises:
        ValueError: if the thresholds are not in order.

    >>> day = pd.date_range("2024-01-01", periods=1)
    >>> table = level_signals(pd.DataFrame({"A": [0.05], "B": [-0.3]}, index=day))
    >>> table[["asset", "level", "confidence", "position"]].values.tolist()
    [['A', 'buy', 0.5, 0.5], ['B', 'strong sell', 1.0, -1.0]]
    """
    positions = level_positions(predictions, threshold, strong)
    values, placed = predictions.to_numpy(float), positions.to_numpy(float)
    row, column = np.nonzero(np.isfinite(values))
    found, position = values[row, column], placed[row, column]
    return pd.DataFrame(
        {
            "timestamp": predictions.index[row],
            "asset": predictions.columns[column].astype(str),
            "prediction": found,
            "level": [LEVELS[each] for each in position],
            "confidence": np.minimum(np.abs(found) / strong, 1.0),
            "position": position,
        }
    )


def proportional_positions(
    predictions: pd.DataFrame, scale: float, limit: float = 1.0
) -> pd.DataFrame:
    r"""Positions as large as the predictions.

    $$w = \mathrm{clip}(\hat y / \text{scale},\ \pm\,\text{limit})$$

    Args:
        predictions: one column per asset, in the units of the target; NaN where there is none.
        scale: the prediction at which a position is whole, in the same units, positive.
        limit: bound on the size of a weight, positive.

    Returns:
        Weights; 0 where there is no prediction.

    Raises:
        ValueError: if `scale` or `limit` is not positive.
    """
    if not 0 < scale < np.inf:
        raise ValueError(f"the scale must be a positive prediction, got {scale}")
    _require_limit(limit)
    return (predictions / scale).clip(-limit, limit).fillna(0.0)


def confident_positions(mean: pd.DataFrame, std: pd.DataFrame, c: float) -> pd.DataFrame:
    r"""Long or short where the mean is far from zero for its uncertainty, flat elsewhere.

    $$w = \mathrm{sign}(\mu)\, 1_{|\mu| > c\,\sigma}$$

    With $\sigma$ the deviation of the outcome, a side is taken where it is right with a probability
    of more than $\Phi(c)$. At the noise of markets $|\mu| / \sigma$ is small: 0.05 to 0.3 rather
    than 2.

    Args:
        mean: predicted means, one column per asset; NaN where there is none.
        std: predicted standard deviations of the same bars and assets and in the same units,
            positive.
        c: deviations, >= 0.

    Returns:
        +1, -1 or 0; 0 where there is no prediction.

    Raises:
        DataError: if bars or assets differ, or a deviation is not positive.
        ValueError: if c is negative.
    """
    if not 0 <= c < np.inf:
        raise ValueError(f"c must be a number of deviations that is not negative, got {c}")
    _require_same_labels(mean, std, "deviations")
    _require_positive(std, "standard deviation")
    return threshold_positions(mean / std, c)


def kelly_positions(
    mean: pd.DataFrame,
    std: pd.DataFrame,
    *,
    fraction: float = 0.5,
    limit: float = 1.0,
    scale: pd.DataFrame | None = None,
) -> pd.DataFrame:
    r"""Hold a fraction of what makes capital grow fastest, for returns that are nearly normal.

    $$w = \mathrm{clip}\Bigl(f\, \frac{\mu}{\sigma^2}\cdot\frac1s,\ \pm\,\text{limit}\Bigr)$$

    **Units.** Kelly's share of capital is $\mathrm{E}\,r / \mathrm{Var}\,r$ of the return $r$ over
    the horizon. What is predicted is $y = r / s$, with $s$ the trailing volatility over the
    horizon; so $\mathrm{E}\,r = s\mu$, $\mathrm{Var}\,r = s^2\sigma^2$, and the share is
    $\mu / (\sigma^2 s)$. With `scale` weights are such shares: of a mean of 0.1 and a deviation of
    1 volatility, where the volatility is 2 %, all of Kelly is 5 times the capital. Without it
    $s = 1$: weights are Kelly's share times volatility, 0.1 in the example, which would be the
    share of capital if the volatility were 100 %. Such weights are the same for calm
    and for volatile assets, and smaller than Kelly's.

    Assets are taken one by one: where they move together the whole is a larger bet than Kelly's.

    Args:
        mean: predicted means, in volatilities over the horizon, one column per asset; NaN where
            there is none.
        std: predicted standard deviations of the outcomes, in the same units, positive.
        fraction: of Kelly's share, above 0 up to 1. The mean is an estimate; half of Kelly keeps
            three quarters of the growth at half of the volatility.
        limit: bound on the size of a weight, positive.
        scale: volatility over the horizon as a share of the price, by which targets were divided,
            positive; a weight where it is NaN is 0.

    Returns:
        Weights; 0 where there is no prediction.

    Raises:
        DataError: if bars or assets differ, or a deviation or volatility is not positive.
        ValueError: if `fraction` or `limit` is out of bounds.

    Reference:
        Kelly (1956), A New Interpretation of Information Rate; Thorp (2006), The Kelly Criterion in
        Blackjack, Sports Betting, and the Stock Market, section 7.
    """
    if not 0 < fraction <= 1:
        raise ValueError(
            f"fraction must lie above 0 and not above 1 (all of Kelly), got {fraction}"
        )
    _require_limit(limit)
    _require_same_labels(mean, std, "deviations")
    _require_positive(std, "standard deviation")
    weights = fraction * mean / std**2
    if scale is not None:
        _require_same_labels(mean, scale, "volatilities")
        _require_positive(scale, "volatility")
        weights = weights / scale
    return weights.clip(-limit, limit).fillna(0.0)


def volatility_target_positions(
    volatility: pd.DataFrame,
    *,
    target: float = 0.1,
    limit: float = 1.0,
    side: pd.DataFrame | None = None,
) -> pd.DataFrame:
    r"""Hold what makes each asset as volatile as is wanted, by a forecast of its volatility.

    $$w = \mathrm{clip}\Bigl(\text{side} \cdot \frac{\text{target}}{\hat v},\
      \pm\,\text{limit}\Bigr)$$

    The target is of each asset's own weight. An account that spreads over several is less volatile,
    unless they move as one.

    Args:
        volatility: forecast annualised volatility as a share of the price (0.2 for 20 %), one
            column per asset, positive; NaN where there is none.
        target: annualised volatility that is wanted, in the same units, positive.
        limit: bound on the size of a weight, positive; 1 borrows nothing.
        side: long (+1), short (-1) or anything between, at the same bars and assets; NaN for flat.
            Default: long.

    Returns:
        Weights; 0 where there is no forecast.

    Raises:
        DataError: if bars or assets differ, or a forecast is not positive.
        ValueError: if `target` or `limit` is not positive.

    Reference:
        Moreira, Muir (2017), Volatility-Managed Portfolios, Journal of Finance 72, equation 1, with
        the volatility instead of the variance.
    """
    if not 0 < target < np.inf:
        raise ValueError(f"the target must be a positive annualised volatility, got {target}")
    _require_limit(limit)
    _require_positive(volatility, "forecast volatility")
    weights = target / volatility
    if side is not None:
        _require_same_labels(volatility, side, "sides")
        weights = weights * side
    return weights.clip(-limit, limit).fillna(0.0)


def held_weights(decisions: pd.DataFrame, returns: pd.DataFrame, delay: int) -> pd.DataFrame:
    """Return the weight held over the interval that ends at each bar.

    A decision taken at the close of an asset's bar k is filled later and first earns the return
    that is complete at its bar `k + delay`, `delay = label_delay(fill, 1)`. Bars are the asset's
    own; where it has none the weight stays as it was, unless it has had none for 30 days (or 6 bars
    if that is longer): then the asset is taken to have ended and the weight is 0.

    Args:
        decisions: wanted weights at the bars where they were decided, `[time, asset]`.
        returns: from fill to fill, `[time, asset]`, NaN where an asset has no bar.
        delay: bars from a decision to the first return that it earns, >= 1.
    """
    index = pd.DatetimeIndex(returns.index)
    patience = patience_at(index)
    columns = {}
    for asset in returns.columns:
        own = returns[asset].notna()
        held = decisions[asset].reindex(index[own]).fillna(0.0).shift(delay, fill_value=0.0)
        held = held.reindex(index).ffill().fillna(0.0)
        silent = index.to_series() - index.to_series().where(own).ffill()
        columns[asset] = held.mask(silent.dt.total_seconds() > patience, 0.0)
    return pd.DataFrame(columns, index=returns.index)


def _require_limit(limit: float) -> None:
    if not limit > 0:
        raise ValueError(f"the limit must be positive, got {limit}")


def _require_same_labels(table: pd.DataFrame, other: pd.DataFrame, name: str) -> None:
    if not (table.index.equals(other.index) and table.columns.equals(other.columns)):
        raise DataError(
            f"{name} and what they go with have different timestamps or assets; reindex one to "
            "match the other"
        )


def _require_positive(table: pd.DataFrame, name: str) -> None:
    """Refuse a number that is not positive, naming its bar and asset."""
    wrong = ~(table.isna() | ((table > 0) & (table < np.inf)))
    if wrong.to_numpy().any():
        row, column = np.argwhere(wrong.to_numpy())[0]
        raise DataError(
            f"{name} of {table.columns[column]} at {table.index[row]} must be positive and finite, "
            f"it is {table.iloc[row, column]:g}; use NaN where there is none"
        )
