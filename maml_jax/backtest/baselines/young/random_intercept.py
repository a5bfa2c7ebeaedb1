"""What forecasts of an asset missed since its listing, shrunk as the donors' errors say."""

import numpy as np
from jaxtyping import Float, Int

from maml_jax.backtest.baselines.young.rows import History, known_labels


def add_intercept(
    forecast: Float[np.ndarray, "age asset time"],
    history: History,
    ages: Int[np.ndarray, " age"],
    rows: int,
    spans: Int[np.ndarray, "fit 3"],
) -> Float[np.ndarray, "age asset time"]:
    r"""Add the mean error of an asset's own last rows, shrunk by what it is worth on donors.

    $$\hat y_t + \kappa\, \bar e_t, \qquad
      \kappa = \frac{\sum_{d \ne a} \sum_s \bar e_{d,s} (y_{d,s} - \hat y_{d,s})}
      {\sum_{d \ne a} \sum_s \bar e_{d,s}^2} \in [0, 1]$$

    with $\bar e$ the mean of the errors on the last rows since the listing whose labels are known,
    of each the error that the forecast made at its time had. $\kappa$ is the empirical Bayes
    factor of a random intercept, the share of the variance of mean errors that lasts: estimated at
    each fit and for each age from the errors known by then, and with them from their dependence.

    Args:
        forecast: of all donors and targets, by age.
        history: the labels, and the donors.
        ages: increasing.
        rows: the most rows that a mean error is of.
        spans: bar of each fit, and the first and one beyond the last bar whose rows it sees.

    Returns:
        Forecasts; as they were where no error is known.

    Reference:
        Efron and Morris (1973), Stein's estimation rule and its competitors.
    """
    error = known_labels(history) - forecast
    mean = mean_errors(error, history, ages, rows)
    products = _sums(np.stack([mean * error, mean * mean * np.isfinite(error)]))
    result = forecast.copy()
    times = forecast.shape[-1]
    for place, (fit, start, stop) in enumerate(spans):
        end = spans[place + 1][0] if place + 1 < len(spans) else times
        within = products[..., stop] - products[..., start]
        donors = within[:, :, history.donors]
        total = np.repeat(donors.sum(axis=-1, keepdims=True), forecast.shape[1], axis=-1)
        total[:, :, history.donors] -= donors
        shrink = np.clip(total[0] / np.maximum(total[1], 1e-12), 0.0, 1.0)
        known = mean[:, :, fit:end]
        result[:, :, fit:end] += shrink[..., None] * np.where(np.isfinite(known), known, 0.0)
    return result


def mean_errors(
    error: Float[np.ndarray, "age asset time"],
    history: History,
    ages: Int[np.ndarray, " age"],
    rows: int,
) -> Float[np.ndarray, "age asset time"]:
    """Mean error of the last `rows` bars of an asset whose labels are known and that it has seen.

    The error at a bar that the asset had at an age of m is the one of the forecast at the greatest
    of `ages` up to m. Bars are counted in the asset's own; NaN where no error is known.
    """
    result = np.full(error.shape, np.nan)
    horizon = history.horizon
    for asset, known in enumerate(history.known):
        own = np.flatnonzero(known)
        e = error[:, asset, own]
        sums, counts = _sums(e), _sums(np.isfinite(e).astype(float))
        for place, age in enumerate(ages):
            # A row k bars back was then of age - k.
            most = min(horizon + rows - 1, age)
            total, count = np.zeros(len(own)), np.zeros(len(own))
            for slot, begin in enumerate(ages):
                above = ages[slot + 1] if slot + 1 < len(ages) else age + 1
                near, far = max(horizon, age - above + 1), min(most, age - begin)
                if near > far:
                    continue
                now = np.arange(len(own))
                stop, start = np.maximum(now - near + 1, 0), np.maximum(now - far, 0)
                total += sums[slot, stop] - sums[slot, start]
                count += counts[slot, stop] - counts[slot, start]
            mean = np.where(count > 0.5, total / np.maximum(count, 1), np.nan)
            result[place, asset, own] = mean
    return result


def _sums(values: Float[np.ndarray, "*lead time"]) -> Float[np.ndarray, "*lead time+1"]:
    """Sums of the first i values; what is missing counts as 0."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1))
    np.cumsum(np.where(np.isfinite(values), values, 0.0), axis=-1, out=sums[..., 1:])
    return sums
