"""What may be held of the positions that a rule wants: sides across assets, and the largest."""

from typing import Literal, TypeAlias

import pandas as pd

from maml_jax.errors import DataError

Sides: TypeAlias = Literal["long_short", "long_only", "market_neutral"]

_NOTHING = 1e-9
"""Share of the gross exposure below which what is left of it is rounding."""


def long_only(weights: pd.DataFrame) -> pd.DataFrame:
    """Stay out where short is wanted.

    Args:
        weights: wanted, `[time, asset]`.
    """
    return weights.clip(lower=0.0)


def market_neutral(weights: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    r"""Subtract the mean over assets at every bar, and keep the gross exposure that was wanted.

    $$\tilde w_i = w_i - \bar w, \qquad
      w'_i = \tilde w_i\, \frac{\sum_j |w_j|}{\sum_j |\tilde w_j|}$$

    over the assets with a prediction. Longs and shorts are then of one size, at the bar where they
    are decided: what is held drifts, and an asset without a bar cannot be traded. Where all weights
    are equal nothing is held, nor where fewer than two assets have a prediction.

    Args:
        weights: wanted, `[time, asset]`.
        known: whether an asset has a prediction, of the same bars and assets. Others get 0.

    Raises:
        DataError: if there are fewer than two assets, or bars or assets differ.

    >>> import pandas as pd
    >>> day = pd.date_range("2024-01-01", periods=1)
    >>> wanted = pd.DataFrame([[1.0, 1.0, -1.0, 0.0]], index=day, columns=[*"ABCD"])
    >>> market_neutral(wanted, wanted != 0).round(9).loc[day[0]].tolist()
    [0.75, 0.75, -1.5, 0.0]
    """
    if weights.shape[1] < 2:
        raise DataError(
            f"nothing can be neutral across {weights.shape[1]} asset: it takes at least 2"
        )
    if not (weights.index.equals(known.index) and weights.columns.equals(known.columns)):
        raise DataError(
            "predictions and weights have different timestamps or assets; reindex one to match the "
            "other"
        )
    wanted = weights.where(known)
    gross = wanted.abs().sum(axis="columns")
    centred = wanted.sub(wanted.mean(axis="columns"), axis="index").fillna(0.0)
    left = centred.abs().sum(axis="columns")
    factor = (gross / left).where(left > _NOTHING * gross, 0.0)
    return centred.mul(factor, axis="index")


def cap_weights(weights: pd.DataFrame, most: float, *, neutral: bool = False) -> pd.DataFrame:
    """Bound the size of each weight.

    Args:
        weights: wanted, `[time, asset]`.
        most: the largest size, in the units of the weights, positive.
        neutral: keep longs and shorts of one size, by making the larger side smaller.

    Raises:
        ValueError: if `most` is not positive.
    """
    if not most > 0:
        raise ValueError(f"the largest weight must be positive, got {most}")
    capped = weights.clip(-most, most)
    if not neutral:
        return capped
    long, short = capped.clip(lower=0.0), -capped.clip(upper=0.0)
    longs, shorts = long.sum(axis="columns"), short.sum(axis="columns")
    size = longs.where(longs < shorts, shorts)

    def scale(side: pd.DataFrame, total: pd.Series) -> pd.DataFrame:
        return side.mul((size / total).where(total > 0, 0.0), axis="index")

    return scale(long, longs) - scale(short, shorts)


def apply_limits(
    weights: pd.DataFrame, known: pd.DataFrame, *, sides: Sides, most: float | None = None
) -> pd.DataFrame:
    """Keep weights to the sides that may be taken, and to the largest that may be held.

    Args:
        weights: wanted, `[time, asset]`.
        known: whether an asset has a prediction, of the same bars and assets.
        sides: both; long only; or both, of one size at every bar.
        most: the largest size of a weight, in the same units; None for no bound.

    Raises:
        DataError: from `market_neutral`.
        ValueError: if `sides` is unknown or `most` is not positive.
    """
    if sides not in ("long_short", "long_only", "market_neutral"):
        raise ValueError(
            f"sides are long_short, long_only or market_neutral, there is no {sides!r}"
        )
    if sides == "long_only":
        weights = long_only(weights)
    elif sides == "market_neutral":
        weights = market_neutral(weights, known)
    if most is None:
        return weights
    return cap_weights(weights, most, neutral=sides == "market_neutral")
