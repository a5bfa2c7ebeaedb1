"""A regression on the histories of other assets that resemble an asset's own since its listing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from maml_jax.backtest.baselines.young.least_squares import Design, make_design, solve, sum_products
from maml_jax.backtest.baselines.young.rows import (
    History,
    check_ages,
    check_assets,
    find_features,
    known_labels,
    make_history,
    own_volatility,
)
from maml_jax.backtest.baselines.young.warping import warping_distance

PATH_LENGTH = 5
"""Bars over which the volatility of a path is measured, or all since the listing."""


class Nearest(NamedTuple):
    """How similar histories are found and what they count.

    Attributes:
        count: how many of the nearest histories are fitted on.
        every: bars from one forecast to the next, each with a search and a fit of its own.
        stride: a donor's histories end at every so many bars.
        length: bars of a path that are compared at most, the last of them.
        band: how many bars apart two bars may be and still match, as a share of the path.
        own: weight of the asset's own rows; the mean weight of the nearest histories' is 1.
        clip: features are bounded at so many deviations from their mean over the nearest rows.
    """

    count: int = 200
    every: int = 21
    stride: int = 21
    length: int = 60
    band: float = 0.1
    own: float = 1.0
    clip: float | None = 4.0


NEAREST = Nearest()
"""The two hundred nearest histories, at every 21st bar."""


def nearest_donors(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    ages: Sequence[int],
    first: int,
    donors: Sequence[int] | None = None,
    targets: Sequence[int] | None = None,
    setting: Nearest = NEAREST,
) -> Float[np.ndarray, "age asset time"]:
    r"""HAR regression on the asset's rows and those of the donors' histories nearest to its own.

    At every `setting.every` bars, the path of the asset's log volatility since its listing is
    compared, by dynamic time warping, with paths of the same age and length cut from the donors'
    past (`warping_distance`). The rows of the nearest ones, at the ages that they had, and the
    asset's own since its listing are fitted by least squares with weights

    $$w_i \propto e^{-d_i / \bar d}$$

    with $d_i$ the distance of a history and $\bar d$ the mean of those of the nearest. At an age
    of 0 there is no path: all are equally near, and those that end last are taken. Where an asset
    is a donor too, its own past is left out.

    The path is of the volatility over the last 5 returns or all since the listing, since the one
    of a single daily return is hardly known; the source has realised variances of each day.

    Args:
        returns: logarithmic, per bar; NaN where an asset has no bar.
        horizon: bars ahead.
        ages: increasing: how many returns are known.
        first: index of the bar of the first forecast.
        donors: indices of the assets whose past is searched; default all.
        targets: indices of the assets to forecast; default all.
        setting: the search and the weights.

    Returns:
        Log of volatility per bar; NaN before `first` and between the bars of forecasts, where an
        asset has no bar or fewer returns than the age, outside `targets`, and where there are
        fewer than two rows per column.

    Raises:
        ValueError: if a number or an index is impossible.

    Reference:
        Teller, Pigorsch, Pigorsch (2026), Realized volatility forecasting for new issues and
        spin-offs using multi-source transfer learning, International Journal of Forecasting,
        arXiv 2503.12648.
    """
    _check(setting, first)
    numbers = check_ages(ages)
    history = make_history(returns, horizon=horizon, donors=donors)
    assets, times = history.known.shape
    chosen = check_assets(targets, assets)
    result = np.full((len(numbers), assets, times), np.nan)
    for fit in range(first, times, setting.every):
        for place, age in enumerate(numbers):
            found = _find_candidates(history, age, fit, setting)
            for asset in chosen:
                if not history.known[asset, fit] or history.count[asset, fit] < age:
                    continue
                design, beta = _fit(history, found, asset, age, fit, setting)
                features = find_features(history, asset, fit, age)
                result[place, asset, fit] = design(features) @ beta
    return result


class _Candidates(NamedTuple):
    """Histories of donors that end when a label is known.

    Attributes:
        donor: whose they are.
        stop: how many returns of the donor they end with.
        paths: their log volatilities.
    """

    donor: Int[np.ndarray, " history"]
    stop: Int[np.ndarray, " history"]
    paths: Float[np.ndarray, "history bar"]


def _find_candidates(history: History, age: int, fit: int, setting: Nearest) -> _Candidates:
    stop = max(fit - history.horizon + 1, 0)
    labels = known_labels(history)[history.donors, :stop]
    count = history.count[history.donors, :stop]
    # The last that can be known, and every stride before it.
    grid = (count[:, -1:] - count) % setting.stride == 0 if stop else np.zeros(count.shape, bool)
    donor, time = np.nonzero(np.isfinite(labels) & (count >= age) & grid)
    latest = np.argsort(-time, kind="stable")
    donor, time = history.donors[donor[latest]], time[latest]
    stops = history.count[donor, time]
    return _Candidates(donor, stops, _path(history, donor, stops, age, setting.length))


def _path(
    history: History,
    asset: Int[np.ndarray, " history"],
    stop: Int[np.ndarray, " history"],
    age: int,
    length: int,
) -> Float[np.ndarray, "history bar"]:
    """Log volatility at the last bars of histories of that age, measured within them."""
    back = np.arange(min(age, length))[::-1]
    volatility = own_volatility(
        history, asset[:, None], stop[:, None] - back, age - back, (PATH_LENGTH,)
    )
    return volatility[..., 0]


def _fit(
    history: History,
    found: _Candidates,
    asset: int,
    age: int,
    fit: int,
    setting: Nearest,
) -> tuple[Design, Float[np.ndarray, " column"]]:
    """Fit on the rows of the nearest histories, each as far back as its path, and on the own."""
    count = int(history.count[asset, fit])
    near, weight = _weigh(history, found, asset, count, age, setting)
    back = np.arange(max(min(age, setting.length), 1))
    rows = np.concatenate(
        [
            _rows(found.donor[near, None], found.stop[near, None], age, back, weight[:, None]),
            _rows(asset, count, age, np.arange(age + 1), setting.own),
        ],
        axis=1,
    )
    donor, stop, then = (each[rows[1] > 0].astype(int) for each in rows[:3])
    size = rows[3, rows[1] > 0]
    time = history.bar[donor, stop - 1]
    known = time + history.horizon <= fit
    label = np.where(known, known_labels(history)[donor, time], np.nan)
    features = find_features(history, donor, time, then)
    design = make_design(features[known], clip=setting.clip, quadratic=False)
    return design, solve(sum_products(design(features), label, size))


def _rows(asset, stop, age: int, back: Int[np.ndarray, " bar"], weight) -> np.ndarray:
    """Asset, number of its returns, age and weight of the bars of histories, `[4, row]`."""
    each = np.broadcast_arrays(asset, stop - back, age - back, weight)
    return np.stack([values.ravel() for values in each]).astype(float)


def _weigh(
    history: History,
    found: _Candidates,
    asset: int,
    count: int,
    age: int,
    setting: Nearest,
) -> tuple[Int[np.ndarray, " near"], Float[np.ndarray, " near"]]:
    """Return the nearest histories of other assets and their weights."""
    places = np.flatnonzero(found.donor != asset)
    if not age or not len(places):
        near = places[: setting.count]
        return near, np.ones(len(near))
    path = _path(history, np.array([asset]), np.array([count]), age, setting.length)[0]
    band = int(np.ceil(setting.band * len(path)))
    distance = warping_distance(path, found.paths[places], band=band)
    order = np.argsort(distance, kind="stable")[: setting.count]
    weight = np.exp(-distance[order] / max(distance[order].mean(), 1e-12))
    return places[order], weight / weight.mean()


def _check(setting: Nearest, first: int) -> None:
    whole = (setting.count, setting.every, setting.stride, setting.length)
    if min(whole) < 1 or first < 0:
        raise ValueError(
            "counts and lengths are at least 1 and the first bar at least 0, got "
            f"{whole} and {first}"
        )
    if not 0 <= setting.band <= 1 or not setting.own >= 0:
        raise ValueError(
            "a band is a share of the path and the weight of own rows at least 0, got "
            f"{setting.band} and {setting.own}"
        )
