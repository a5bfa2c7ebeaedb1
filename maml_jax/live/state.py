"""What a strategy carries from bar to bar, and one step of it: `advance`.

A backtest is many bars in one step, a live system one bar in each; both end in the same state.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest.account.state import Held
from maml_jax.live.account import Traded, market_of, open_account, orders_of, trade_on
from maml_jax.live.strategy import Decisions, Strategy, decide_span

NOTHING = pd.DatetimeIndex([], tz="UTC")


class State(NamedTuple):
    """What a strategy carries from bar to bar.

    Attributes:
        seen: the bars since it began, by asset, as they were seen.
        decided: wanted shares of the capital, `[time, asset]`; NaN where the asset has no bar.
        missed: times of bars at which nothing was decided, since nobody looked.
        held: the account.
    """

    seen: dict[str, pd.DataFrame]
    decided: pd.DataFrame
    missed: pd.DatetimeIndex
    held: Held

    @property
    def last(self) -> pd.Timestamp | None:
        """The time of the last bar; None before the first."""
        return self.decided.index[-1] if len(self.decided) else None


class Step(NamedTuple):
    """What happened in one step.

    Attributes:
        times: of its bars.
        decisions: at the bars that were decided at.
        traded: what the account did.
    """

    times: pd.DatetimeIndex
    decisions: Decisions
    traded: Traded


def begin(strategy: Strategy, capital: float) -> State:
    """Return the state before the first bar: an account in cash."""
    decided = pd.DataFrame(np.zeros((0, len(strategy.assets))), NOTHING, list(strategy.assets))
    return State({}, decided, NOTHING, open_account(strategy, capital))


def advance(
    strategy: Strategy, state: State, bars: Mapping[str, pd.DataFrame], *, every: bool = False
) -> tuple[State, Step | None]:
    """Take in the bars that are new: execute what was ordered, then decide.

    Args:
        strategy: what decides.
        state: after the bars before.
        bars: in normal form, so far, those before the first step too.
        every: decide at each of them, as a backtest does. Otherwise at the last alone: the others
            were missed, and what was ordered before stands in them.

    Returns:
        The state after them, and what happened; None where no bar is new.
    """
    new = new_bars(strategy, state, bars)
    if not new:
        return state, None
    times = pd.DatetimeIndex(sorted(set().union(*(frame.index for frame in new.values()))))
    decisions = decide_span(strategy, bars, times[0] if every else times[-1])
    found = decisions.weights.reindex(times)
    missed = state.missed if every else pd.DatetimeIndex(state.missed.append(times[:-1]))
    decided = pd.concat([state.decided, found]) if len(state.decided) else found
    seen = {**state.seen}
    for asset, frame in new.items():
        seen[asset] = pd.concat([seen[asset], frame]) if asset in seen else frame
    market = market_of(strategy, seen, pd.DatetimeIndex(decided.index))
    orders = orders_of(strategy, decided, market, missed)
    traded = trade_on(strategy, state.held, market, orders, len(state.decided))
    return State(seen, decided, missed, traded.held), Step(times, decisions, traded)


def new_bars(
    strategy: Strategy, state: State, bars: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Return the bars of the strategy's assets that are later than what the state has seen."""
    last = state.last
    found = {}
    for asset in strategy.assets:
        if asset not in bars:
            continue
        index = bars[asset].index
        first = index.searchsorted(strategy.since)
        if last is not None:
            first = max(first, index.searchsorted(last, side="right"))
        if first < len(index):
            found[asset] = bars[asset].iloc[first:]
    return found
