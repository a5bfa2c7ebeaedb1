"""The tasks that the settings describe: families of windows, and what supports are made of."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from maml_jax.backtest import Supports, find_supports
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.preparation.series import rule_of
from maml_jax.tasks import (
    SupportRows,
    Windows,
    asset_family,
    mix_families,
    period_family,
    regime_family,
    strategy_family,
)
from maml_jax.tasks.stretches import keep_within_stretches


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


def find_test_supports(prepared: Prepared, *, growing: bool | None = None) -> Supports:
    """Find where the test span is predicted, and on which rows strategies adapt there.

    Args:
        prepared: settings and panel.
        growing: all rows of the asset so far; default as the settings say.
    """
    config = prepared.config
    span: Any = {
        "first": prepared.test_first,
        "last": prepared.test_last,
        "assets": prepared.test_assets,
        "length": config.model.length,
    }
    if config.backtest.window == "growing" if growing is None else growing:
        support = SupportRows(config.task.support, fewest=config.task.min_support)
        return find_supports(prepared.panel, support, growing=True, **span)
    labels = prepared.panel.regimes if config.adapts_within_regimes() else None
    return find_supports(prepared.panel, _support_rows(prepared), labels=labels, **span)


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


def _support_rows(prepared: Prepared) -> SupportRows:
    task = prepared.config.task
    return SupportRows(
        *(task.support, task.support_from, classes(prepared), task.min_support, task.forget)
    )


def _windows(prepared: Prepared, bars: Bool[np.ndarray, " time"] | None = None, **span) -> Windows:
    """List windows of the families; only those that lie in stretches of `bars`, where given."""
    config, panel = prepared.config, prepared.panel
    sizes = {
        "support": _support_rows(prepared),
        "query": config.task.query,
        "embargo": config.task.embargo,
        "length": config.model.length,
    }
    makers: dict[str, Callable[..., Windows]] = {
        "asset": asset_family,
        "regime": regime_family,
        "month": partial(period_family, period="month"),
        "quarter": partial(period_family, period="quarter"),
        "year": partial(period_family, period="year"),
        "strategy": partial(strategy_family, strategies=[rule_of(name) for name in panel.assets]),
    }
    families = [
        (makers[name](panel, **sizes, **span), weight)
        for name, weight in config.task.families().items()
    ]
    if bars is not None:
        families = [(keep_within_stretches(windows, bars), weight) for windows, weight in families]
    return families[0][0] if len(families) == 1 else mix_families(families)
