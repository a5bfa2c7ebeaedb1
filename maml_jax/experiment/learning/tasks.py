"""The tasks that the settings describe: families of windows, and what supports are made of."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.preparation.series import rule_of
from maml_jax.tasks import (
    Windows,
    asset_family,
    mix_families,
    period_family,
    regime_family,
    strategy_family,
)
from maml_jax.tasks.stretches import within_stretches


def training_windows(prepared: Prepared) -> Windows:
    """List the windows of the meta-training span, of the families that the settings name.

    Raises:
        DataError: if a family has no room for a window.
    """
    span: Any = {"first": prepared.train_first, "last": prepared.train_last}
    bars = prepared.spans.train_bars(prepared.panel.timestamps) if prepared.spans.trained else None
    return _windows(prepared, bars, assets=prepared.train_assets, **span)


def online_windows(prepared: Prepared) -> Windows:
    """List the windows from meta-training on, of all assets, to learn from once completed.

    Raises:
        DataError: if a family has no room for a window.
    """
    return _windows(prepared, first=prepared.train_first)


def tested_windows(prepared: Prepared) -> Windows:
    """List the windows of the test span, cut as those of meta-training are.

    Raises:
        DataError: if a family has no room for a window.
    """
    span: Any = {"first": prepared.test_first, "last": prepared.test_last}
    return _windows(prepared, assets=prepared.test_assets, **span)


def supports(prepared: Prepared) -> dict[str, Any]:
    """Return how `walk_forward` makes support sets, as its arguments."""
    return {
        "support_from": prepared.config.task.support_from,
        "labels": prepared.panel.regimes if prepared.config.adapts_within_regimes() else None,
        "classes": classes(prepared),
    }


def classes(prepared: Prepared) -> Int[np.ndarray, " asset"] | None:
    """Number the classes of the panel's assets; series that follow one rule are a class."""
    named = prepared.config.data.classes
    if prepared.sides:
        names = [rule_of(name) for name in prepared.panel.assets]
    elif named:
        names = [named.get(asset, "") for asset in prepared.panel.assets]
    else:
        return None
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _windows(prepared: Prepared, bars: Bool[np.ndarray, " time"] | None = None, **span) -> Windows:
    """List windows of the families; only those that lie in stretches of `bars`, where given."""
    config, panel = prepared.config, prepared.panel
    sizes = {
        "support": config.task.support,
        "query": config.task.query,
        "embargo": config.task.embargo,
        "length": config.model.length,
        "support_from": config.task.support_from,
    }
    of_class = {"classes": classes(prepared)}
    makers: dict[str, Callable[..., Windows]] = {
        "asset": partial(asset_family, **of_class),
        "regime": partial(regime_family, **of_class),
        "month": partial(period_family, period="month", **of_class),
        "quarter": partial(period_family, period="quarter", **of_class),
        "year": partial(period_family, period="year", **of_class),
        "strategy": partial(strategy_family, strategies=[rule_of(name) for name in panel.assets]),
    }
    families = [
        (makers[name](panel, **sizes, **span), weight)
        for name, weight in config.task.families().items()
    ]
    if bars is not None:
        families = [(within_stretches(windows, bars), weight) for windows, weight in families]
    return families[0][0] if len(families) == 1 else mix_families(families)
