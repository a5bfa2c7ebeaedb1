"""The tasks that the settings describe: families of windows, and what supports are made of."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from maml_jax.backtest import Supports, find_supports
from maml_jax.errors import ConfigError, DataError
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
from maml_jax.tasks.stretches import keep_queries_from, keep_within_stretches


def training_windows(prepared: Prepared) -> Windows:
    """List the windows to meta-train on, of the families that the settings name.

    They end before the bars that are validated on: the last query label of each is complete there.

    Raises:
        ConfigError: naming the setting, if validation leaves no room for a window.
        DataError: if a family has no room for a window.
    """
    border = validation_start(prepared)
    bars = prepared.spans.train_bars(prepared.panel.timestamps) if prepared.spans.trained else None
    span: Any = {"first": prepared.train_first, "last": prepared.train_last}
    if border is not None:
        span["last"] = border - 1
    with _name_validation(prepared, border, "meta-training before"):
        return _windows(prepared, _within(bars), assets=prepared.train_assets, **span)


def validation_windows(prepared: Prepared) -> Windows | None:
    """List the windows to validate on, those that ask of the last part of the meta-training span.

    They may adapt on rows before it, as the walk-forward does at its first bars. None where the
    settings ask for no validation.

    Raises:
        ConfigError: naming the setting, if there is no room for a window.
    """
    border = validation_start(prepared)
    if border is None:
        return None
    bars = prepared.spans.train_bars(prepared.panel.timestamps) if prepared.spans.trained else None
    within, span = _within(bars), {"first": prepared.train_first, "last": prepared.train_last}

    def select(windows: Windows) -> Windows:
        return keep_queries_from(within(windows), border)

    with _name_validation(prepared, border, "validation from"):
        return _windows(prepared, select, assets=prepared.train_assets, **span)


def validation_start(prepared: Prepared) -> int | None:
    """Return the index on the time axis of the first bar that is validated on; None without."""
    share = prepared.config.training.validation
    if not share:
        return None
    times = np.flatnonzero(prepared.spans.train_bars(prepared.panel.timestamps))
    return int(times[min(round((1 - share) * len(times)), len(times) - 1)])


@contextmanager
def _name_validation(prepared: Prepared, border: int | None, what: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        if border is None:
            raise
        raise ConfigError(
            f"key 'training.validation': {prepared.config.training.validation:g} of the "
            f"meta-training span leaves no room for {what} {prepared.panel.timestamps[border]}: "
            f"{error}; choose another share, or 0"
        ) from error


def _within(bars: Bool[np.ndarray, " time"] | None) -> Callable[[Windows], Windows]:
    """Make the choice of windows that lie in stretches of bars; all of them for None."""
    if bars is None:
        return lambda windows: windows
    return lambda windows: keep_within_stretches(windows, bars)


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


def _windows(
    prepared: Prepared, select: Callable[[Windows], Windows] | None = None, **span
) -> Windows:
    """List windows of the families; of each only those that are selected."""
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
    if select is not None:
        families = [(select(windows), weight) for windows, weight in families]
    return families[0][0] if len(families) == 1 else mix_families(families)
