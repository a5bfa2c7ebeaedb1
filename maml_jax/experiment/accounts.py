"""From decisions to accounts: every strategy traded on the same bars at the same costs."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import (
    Account,
    Market,
    Totals,
    has_ended,
    make_market,
    place_orders,
    trade_all,
    trade_many,
)
from maml_jax.backtest.execution import Execution
from maml_jax.experiment.config import Config
from maml_jax.experiment.prepare import Prepared
from maml_jax.experiment.trade import BUY_AND_HOLD


class Traded(NamedTuple):
    """What became of strategies.

    Attributes:
        market: prices of the test span.
        orders: of each strategy, as shares of the whole capital, `[time, asset]`.
        accounts: of each strategy.
        alone: of each strategy, by asset: accounts that trade this asset alone, with the whole
            capital.
    """

    market: Market
    orders: dict[str, pd.DataFrame]
    accounts: dict[str, Account]
    alone: dict[str, dict[str, Account]]


def execution_of(config: Config) -> Execution:
    """Return costs and bounds that the settings describe."""
    settings = config.backtest
    return Execution(**{name: getattr(settings, name) for name in Execution._fields})


def holding(execution: Execution) -> Execution:
    """Return the costs alone, by which buying and holding is judged: nothing sells what is held."""
    most = execution.max_gross
    return execution._replace(
        stop_loss=None,
        take_profit=None,
        trailing_stop=None,
        band=0.0,
        max_turnover=None,
        max_gross=None if most is not None and most < 1 else most,
        rebalance="changes",
    )


def market_of_test_span(prepared: Prepared) -> Market:
    """Return the prices of the tested series at all bars of the test span that one of them has."""
    bars = {asset: prepared.bars[asset] for asset in prepared.test_assets}
    index = prepared.panel.timestamps[prepared.test_first : prepared.test_last + 1]
    market = make_market(bars, index)
    there = market.close.notna().any(axis="columns")
    return Market(*(table[there] for table in market))


def trade_decisions(
    prepared: Prepared, market: Market, decisions: Mapping[str, pd.DataFrame], *, alone: bool = True
) -> Traded:
    """Trade all strategies, each asset having an equal part of the capital.

    Stops and limits of the settings are of all but buying and holding.

    Args:
        prepared: settings and bars.
        market: as `market_of_test_span` returns it.
        decisions: of each strategy, shares of each asset's part, as `decide` returns them.
        alone: whether each asset is traded alone, too.
    """
    assets = list(market.close.columns)
    wanted = _placed(prepared, market, decisions)
    orders = {name: table / len(assets) for name, table in wanted.items()}
    together: dict[tuple[str, str | None], pd.DataFrame] = {(n, None): orders[n] for n in orders}
    if alone:
        # What is not there stays NaN: 0 would be an order to be flat.
        together |= {
            (n, a): wanted[n] * (market.close.columns == a) for n in orders for a in assets
        }
    terms = _terms(prepared)
    held = holding(terms["execution"])
    still: set = (
        set() if held == terms["execution"] else {k for k in together if k[0] == BUY_AND_HOLD}
    )
    made = trade_all({k: v for k, v in together.items() if k not in still}, market, **terms)
    if still:
        kept = {k: together[k] for k in together if k in still}
        made |= trade_all(kept, market, **{**terms, "execution": held})
    return Traded(
        market,
        orders,
        {name: made[name, None] for name in orders},
        {name: {a: made[name, a] for a in assets} for name in orders} if alone else {},
    )


def trade_totals(prepared: Prepared, market: Market, decisions: list[pd.DataFrame]) -> Totals:
    """Trade many sets of decisions and tell their totals alone."""
    wanted = _placed(prepared, market, dict(enumerate(decisions)))
    shares = np.stack([table.to_numpy(float) for table in wanted.values()])
    return trade_many(shares / market.close.shape[1], market, **_terms(prepared))


def _placed(prepared: Prepared, market: Market, decisions: Mapping) -> dict[Any, pd.DataFrame]:
    """Return orders as shares of each asset's part."""
    fill, ended = prepared.config.target.fill, has_ended(market)
    return {
        name: place_orders(decided, market, fill, ended=ended)
        for name, decided in decisions.items()
    }


def _terms(prepared: Prepared) -> dict:
    config = prepared.config
    return {
        "fill": config.target.fill,
        "execution": execution_of(config),
        "capital": config.backtest.capital,
        "bars_per_year": prepared.bars_per_year,
    }
