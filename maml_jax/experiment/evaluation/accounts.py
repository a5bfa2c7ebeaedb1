"""From decisions to accounts: every strategy traded on the same bars at the same costs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    trade_alone,
    trade_many,
)
from maml_jax.backtest.account.execution import Execution
from maml_jax.backtest.strategy_names import BUY_AND_HOLD
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.preparation.prepare import Prepared


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


def costs_alone(execution: Execution) -> Execution:
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
    prepared: Prepared, market: Market, decisions: Mapping[str, pd.DataFrame]
) -> Traded:
    """Trade all strategies, each asset having an equal part of the capital.

    Stops and limits of the settings apply to all but buying and holding.

    Args:
        prepared: settings and bars.
        market: as `market_of_test_span` returns it.
        decisions: of each strategy, shares of each asset's part, as `decide` returns them.
    """
    parts = market.close.shape[1]
    orders = {name: table / parts for name, table in _place(prepared, market, decisions).items()}
    made: dict[str, Account] = {}
    for group, terms in _group_by_terms(prepared, orders):
        made |= trade_all(group, market, **terms)
    return Traded(market, orders, {name: made[name] for name in orders})


def trade_assets(
    prepared: Prepared, market: Market, decisions: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[str, dict[str, Account]]]:
    """Trade each asset alone with the whole capital, one after the other.

    Args:
        prepared: settings and bars.
        market: as `market_of_test_span` returns it.
        decisions: by strategy, weights of an account that holds this asset alone.

    Yields:
        An asset, and the account of each strategy on it.
    """
    orders = _place(prepared, market, decisions)
    groups = [
        trade_alone(group, market, **terms) for group, terms in _group_by_terms(prepared, orders)
    ]
    for accounts in zip(*groups, strict=True):
        merged = {name: account for _, part in accounts for name, account in part.items()}
        yield accounts[0][0], {name: merged[name] for name in orders}


def trade_totals(
    prepared: Prepared, market: Market, decisions: Sequence[Callable[[], pd.DataFrame]]
) -> Totals:
    """Trade many sets of decisions and keep only their totals.

    Args:
        prepared: settings and bars.
        market: as `market_of_test_span` returns it.
        decisions: functions that make the decisions of a set, when they are to be traded.
    """
    return trade_many(_Orders(prepared, market, decisions), market, **_terms(prepared))


class _Orders(Sequence[np.ndarray]):
    """Orders of many sets of decisions, made a few at a time."""

    def __init__(self, prepared, market, decisions):
        self.prepared, self.market, self.decisions = prepared, market, decisions
        self.ended = has_ended(market)

    def __len__(self) -> int:
        return len(self.decisions)

    def __getitem__(self, place):
        fill = self.prepared.config.target.fill
        orders = place_orders(self.decisions[place](), self.market, fill, ended=self.ended)
        return orders.to_numpy(float) / self.market.close.shape[1]


def _group_by_terms(
    prepared: Prepared, orders: Mapping[str, pd.DataFrame]
) -> Iterator[tuple[dict[str, pd.DataFrame], dict]]:
    """Give groups of strategies that trade on the same terms, and the terms."""
    terms = _terms(prepared)
    held = costs_alone(terms["execution"])
    apart = {BUY_AND_HOLD} if held != terms["execution"] else set()
    for group, execution in (
        ({n: t for n, t in orders.items() if n not in apart}, terms["execution"]),
        ({n: t for n, t in orders.items() if n in apart}, held),
    ):
        if group:
            yield group, {**terms, "execution": execution}


def _place(prepared: Prepared, market: Market, decisions: Mapping) -> dict[Any, pd.DataFrame]:
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
    }
