"""The regime in force at every bar, as the settings define regimes."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Int

from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.preparation.spans import Spans
from maml_jax.features import (
    MarkovParameters,
    fit_markov,
    label_delay,
    label_regimes,
    market_regimes,
    regime_warm_up,
)
from maml_jax.features.signals.markov import filter_states, most_probable
from maml_jax.features.signals.regimes import UNKNOWN, market_log_returns
from maml_jax.listing import join_names
from maml_jax.notes import Note
from maml_jax.tasks import Panel

_MANY = 0.05
"""Share of bars without a regime from which on a note says so."""


def needs_regimes(config: Config) -> bool:
    """Say whether anything that is learned or adapted on depends on regimes."""
    return "regime" in config.task.families() or config.adapts_within_regimes()


def fit_chain(
    config: Config, bars: Mapping[str, pd.DataFrame], fitted_on: slice
) -> MarkovParameters | None:
    """Fit the Markov chain that the settings ask for to the market of the meta-training span.

    Raises:
        DataError: if it cannot be fitted.
    """
    if config.regimes.kind != "markov" or not needs_regimes(config):
        return None
    span = {asset: frame.loc[fitted_on] for asset, frame in bars.items()}
    returns = market_log_returns(span)
    settings = config.regimes
    return fit_markov(returns, settings.states, memory=settings.history, asset="the market")


def panel_regimes(
    config: Config,
    panel: Panel,
    bars: Mapping[str, pd.DataFrame],
    market: Mapping[str, pd.DataFrame],
    chain: MarkovParameters | None,
) -> Int[np.ndarray, "asset time"]:
    """Number the regime in force at each bar of each asset, from bars up to it.

    Args:
        config: the settings.
        panel: the bars as arrays.
        bars: of each of its assets.
        market: of the assets that make the market; that of a chain is the one it was fitted to,
            for an index of fewer assets is wilder.
        chain: the fitted chain of kind "markov".

    Raises:
        ConfigError: if there is no chain, and regimes are its states.
    """
    settings = config.regimes
    if settings.kind == "markov":
        if chain is None:
            raise ConfigError(
                "key 'regimes.kind': the chain of these regimes was not fitted when this was "
                "trained; train with 'backtest.same_regime' or the family \"regime\""
            )
        whole = most_probable(filter_states(chain, market_log_returns(market)))
    elif settings.of == "market":
        whole = market_regimes(market, **settings.windows())
    else:
        whole = None
    labels = np.full(panel.valid.shape, UNKNOWN, np.int32)
    for row, asset in enumerate(panel.assets):
        own = bars[asset]
        series = label_regimes(own, **settings.windows()) if whole is None else whole
        series = series.reindex(own.index, fill_value=UNKNOWN)
        labels[row, panel.timestamps.get_indexer(own.index)] = series.to_numpy()
    return labels


def regimes_of_report(config: Config, bars: Mapping[str, pd.DataFrame]) -> pd.Series:
    """Label the returns of a market for a report: by trend and volatility, when they were decided.

    The label of a return is the one known at the close at which a decision was taken that earns it.
    Windows are those of the settings; where there are fewer bars than they need, all is unknown.
    """
    known = market_regimes(bars, **config.regimes.windows())
    return known.shift(label_delay(config.target.fill, 1), fill_value=UNKNOWN)


def market_of_chain(config: Config, market: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the bars of the assets that the chain of regimes was fitted to.

    Raises:
        DataError: naming those that are not there.
    """
    names = config.data.train_assets or tuple(market)
    missing = [name for name in names if name not in market]
    if missing:
        raise DataError(
            f"regimes of kind 'markov' are those of the market of {join_names(names)}, and the "
            f"bars of {join_names(missing)} are not given"
        )
    return {name: market[name] for name in names}


def require_known_regimes(
    config: Config, panel: Panel, labels: np.ndarray, train: list[str], spans: Spans | None
) -> None:
    """Refuse a family of regimes where none is known in the meta-training span.

    Raises:
        DataError: saying how many bars come before the first.
    """
    if spans is None or "regime" not in config.task.families():
        return
    inside = (panel.timestamps >= spans.train_first) & (panel.timestamps <= spans.train_last)
    rows = [panel.assets.index(name) for name in train]
    if not (labels[rows][:, inside] >= 0).any():
        windows = config.regimes.windows()
        before = regime_warm_up(**windows) if config.regimes.kind == "trend" else windows["history"]
        raise DataError(
            f"no regime is known in the meta-training span, which ends at {spans.train_last}: "
            f"the first is known after {before} bars; set shorter windows in 'regimes'"
        )


def unknown_regimes(
    config: Config, panel: Panel, labels: np.ndarray, test: list[str], spans: Spans
) -> list[Note]:
    """Say where the walk-forward cannot adapt within regimes for want of a label."""
    inside = spans.test_bars(panel.timestamps)
    rows = [panel.assets.index(name) for name in test]
    unknown = (labels[rows] < 0) & np.asarray(panel.valid)[rows] & inside
    bars = int((np.asarray(panel.valid)[rows] & inside).sum())
    if not config.adapts_within_regimes() or unknown.sum() <= _MANY * bars:
        return []
    text = (
        f"No regime is known at {int(unknown.sum())} of {bars} bars of the test span, where the "
        "last rows are adapted on whatever their regime; set shorter windows in 'regimes'."
    )
    return [Note("regimes", text)]
