"""The pooled HAR regression as practitioners run it: refitted every month, on many assets' rows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from maml_jax.backtest.baselines.young.least_squares import (
    Design,
    make_design,
    solve,
    sum_products,
)
from maml_jax.backtest.baselines.young.random_intercept import add_intercept
from maml_jax.backtest.baselines.young.rows import (
    History,
    check_ages,
    check_assets,
    features_by_age,
    known_labels,
    make_history,
)


class Refit(NamedTuple):
    """How a pooled regression is refitted.

    Attributes:
        every: bars from one fit to the next.
        window: bars whose rows are fitted on, those whose labels are known last; None for all.
        quadratic: squares and products of features are columns too.
        own: weight of the asset's own rows since its listing; 0 leaves them out, and the many rows
            of donors have weight 1 each.
        intercept: how many of its own last rows the asset's mean error is measured on, which is
            added to the forecast after shrinking; 0 for none.
        clip: features are bounded at so many deviations from their mean over the donors' rows that
            are known at the first fit; None for no bound.
    """

    every: int = 21
    window: int | None = None
    quadratic: bool = False
    own: float = 0.0
    intercept: int = 0
    clip: float | None = 4.0


MONTHLY = Refit()
"""All donors' rows, refitted every 21 bars."""


def refitted_har(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    ages: Sequence[int],
    first: int,
    donors: Sequence[int] | None = None,
    targets: Sequence[int] | None = None,
    setting: Refit = MONTHLY,
) -> Float[np.ndarray, "age asset time"]:
    r"""Forecast by one regression on donors' rows of all ages, refitted every `setting.every` bars.

    $$\hat y_t = x_t^\top \hat\beta + \kappa\, \bar e_t, \qquad
      \hat\beta = \Bigl(\sum_{d \ne a} \sum_s x_{d,s} x_{d,s}^\top\Bigr)^{-1}
      \sum_{d \ne a} \sum_s x_{d,s}\, y_{d,s}$$

    over the rows s whose labels are known at the fit, with the features of `find_features` at each
    of the ages: log volatilities over 1, 5, 22, 60 and 250 bars or all that are known, those of the
    market over 5, 22 and 60, $\ln (1 + n)$ and $1 / (1 + n)$. With one age alone the last two are
    constant and drop out. $\bar e$ and $\kappa$ are described at `add_intercept`.

    An asset's own rows and errors are those since its listing. A row of it is taken at the greatest
    of `ages` that it has reached, so that ages close to each other use more of it. Where the asset
    is a donor too, its rows as a donor are left out, but what it adds to the market's volatility on
    the other donors' rows is not; to know nothing of it before its listing, leave it out of
    `donors`.

    Args:
        returns: logarithmic, per bar; NaN where an asset has no bar.
        horizon: bars ahead.
        ages: $n$, increasing: how many returns are known.
        first: index of the bar of the first fit, and of the first forecast.
        donors: indices of the assets whose rows are fitted on; default all.
        targets: indices of the assets to forecast; default all.
        setting: window, columns and what is learned from the asset itself.

    Returns:
        Log of volatility per bar; NaN before `first`, where an asset has no bar or fewer returns
        than the age, outside `targets`, and where there are fewer than two rows per column.

    Raises:
        ValueError: if a number or an index is impossible.

    Reference:
        Corsi (2009), A simple approximate long-memory model of realized volatility; Audrino and
        Chassot (2024), HARd to Beat, arXiv 2406.08041.
    """
    _check(setting, first)
    numbers = check_ages(ages)
    history = make_history(returns, horizon=horizon, donors=donors)
    assets, times = history.known.shape
    chosen = check_assets(targets, assets)
    fits = np.arange(first, times, setting.every)
    result = np.full((len(numbers), assets, times), np.nan)
    if not len(fits):
        return result
    features = features_by_age(history, numbers)
    stops = np.maximum(fits - horizon + 1, 0)
    starts = np.zeros_like(stops)
    if setting.window is not None:
        starts = np.maximum(stops - setting.window, 0)
    seen = features[:, history.donors, starts[0] : stops[0]].reshape(-1, features.shape[-1])
    design = make_design(seen, clip=setting.clip, quadratic=setting.quadratic)
    forecast_for = np.union1d(chosen, history.donors) if setting.intercept else chosen
    pooled = _pool(history, features, design, starts, stops)
    for place, fit in enumerate(fits):
        upto = slice(fit, min(fit + setting.every, times))
        products = pooled.without(place, forecast_for)[None]
        if setting.own:
            rows, last = slice(starts[place], stops[place]), (fit, setting.every)
            own = _own_rows(history, features, design, numbers, rows, last, forecast_for)
            products = products + setting.own * own
        beta = solve(products)[:, :, :, None]
        result[:, forecast_for, upto] = (design(features[:, forecast_for, upto]) @ beta)[..., 0]
    if setting.intercept:
        spans = np.stack([fits, starts, stops], axis=1)
        result = add_intercept(result, history, numbers, setting.intercept, spans)
    outside = np.setdiff1d(np.arange(assets), chosen)
    result[:, outside] = np.nan
    return result


class _Pooled(NamedTuple):
    """Sums of products of the rows of every fit.

    Attributes:
        total: of all donors.
        each: of each donor.
        donors: their indices.
    """

    total: Float[np.ndarray, "fit product product"]
    each: Float[np.ndarray, "donor fit product product"]
    donors: Int[np.ndarray, " donor"]

    def without(
        self, fit: int, assets: Int[np.ndarray, " asset"]
    ) -> Float[np.ndarray, "asset product product"]:
        """Sum over the donors, for each asset without itself."""
        products = np.repeat(self.total[fit][None], len(assets), axis=0)
        for place, asset in enumerate(assets):
            for donor in np.flatnonzero(self.donors == asset):
                products[place] -= self.each[donor, fit]
        return products


def _pool(
    history: History,
    features: Float[np.ndarray, "age asset time feature"],
    design: Design,
    starts: Int[np.ndarray, " fit"],
    stops: Int[np.ndarray, " fit"],
) -> _Pooled:
    """Sum products between the edges of all fits once, and add up what lies within each fit."""
    edges = np.unique(np.concatenate([[0], starts, stops]))
    labels = known_labels(history)
    each = []
    size = design(features[0, 0, :1]).shape[-1] + 1
    for donor in history.donors:
        pieces = [np.zeros((size, size))]
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            columns = design(features[:, donor, begin:end])
            label = np.broadcast_to(labels[donor, begin:end], columns.shape[:2])
            products = sum_products(columns, label, np.ones(label.shape, bool))
            pieces.append(products.sum(axis=0))
        sums = np.cumsum(pieces, axis=0)
        each.append(sums[np.searchsorted(edges, stops)] - sums[np.searchsorted(edges, starts)])
    together = np.stack(each)
    return _Pooled(together.sum(axis=0), together, history.donors)


def _own_rows(
    history: History,
    features: Float[np.ndarray, "age asset time feature"],
    design: Design,
    ages: Int[np.ndarray, " age"],
    rows: slice,
    last: tuple[int, int],
    assets: Int[np.ndarray, " asset"],
) -> Float[np.ndarray, "age asset product product"]:
    """Sum the products of an asset's own rows since its listing, for each age.

    A fit (`last`: its bar, and the bars that it serves) knows the rows that an asset of that age
    at the last bar served has seen.
    """
    labels = known_labels(history)
    fit, served = last
    result = []
    for age in ages:
        for_age = []
        for asset in assets:
            back = history.count[asset, fit] - history.count[asset, rows]
            slot = np.searchsorted(ages, age - (served - 1) - back, side="right") - 1
            time = rows.start + np.flatnonzero(slot >= 0)
            columns = design(features[slot[slot >= 0], asset, time])
            for_age.append(sum_products(columns, labels[asset, time], np.ones(len(time), bool)))
        result.append(np.stack(for_age))
    return np.stack(result)


def _check(setting: Refit, first: int) -> None:
    window = setting.window
    if setting.every < 1 or first < 0 or (window is not None and window < 1):
        raise ValueError(
            "a regression is refitted every 1 bar or more, on a window of at least 1 bar, from a "
            f"bar of at least 0, not every {setting.every} on {window} from {first}"
        )
    if not setting.own >= 0 or setting.intercept < 0:
        raise ValueError(
            "the weight of own rows and the number of rows of an intercept are at least 0, not "
            f"{setting.own} and {setting.intercept}"
        )
