"""The target: the return that will be traded, in units of trailing volatility."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.features.technical import volatility

Fill = Literal["next_open", "next_close", "close"]


class Target(NamedTuple):
    r"""What is predicted at bar t.

    $$y_t = \text{clip}\Bigl(\frac{F_{t+h} / F_t - 1}{s_t \sqrt h},\ \pm c\Bigr)$$

    with $F_t$ the price at which a decision taken at the close of bar t is executed, $h$ the
    horizon, and $s_t$ the standard deviation of the last `volatility_window` returns from
    close to close.

    Attributes:
        horizon: bars from the fill at which the position is entered to the one that ends it.
        fill: when a decision is executed: at the `next_open`, the `next_close`, or the very `close`
            that it was made from (optimistic).
        volatility_window: bars of the trailing volatility.
        clip: bound on the target's size, in volatilities; None for no bound. What is traded is
            never clipped.
    """

    horizon: int = 1
    fill: Fill = "next_close"
    volatility_window: int = 20
    clip: float | None = 5.0

    @property
    def label_delay(self) -> int:
        """How many bars after t the last price of the label of t becomes known."""
        return label_delay(self.fill, self.horizon)


def label_delay(fill: Fill, horizon: int) -> int:
    """Return how many bars after t the label of bar t exists.

    >>> label_delay("close", 5), label_delay("next_close", 5), label_delay("next_open", 5)
    (5, 6, 6)
    """
    return horizon if fill == "close" else horizon + 1


def fill_price(bars: pd.DataFrame, fill: Fill, *, asset: str = "the asset") -> pd.Series:
    """Return the price at which orders are filled in each bar: its open or its close.

    Raises:
        DataError: if `fill` is `next_open` and the bars have no opens.
    """
    if fill != "next_open":
        return bars["close"]
    if "open" not in bars.columns:
        raise DataError(
            f"{asset}: fill 'next_open' needs column 'open', and the bars have only "
            f"{list(bars.columns)}; use fill 'next_close'"
        )
    return bars["open"]


def forward_return(
    bars: pd.DataFrame, fill: Fill, horizon: int, *, asset: str = "the asset"
) -> pd.Series:
    """Return from the fill of a decision at bar t to the fill `horizon` bars later.

    NaN at the last `label_delay(fill, horizon)` bars, whose outcome is not known.
    """
    price = fill_price(bars, fill, asset=asset)
    delay = label_delay(fill, horizon)
    return price.shift(-delay) / price.shift(horizon - delay) - 1


def fill_return(bars: pd.DataFrame, fill: Fill, *, asset: str = "the asset") -> pd.Series:
    """Return from the previous bar's fill price to this bar's: what a held position earns.

    A decision at bar t earns the value at bar `t + label_delay(fill, 1)`. 0 at the first bar. An
    order that is due in a masked bar (NaN) is filled at the next price that is known: what was held
    until then earns the move over it, which is stamped at the masked bar.
    """
    price = fill_price(bars, fill, asset=asset).bfill().ffill()
    result = price / price.shift(1) - 1
    result.iloc[:1] = 0.0
    return result


def compute_target(
    bars: pd.DataFrame, target: Target, *, asset: str = "the asset"
) -> tuple[pd.Series, pd.Series]:
    """Compute the target of one asset.

    Args:
        bars: in normal form.
        target: what to predict.
        asset: how error messages call the bars.

    Returns:
        The target, NaN where its outcome is not known; and the scale by which returns were divided
        (the trailing volatility over the horizon), NaN where the price did not move, for no target
        can be formed there.

    Raises:
        DataError: if the price never changes, or opens are needed and missing.
    """
    require_moving_price(bars, asset=asset)
    deviation = volatility(bars, target.volatility_window)
    scale = deviation.where(deviation > 0) * np.sqrt(target.horizon)
    values = forward_return(bars, target.fill, target.horizon, asset=asset) / scale
    if target.clip is not None:
        values = values.clip(-target.clip, target.clip)
    return values, scale


def require_moving_price(bars: pd.DataFrame, *, asset: str = "the asset") -> None:
    """Refuse bars whose close never changes.

    Raises:
        DataError: naming the asset, the price and the dates.
    """
    known = bars["close"].dropna()
    if len(known) > 1 and (known == known.iloc[0]).all():
        raise DataError(
            f"{asset}: the close is {known.iloc[0]:g} at every one of its {len(bars)} bars "
            f"({bars.index[0]} to {bars.index[-1]}); a constant price cannot be learned or traded"
        )


def fill_returns(bars: Mapping[str, pd.DataFrame], fill: Fill) -> pd.DataFrame:
    """Return `fill_return` of many assets, one column each, NaN where an asset has no bar."""
    return pd.DataFrame({a: fill_return(b, fill, asset=a) for a, b in bars.items()}).sort_index()
