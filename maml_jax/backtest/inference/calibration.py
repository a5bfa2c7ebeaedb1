"""Whether predicted distributions are true: likelihood, CRPS, coverage of their intervals."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.errors import DataError

Values: TypeAlias = pd.DataFrame | pd.Series | np.ndarray

LEVELS = tuple(n / 20 for n in range(1, 20))
"""Nominal coverages over which the calibration error is averaged: 5 %, 10 %, ... 95 %."""


def measure_calibration(mean: Values, std: Values, outcomes: Values) -> pd.Series:
    """Measure how true normal predictive distributions are, over all rows together.

    Args:
        mean: predicted means, `[time, asset]` or of any one shape; NaN where there is none.
        std: predicted standard deviations, positive, of the same shape; in units of the target.
        outcomes: the target of the same rows, NaN where it is not known.

    Returns:
        Lower is better for `NLL`, `CRPS` and `Calibration Error [%]`; `Coverage 50 % [%]` should be
        50 and `Coverage 90 % [%]` 90. All NaN where no row has a prediction and an outcome.

    Raises:
        DataError: if shapes, dates or assets differ, or a deviation is not positive.
    """
    rows = _rows(mean, std, outcomes)
    return pd.Series(
        {
            "NLL": _mean(_likelihoods(*rows)),
            "CRPS": _mean(_scores(*rows)),
            "Coverage 50 % [%]": 100 * _coverage(*rows, 0.5),
            "Coverage 90 % [%]": 100 * _coverage(*rows, 0.9),
            "Calibration Error [%]": 100 * _gap(*rows, LEVELS),
        }
    )


def negative_log_likelihood(mean: Values, std: Values, outcomes: Values) -> float:
    r"""Return the mean of $\log\sigma + \frac{(y-\mu)^2}{2\sigma^2} + \frac12\log 2\pi$.

    Args:
        mean: predicted means, of any one shape; NaN where there is none.
        std: predicted standard deviations, positive, of the same shape.
        outcomes: what was predicted, of the same shape; NaN where it is not known.
    """
    return _mean(_likelihoods(*_rows(mean, std, outcomes)))


def crps(mean: Values, std: Values, outcomes: Values) -> float:
    r"""Return the mean continuous ranked probability score of normal distributions.

    $$\int (F(u) - 1_{u \ge y})^2\, du = \sigma\Bigl[z\,(2\Phi(z) - 1) + 2\varphi(z)
      - \tfrac{1}{\sqrt\pi}\Bigr], \qquad z = \frac{y - \mu}{\sigma}$$

    in units of the target; of a distribution that is one point, the absolute error.

    Args:
        mean: predicted means, of any one shape; NaN where there is none.
        std: predicted standard deviations, positive, of the same shape.
        outcomes: what was predicted, of the same shape; NaN where it is not known.

    Reference:
        Gneiting, Raftery (2007), Strictly Proper Scoring Rules, Prediction, and Estimation,
        section 4.2, with the sign of a loss.
    """
    return _mean(_scores(*_rows(mean, std, outcomes)))


def coverage(mean: Values, std: Values, outcomes: Values, level: float) -> float:
    r"""Return the share of outcomes within the central interval $\mu \pm z_{(1+level)/2}\,\sigma$.

    Args:
        mean: predicted means, of any one shape; NaN where there is none.
        std: predicted standard deviations, positive, of the same shape.
        outcomes: what was predicted, of the same shape; NaN where it is not known.
        level: nominal coverage, between 0 and 1.

    Raises:
        ValueError: if the level is not between 0 and 1.
    """
    _require_levels([level])
    return _coverage(*_rows(mean, std, outcomes), level)


def calibration_error(
    mean: Values, std: Values, outcomes: Values, levels: Sequence[float] = LEVELS
) -> float:
    """Return the mean absolute gap between nominal and observed coverage.

    Args:
        mean: predicted means, of any one shape; NaN where there is none.
        std: predicted standard deviations, positive, of the same shape.
        outcomes: what was predicted, of the same shape; NaN where it is not known.
        levels: nominal coverages.

    Raises:
        ValueError: if `levels` is empty, or one is not between 0 and 1.

    Reference:
        Kuleshov, Fenner, Ermon (2018), Accurate Uncertainties for Deep Learning Using Calibrated
        Regression, arXiv:1807.00263, its calibration error with absolute instead of squared gaps,
        of central intervals.
    """
    _require_levels(levels)
    return _gap(*_rows(mean, std, outcomes), levels)


Row = Float[np.ndarray, " row"]


def _likelihoods(mean: Row, std: Row, y: Row) -> Row:
    from scipy.stats import norm

    return -norm.logpdf(y, mean, std)


def _scores(mean: Row, std: Row, y: Row) -> Row:
    from scipy.stats import norm

    z = (y - mean) / std
    return std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - np.pi**-0.5)


def _coverage(mean: Row, std: Row, y: Row, level: float) -> float:
    from scipy.stats import norm

    return _mean(np.abs(y - mean) <= norm.ppf((1 + level) / 2) * std)


def _gap(mean: Row, std: Row, y: Row, levels: Sequence[float]) -> float:
    return float(np.mean([abs(_coverage(mean, std, y, level) - level) for level in levels]))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _rows(mean: Values, std: Values, outcomes: Values) -> tuple[Row, Row, Row]:
    """Return the rows that have a prediction and an outcome."""
    for name, other in (("deviations", std), ("outcomes", outcomes)):
        if np.shape(other) != np.shape(mean):
            raise DataError(
                f"means have shape {np.shape(mean)} and {name} have shape {np.shape(other)}; "
                "they must agree"
            )
        if not _same_labels(mean, other):
            raise DataError(
                f"means and {name} have different timestamps or assets; reindex one to match "
                "the other"
            )
    m, s, y = (np.asarray(values, float).ravel() for values in (mean, std, outcomes))
    known = np.isfinite(m) & np.isfinite(s) & np.isfinite(y)
    if not (s[known] > 0).all():
        raise DataError(f"standard deviations must be positive, one is {s[known].min():g}")
    return m[known], s[known], y[known]


def _same_labels(one: Values, other: Values) -> bool:
    if isinstance(one, pd.DataFrame) and isinstance(other, pd.DataFrame):
        return one.index.equals(other.index) and one.columns.equals(other.columns)
    if isinstance(one, pd.Series) and isinstance(other, pd.Series):
        return one.index.equals(other.index)
    return True


def _require_levels(levels: Sequence[float]) -> None:
    if not levels or not all(0 < level < 1 for level in levels):
        raise ValueError(f"levels of coverage lie between 0 and 1, got {list(levels)}")
