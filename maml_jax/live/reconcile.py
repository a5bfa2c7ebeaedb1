"""Why a paper account differs from its backtest: every difference has one cause.

The account is lived again several times, each with one more thing as the backtest has it. What
changes from one to the next is what that cause took or gave, so that the amounts add up to the gap.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.errors import DataError
from maml_jax.experiment import Result
from maml_jax.experiment.config.loading import load_config
from maml_jax.live.account import market_of, open_account, orders_of, trade_on
from maml_jax.live.book import Book
from maml_jax.live.state import NOTHING, State, begin
from maml_jax.live.strategy import Strategy, decide_span, strategy_of

Bars = Mapping[str, pd.DataFrame]

CAUSES = ("fill price", "missed bar", "revised data", "late bar", "settings")
"""In the order in which they are taken to the backtest's side."""

_PRICES = ("open", "high", "low", "close")
_NAMED = 3
"""Differences of a cause that are named one by one."""


class Reconciliation(NamedTuple):
    """Why a paper account differs from its backtest.

    Attributes:
        causes: one row each, in the order of `CAUSES`: `amount` (money that it gave the account
            over the backtest), `count` (of differences), `detail`.
        paper: money at each close of the account.
        backtest: likewise of its backtest.
    """

    causes: pd.DataFrame
    paper: pd.Series
    backtest: pd.Series

    @property
    def gap(self) -> float:
        """The money that the account has more than its backtest."""
        return float(self.paper.iloc[-1] - self.backtest.iloc[-1])


def reconcile(result: Result, book: Book, bars: Bars) -> Reconciliation:
    """Live the span of a paper account again, as its backtest would have.

    Args:
        result: of the run, with the settings as they are now.
        book: of the account.
        bars: in normal form, as they are now, from before the account on.

    Raises:
        DataError: if the account has no bar yet, or the bars do not reach back to it.
        ConfigError, RunError: as the book and `strategy_of`.
    """
    about, paper = book.about(), book.equity()
    if paper.empty:
        raise DataError(f"{book.path}: the account has no bar yet")
    now = book.strategy(strategy_of(result, bars, method=about["method"], assets=about["assets"]))
    then = now._replace(config=load_config(about["settings"], trust=False))
    state = book.state(then, begin(then, about["capital"]))
    bars = {asset: frame.loc[: paper.index[-1]] for asset, frame in bars.items()}
    past = {asset: frame.loc[frame.index < then.since] for asset, frame in bars.items()}
    source = _since(bars, then)
    if not any(map(len, source.values())):
        raise DataError(f"no bars from {then.since} on, when the account began")
    seen, revised = state.seen, _as_seen(state.seen, source)
    whole = _union(seen, source)
    # Each world has one more thing as the backtest has it.
    remembered = _complete(then, state, past)
    equities = [
        paper,
        _live(then, about, state.decided, seen, state.missed),
        _live(then, about, remembered, seen, NOTHING),
        _live(then, about, _decide(then, past, revised), revised, NOTHING),
        _live(then, about, _decide(then, past, source), source, NOTHING),
        _live(now, about, _decide(now, past, source), source, NOTHING),
    ]
    amounts = -np.diff([each.iloc[-1] for each in equities])
    found = [
        _fills_apart(book, then, about, state),
        [str(time) for time in state.missed],
        _revisions(seen, source),
        _late(seen, whole),
        _changed(then, now),
    ]
    causes = pd.DataFrame(
        {
            "amount": amounts,
            "count": [len(each) for each in found],
            "detail": ["; ".join(map(str, each[:_NAMED])) for each in found],
        },
        index=pd.Index(CAUSES, name="cause"),
    )
    return Reconciliation(causes, paper, equities[-1].reindex(paper.index).ffill())


def _live(
    strategy: Strategy, about: Mapping, decided: pd.DataFrame, bars: Bars, missed: pd.DatetimeIndex
) -> pd.Series:
    """Return the equity of an account that decides so, on these bars."""
    market = market_of(strategy, bars, pd.DatetimeIndex(decided.index))
    orders = orders_of(strategy, decided, market, missed)
    held = open_account(strategy, about["capital"])
    return trade_on(strategy, held, market, orders, 0).equity


def _decide(strategy: Strategy, past: Bars, since: Bars) -> pd.DataFrame:
    """Decide at all bars since the account began, as a backtest does."""
    bars = _join(past, since)
    weights = decide_span(strategy, bars, strategy.since).weights
    times = sorted(set().union(*(frame.index for frame in since.values())))
    return weights.reindex(pd.DatetimeIndex(times))


def _complete(strategy: Strategy, state: State, past: Bars) -> pd.DataFrame:
    """Fill in what would have been decided at the bars that were missed, on the bars seen."""
    decided = state.decided.copy()
    if len(state.missed):
        again = _decide(strategy, past, state.seen)
        decided.loc[state.missed] = again.reindex(state.missed)
    return decided


def _since(bars: Bars, strategy: Strategy) -> dict[str, pd.DataFrame]:
    return {a: bars[a].loc[strategy.since :] for a in strategy.assets if a in bars}


def _join(past: Bars, since: Bars) -> dict[str, pd.DataFrame]:
    nothing = pd.DataFrame()
    names = dict.fromkeys([*past, *since])
    parts = {a: [past.get(a, nothing), since.get(a, nothing)] for a in names}
    return {
        a: pd.concat([each for each in two if len(each)])
        for a, two in parts.items()
        if any(map(len, two))
    }


def _as_seen(seen: Bars, source: Bars) -> dict[str, pd.DataFrame]:
    """Return the bars that were seen, with the values that they have now; as they were, if gone."""
    found = {}
    for asset, frame in seen.items():
        now = source.get(asset, frame.iloc[:0])
        kept = now.loc[now.index.isin(frame.index)]
        gone = frame.loc[~frame.index.isin(now.index)]
        found[asset] = pd.concat([kept, gone]).sort_index() if len(gone) else kept
    return found


def _union(seen: Bars, source: Bars) -> dict[str, pd.DataFrame]:
    found = {**seen, **source}
    for asset in {*seen} & {*source}:
        found[asset] = source[asset].combine_first(seen[asset])
    return found


def _revisions(seen: Bars, source: Bars) -> list[str]:
    """Name the prices that are not what they were."""
    found = []
    for asset, frame in seen.items():
        now = source.get(asset)
        if now is None:
            continue
        both = frame.index.intersection(now.index)
        for name in _PRICES:
            if name not in frame or name not in now:
                continue
            was, is_ = frame.loc[both, name], now.loc[both, name]
            for time in both[(was != is_) & ~(was.isna() & is_.isna())]:
                found.append(f"{asset} {time}: {name} {was[time]:g}, now {is_[time]:g}")
    return found


def _late(seen: Bars, whole: Bars) -> list[str]:
    """Name the bars that came after their time had passed."""
    return [
        f"{asset} {time}"
        for asset, frame in whole.items()
        for time in frame.index
        if asset not in seen or time not in seen[asset].index
    ]


def _fills_apart(book: Book, strategy: Strategy, about: Mapping, state: State) -> list[str]:
    """Name the fills that are not at the prices of the account's rules."""
    market = market_of(strategy, state.seen, pd.DatetimeIndex(state.decided.index))
    orders = orders_of(strategy, state.decided, market, state.missed)
    ruled = trade_on(strategy, open_account(strategy, about["capital"]), market, orders, 0).fills
    made = book.read("fills").drop(columns="number")
    keys = ["time", "asset", "reason"]
    both = made.merge(ruled, on=keys, how="outer", suffixes=("", " by rule"))
    both["rule"] = both.pop("price by rule")
    apart = both[~np.isclose(both["price"], both["rule"], rtol=1e-12, atol=0)]
    return [
        f"{row['asset']} {row['time']}: at {row['price']:g}, by rule {row['rule']:g}"
        for row in apart.to_dict("records")
    ]


def _changed(then: Strategy, now: Strategy) -> list[str]:
    """Name the settings that have changed."""
    old, new = (each.config.model_dump() for each in (then, now))
    return [
        f"{section}.{key}: {value}, now {new[section][key]}"
        for section, values in old.items()
        if isinstance(values, dict) and section in ("backtest", "target")
        for key, value in values.items()
        if new[section][key] != value
    ]
