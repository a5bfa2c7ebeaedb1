"""From decisions to accounts: every strategy traded on the same bars at the same costs."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import (
    Account,
    Market,
    Totals,
    make_market,
    place_orders,
    trade_all,
    trade_many,
)
from maml_jax.backtest.execution import Execution
from maml_jax.experiment.config import Config
from maml_jax.experiment.prepare import Prepared


class Traded(NamedTuple):
    """What became of strategies.

    Attributes:
        market: prices of the test span.
        orders: of each strategy, as shares of the whole capital, `[time, asset]`.
        accounts: of each strategy.
    """

    market: Market
    orders: dict[str, pd.DataFrame]
    accounts: dict[str, Account]


def execution_of(config: Config) -> Execution:
    """Return costs and bounds that the settings describe."""
    settings = config.backtest
    return Execution(**{name: getattr(settings, name) for name in Execution._fields})


def tested_market(prepared: Prepared) -> Market:
    """Return the prices of the tested series at all bars of the test span that one of them has."""
    bars = {asset: prepared.bars[asset] for asset in prepared.test_assets}
    index = prepared.panel.timestamps[prepared.test_first : prepared.test_last + 1]
    market = make_market(bars, index)
    there = market.close.notna().any(axis="columns")
    return Market(*(table[there] for table in market))


def trade_decisions(
    prepared: Prepared, market: Market, decisions: Mapping[str, pd.DataFrame]
) -> Traded:
    """Trade all strategies, each asset having an equal part of the capital.

    Args:
        prepared: settings and bars.
        market: as `tested_market` returns it.
        decisions: of each strategy, shares of each asset's part, as `decide` returns them.
    """
    fill, count = prepared.config.target.fill, len(prepared.test_assets)
    orders = {
        name: place_orders(decided, market, fill) / count for name, decided in decisions.items()
    }
    accounts = trade_all(orders, market, **_terms(prepared))
    return Traded(market, orders, accounts)


def trade_alone(prepared: Prepared, market: Market, orders: pd.DataFrame) -> dict[str, Account]:
    """Trade each asset of one strategy alone, with the whole capital.

    Args:
        prepared: settings and bars.
        market: as `tested_market` returns it.
        orders: of the strategy, as shares of the whole capital among all assets.
    """
    whole = orders * len(orders.columns)
    # What is not there stays NaN: 0 would be an order to be flat.
    alone = {asset: whole * (whole.columns == asset) for asset in orders.columns}
    return trade_all(alone, market, **_terms(prepared))


def trade_totals(prepared: Prepared, market: Market, decisions: list[pd.DataFrame]) -> Totals:
    """Trade many sets of decisions and tell their totals alone."""
    fill, count = prepared.config.target.fill, len(prepared.test_assets)
    orders = [place_orders(decided, market, fill).to_numpy(float) / count for decided in decisions]
    return trade_many(np.stack(orders), market, **_terms(prepared))


def _terms(prepared: Prepared) -> dict:
    config = prepared.config
    return {
        "fill": config.target.fill,
        "execution": execution_of(config),
        "capital": config.backtest.capital,
        "bars_per_year": prepared.bars_per_year,
    }
