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
    AGE_FEATURES,
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
        pool_ages: fit one regression on the rows of all ages, with the age as a feature, rather
            than one for each age. It needs `quadratic`: what a return is worth depends on how many
            there are.
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
    pool_ages: bool = False
    own: float = 0.0
    intercept: int = 0
    clip: float | None = 4.0


MONTHLY = Refit()
"""All donors' rows at each age, refitted every 21 bars."""


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
    r"""Forecast by a regression on donors' rows at each age, refitted every `setting.every` bars.

    $$\hat y_t = x_t^\top \hat\beta + \kappa\, \bar e_t, \qquad
      \hat\beta = \Bigl(\sum_{d \ne a} \sum_s x_{d,s} x_{d,s}^\top\Bigr)^{-1}
      \sum_{d \ne a} \sum_s x_{d,s}\, y_{d,s}$$

    over the rows s whose labels are known at the fit, with the features of `find_features`: log
    volatilities over 1, 5, 22, 60 and 250 bars or all that are known, those of the market over 5,
    22 and 60, and where ages are pooled $\ln (1 + n)$ and $1 / (1 + n)$. $\bar e$ and $\kappa$
    are described at `add_intercept`.

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
    stops = np.maximum(fits - horizon + 1, 0)
    window = times if setting.window is None else setting.window
    spans = np.stack([fits, np.maximum(stops - window, 0), stops], axis=1)
    features = features_by_age(history, numbers)
    groups = [[*range(len(numbers))]]
    if not setting.pool_ages:
        features, groups = features[..., :-AGE_FEATURES], [[place] for place in groups[0]]
    forecast_for = np.union1d(chosen, history.donors) if setting.intercept else chosen
    rows = _Rows(history, features, numbers, spans, setting)
    for group in groups:
        result[group] = _forecast(rows, group, forecast_for)
    if setting.intercept:
        result = add_intercept(result, history, numbers, setting.intercept, spans)
    outside = np.setdiff1d(np.arange(assets), chosen)
    result[:, outside] = np.nan
    return result


class _Rows(NamedTuple):
    """What regressions are fitted on.

    Attributes:
        history: the labels, and the donors.
        features: of every bar at every age.
        ages: increasing.
        spans: bar of each fit, and the first and one beyond the last bar whose rows it sees.
        setting: how it is fitted.
    """

    history: History
    features: Float[np.ndarray, "age asset time feature"]
    ages: Int[np.ndarray, " age"]
    spans: Int[np.ndarray, "fit 3"]
    setting: Refit


def _forecast(
    rows: _Rows, group: list[int], assets: Int[np.ndarray, " asset"]
) -> Float[np.ndarray, "age asset time"]:
    """Forecast some assets at the ages of a group by one regression on the rows of all of them."""
    setting, features = rows.setting, rows.features[group]
    times = features.shape[2]
    _, start, stop = rows.spans[0]
    seen = features[:, rows.history.donors, start:stop].reshape(-1, features.shape[-1])
    design = make_design(seen, clip=setting.clip, quadratic=setting.quadratic)
    total, each = _pool(rows, features, design)
    result = np.full(features.shape[:3], np.nan)
    for place, fit in enumerate(rows.spans[:, 0]):
        products = np.repeat(total[place][None], len(assets), axis=0)
        for donor, own in zip(rows.history.donors, each, strict=True):
            products[assets == donor] -= own[place]
        products = products[None]
        if setting.own:
            own = [_own_rows(rows, design, rows.ages[age], place, assets) for age in group]
            products = products + setting.own * np.stack(own)
        beta = solve(products)[..., None]
        upto = slice(fit, min(fit + setting.every, times))
        result[:, assets, upto] = (design(features[:, assets, upto]) @ beta)[..., 0]
    return result


def _pool(
    rows: _Rows, features: Float[np.ndarray, "age asset time feature"], design: Design
) -> tuple[
    Float[np.ndarray, "fit product product"], Float[np.ndarray, "donor fit product product"]
]:
    """Sums of products of all donors' rows and of each one's, for every fit.

    They are summed once between the edges of all fits, and what lies within a fit is added up.
    """
    starts, stops = rows.spans[:, 1], rows.spans[:, 2]
    edges = np.unique(np.concatenate([[0], starts, stops]))
    labels = known_labels(rows.history)
    size = design(features[0, 0, :1]).shape[-1] + 1
    each = []
    for donor in rows.history.donors:
        pieces = [np.zeros((size, size))]
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            columns = design(features[:, donor, begin:end])
            label = np.broadcast_to(labels[donor, begin:end], columns.shape[:2])
            products = sum_products(columns, label, np.ones(label.shape, bool))
            pieces.append(products.sum(axis=0))
        sums = np.cumsum(pieces, axis=0)
        each.append(sums[np.searchsorted(edges, stops)] - sums[np.searchsorted(edges, starts)])
    together = np.stack(each)
    return together.sum(axis=0), together


def _own_rows(
    rows: _Rows, design: Design, age: int, place: int, assets: Int[np.ndarray, " asset"]
) -> Float[np.ndarray, "asset product product"]:
    """Sum the products of each asset's own rows since its listing at one fit.

    A fit serves until the next one: it knows the rows that an asset of that age has seen at the
    last bar it serves.
    """
    history, (fit, start, stop) = rows.history, rows.spans[place]
    labels = known_labels(history)
    result = []
    for asset in assets:
        back = history.count[asset, fit] - history.count[asset, start:stop]
        then = age - (rows.setting.every - 1) - back
        slot = np.searchsorted(rows.ages, then, side="right") - 1
        time = start + np.flatnonzero(slot >= 0)
        columns = design(rows.features[slot[slot >= 0], asset, time])
        result.append(sum_products(columns, labels[asset, time], np.ones(len(time), bool)))
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
