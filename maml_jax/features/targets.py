"""The target: the return that will be traded, its direction, or future volatility."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.features.ohlc import garman_klass
from maml_jax.features.scaling import Scaler
from maml_jax.features.technical import volatility
from maml_jax.features.volatility import realised_volatility

Fill = Literal["next_open", "next_close", "close"]
Kind = Literal["return", "direction", "volatility"]
Estimator = Literal["close", "garman_klass"]


class Target(NamedTuple):
    r"""What is predicted at bar t.

    The **return** that is traded, in volatilities:

    $$y_t = \text{clip}\Bigl(\frac{F_{t+h} / F_t - 1}{s_t \sqrt h},\ \pm c\Bigr)$$

    with $F_t$ the price at which a decision taken at the close of bar t is executed, $h$ the
    horizon, and $s_t$ the standard deviation of the last `volatility_window` returns from
    close to close. Its **direction**: -1, 0 or 1, the sign of that return, 0 within `flat`
    volatilities of no move. Or the **volatility** per bar over the next h bars of the asset,

    $$y_t = \ln \sqrt{\frac1h \sum_{k=1}^{h} v_{t+k}}, \qquad
      v_t = \ln^2 \frac{c_t}{c_{t-1}} \ \text{ or }\
      \tfrac12 \ln^2 \frac{h_t}{l_t} - (2 \ln 2 - 1) \ln^2 \frac{c_t}{o_t}$$

    from closes or by Garman and Klass (1980); it is not traded and waits for no fill. Learners see
    it standardised (`compute_scaled_target`).

    Attributes:
        horizon: bars from the fill at which the position is entered to the one that ends it; of
            the volatility, the bars after t over which it is measured.
        fill: when a decision is executed: at the `next_open`, the `next_close`, or the very `close`
            that it was made from (optimistic).
        volatility_window: bars of the trailing volatility.
        clip: bound on the target's size, in volatilities, or in deviations for kind `volatility`;
            None for no bound. What is traded is never clipped, nor is a direction.
        kind: `return`, `direction` or `volatility`.
        flat: returns of at most so many volatilities have the direction 0.
        estimator: of kind `volatility`: from the `close`, or `garman_klass`, which leaves out gaps
            between bars and needs open, high and low.
    """

    horizon: int = 1
    fill: Fill = "next_close"
    volatility_window: int = 20
    clip: float | None = 5.0
    kind: Kind = "return"
    flat: float = 0.0
    estimator: Estimator = "close"

    @property
    def label_delay(self) -> int:
        """How many bars after t the last price of the label of t becomes known."""
        if self.kind == "volatility":
            return self.horizon
        return label_delay(self.fill, self.horizon)


def label_delay(fill: Fill, horizon: int) -> int:
    """Return how many bars after t the return of a decision at bar t becomes known.

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

    NaN at the last `label_delay(fill, horizon)` bars, whose outcome is unknown.
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
        The target, NaN where its outcome is unknown, and for a volatility also where no bar of the
        horizon moves; and the trailing volatility over the horizon (which divides returns), NaN
        where the price did not move, since no target exists there.

    Raises:
        DataError: if the price never changes, or columns are needed and missing.
    """
    require_moving_price(bars, asset=asset)
    deviation = volatility(bars, target.volatility_window)
    scale = deviation.where(deviation > 0) * np.sqrt(target.horizon)
    if target.kind == "volatility":
        ahead = forward_volatility(bars, target.horizon, target.estimator, asset=asset)
        return pd.Series(np.log(ahead), index=bars.index).where(scale.notna()), scale
    values = forward_return(bars, target.fill, target.horizon, asset=asset) / scale
    if target.kind == "direction":
        return pd.Series(np.sign(values)).mask(values.abs() <= target.flat, 0.0), scale
    if target.clip is not None:
        values = values.clip(-target.clip, target.clip)
    return values, scale


def forward_volatility(
    bars: pd.DataFrame, horizon: int, estimator: Estimator = "close", *, asset: str = "the asset"
) -> pd.Series:
    """Volatility per bar over the `horizon` bars after t, each of them known.

    NaN at the last `horizon` bars, where a price is missing, and where no bar moves: a volatility
    of 0 has no logarithm.

    Raises:
        DataError: if `estimator` is `garman_klass` and open, high or low are missing.
    """
    if estimator == "garman_klass":
        missing = [name for name in ("open", "high", "low") if name not in bars.columns]
        if missing:
            raise DataError(
                f"{asset}: estimator 'garman_klass' needs columns {missing}, and the bars have "
                f"only {list(bars.columns)}; use estimator 'close'"
            )
        past = garman_klass(bars, horizon)
    else:
        past = realised_volatility(bars, horizon)
    return past.where(past > 0).shift(-horizon)


def trailing_volatility(bars: pd.DataFrame, target: Target) -> pd.Series:
    """Volatility per bar over the last `volatility_window` bars, by the target's estimator."""
    if target.estimator == "garman_klass":
        return garman_klass(bars, target.volatility_window)
    return realised_volatility(bars, target.volatility_window)


def compute_scaled_target(
    bars: pd.DataFrame, target: Target, scaler: Scaler | None = None, *, asset: str = "the asset"
) -> tuple[pd.Series, pd.Series]:
    """Compute the target of one asset as learners see it, of order one.

    Args:
        bars: in normal form.
        target: what to predict.
        scaler: of its fields `target_mean` and `target_std`, by which a volatility is standardised
            before it is clipped; None for neither.
        asset: how error messages call the bars.

    Returns:
        As `compute_target`.
    """
    values, scale = compute_target(bars, target, asset=asset)
    if target.kind != "volatility" or scaler is None:
        return values, scale
    values = scaler.transform_target(values)
    return values if target.clip is None else values.clip(-target.clip, target.clip), scale


def fit_target(
    scaler: Scaler,
    bars: Mapping[str, pd.DataFrame],
    target: Target,
    first: pd.Timestamp,
    last: pd.Timestamp,
) -> Scaler:
    """Fit the scaling of a volatility on the labels completed within a span, all assets together.

    Args:
        scaler: of the features.
        bars: of the assets to fit on, in normal form.
        target: what to predict; only kind `volatility` needs scaling.
        first: first bar of the span.
        last: last bar; labels that need later bars are not used.

    Returns:
        The scaler with `target_mean` and `target_std`.

    Raises:
        DataError: if there is no label.
    """
    if target.kind != "volatility":
        return scaler
    labels = [
        compute_target(frame.loc[:last], target, asset=asset)[0].loc[first:]
        for asset, frame in bars.items()
    ]
    values = pd.concat(labels).dropna().to_numpy()
    if not len(values):
        raise DataError("no label in the meta-training span to fit the target's scaling on")
    mean, std = float(values.mean()), float(values.std())
    std = std if std > 1e-12 * (1 + abs(mean)) else 1.0
    return scaler._replace(target_mean=mean, target_std=std)


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
