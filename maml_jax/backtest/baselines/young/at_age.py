"""One regression for each age, on donors' histories cut at random to that age."""

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
from maml_jax.backtest.baselines.young.rows import (
    History,
    check_ages,
    check_assets,
    find_features,
    known_labels,
    make_history,
)


class Cuts(NamedTuple):
    """How donors' histories are cut, and how often.

    Attributes:
        count: cuts of each fit; fewer, all there are, where there are no more.
        every: bars from one fit to the next; None to fit once.
        clip: features are bounded at so many deviations from their mean over the cuts.
        quadratic: squares and products of features are columns too.
        seed: decides where histories are cut.
    """

    count: int = 20_000
    every: int | None = None
    clip: float | None = 4.0
    quadratic: bool = True
    seed: int = 0


ONCE = Cuts()
"""One fit on twenty thousand cuts."""


def age_regression(
    returns: Float[np.ndarray, "asset time"],
    *,
    horizon: int,
    ages: Sequence[int],
    first: int,
    donors: Sequence[int] | None = None,
    targets: Sequence[int] | None = None,
    setting: Cuts = ONCE,
) -> Float[np.ndarray, "age asset time"]:
    """Forecast by a quadratic regression of its own for each age.

    At a fit, bars of donors are drawn at random without replacement from those that have a row of
    that age (`find_features`) and a label that is known. Where an asset is a donor too, its own
    cuts are left out.

    Args:
        returns: logarithmic, per bar; NaN where an asset has no bar.
        horizon: bars ahead.
        ages: increasing: how many returns are known.
        first: index of the bar of the first fit, and of the first forecast.
        donors: indices of the assets whose histories are cut; default all.
        targets: indices of the assets to forecast; default all.
        setting: cuts and fits.

    Returns:
        Log of volatility per bar; NaN before `first`, where an asset has no bar or fewer returns
        than the age, outside `targets`, and where there are fewer than two cuts per column.

    Raises:
        ValueError: if a number or an index is impossible.
    """
    if setting.count < 1 or first < 0 or (setting.every is not None and setting.every < 1):
        raise ValueError(
            "a regression needs at least 1 cut, a first bar of at least 0 and at least 1 bar "
            f"between fits, got {setting.count}, {first} and {setting.every}"
        )
    numbers = check_ages(ages)
    history = make_history(returns, horizon=horizon, donors=donors)
    assets, times = history.known.shape
    chosen = check_assets(targets, assets)
    result = np.full((len(numbers), assets, times), np.nan)
    for fit in range(first, times, setting.every or times):
        bars = np.arange(fit, min(fit + (setting.every or times), times))
        for place, age in enumerate(numbers):
            design, total, each = _fit(history, age, fit, setting)
            features = find_features(history, chosen[:, None], bars, age)
            without = total - np.stack([each.get(asset, 0.0 * total) for asset in chosen])
            beta = solve(without)[..., None]
            result[place, chosen[:, None], bars] = (design(features) @ beta)[..., 0]
    return result


def _fit(
    history: History, age: int, fit: int, setting: Cuts
) -> tuple[Design, np.ndarray, dict[int, np.ndarray]]:
    """Return the columns, the sums of products of all cuts, and those of each donor."""
    asset, time = _draw(history, age, fit, setting)
    features = find_features(history, asset, time, age)
    design = make_design(features, clip=setting.clip, quadratic=setting.quadratic)
    columns, label = design(features), known_labels(history)[asset, time]
    each = {}
    for donor in history.donors:
        rows = asset == donor
        each[int(donor)] = sum_products(columns[rows], label[rows], np.ones(rows.sum(), bool))
    return design, np.sum([*each.values()], axis=0), each


def _draw(
    history: History, age: int, fit: int, setting: Cuts
) -> tuple[Int[np.ndarray, " cut"], Int[np.ndarray, " cut"]]:
    """Draw bars of donors at which they have the age and whose labels are known at the fit."""
    stop = max(fit - history.horizon + 1, 0)
    rows = np.isfinite(known_labels(history)[history.donors, :stop])
    rows &= history.count[history.donors, :stop] >= age
    donor, time = np.nonzero(rows)
    if len(donor) > setting.count:
        rng = np.random.default_rng([setting.seed, age, fit])
        drawn = np.sort(rng.choice(len(donor), setting.count, replace=False))
        donor, time = donor[drawn], time[drawn]
    return history.donors[donor], time
