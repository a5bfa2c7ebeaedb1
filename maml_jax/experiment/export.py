"""What a run found, in the forms that other tools take."""

from typing import Any

import numpy as np
import pandas as pd

from maml_jax.backtest.metrics import drawdown, equity_curve
from maml_jax.backtest.strategy_names import BUY_AND_HOLD
from maml_jax.errors import ConfigError, RunError
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.evaluation.evaluate import Evaluation

_NAMES = (
    "Start", "End", "Duration", "Exposure Time [%]", "Equity Final [$]", "Equity Peak [$]",
    "Commissions [$]", "Return [%]", "Buy & Hold Return [%]", "Return (Ann.) [%]",
    "Volatility (Ann.) [%]", "CAGR [%]", "Sharpe Ratio", "Sortino Ratio", "Calmar Ratio",
    "Alpha [%]", "Beta", "Max. Drawdown [%]", "Avg. Drawdown [%]", "Max. Drawdown Duration",
    "Avg. Drawdown Duration", "# Trades", "Win Rate [%]", "Best Trade [%]", "Worst Trade [%]",
    "Avg. Trade [%]", "Max. Trade Duration", "Avg. Trade Duration", "Profit Factor",
    "Expectancy [%]", "SQN", "Kelly Criterion",
)  # fmt: skip


def orders(config: Config, evaluation: Evaluation, strategy: str | None = None) -> pd.DataFrame:
    """Return what one strategy orders: the share of the equity that each asset is to have.

    It stands at the bar that executes it, at its open or close as `target.fill` says; the decision
    was taken at the close of a bar before, but for the fill "close". vectorbt takes it as `size` of
    `Portfolio.from_orders(..., size_type="targetpercent")`.

    Args:
        config: the settings of a run.
        evaluation: its tables.
        strategy: default the first method.

    Returns:
        `[time, asset]`; NaN where there is nothing to do: no bar, or, unless the run rebalances at
        every bar, the same as was wanted before.

    Raises:
        ConfigError: if there is no such strategy.
        RunError: if the run directory was written without weights.
    """
    table = _weights(evaluation, strategy, "order")
    if config.backtest.rebalance == "always":
        return table
    before = table.ffill().shift(1).fillna(0.0)
    return table.where(table != before)


def weights(evaluation: Evaluation, strategy: str | None = None) -> pd.DataFrame:
    """Return what one strategy held at each close, as signed shares of the equity, `[time, asset]`.

    Args:
        evaluation: tables of a run.
        strategy: default the first method.

    Raises:
        ConfigError: if there is no such strategy.
        RunError: if the run directory was written without weights.
    """
    return _weights(evaluation, strategy, "weight")


def to_stats(config: Config, evaluation: Evaluation, strategy: str | None = None) -> pd.Series:
    """Return the figures of one strategy under the names of backtesting.py's `stats`, in its order.

    Figures are ours: ratios are of arithmetic means, alpha is annual. NaN where the run does not
    tell one. The last three entries are what its tools look for: `_strategy` (the name),
    `_equity_curve` (`Equity`, `DrawdownPct` as a share, `DrawdownDuration` at the end of each fall)
    and `_trades` (`Size` is the side, `PnL` the money after costs, `ReturnPct` a share of the
    equity at entry).

    Args:
        config: the settings of a run.
        evaluation: its tables.
        strategy: default the first method.

    Raises:
        ConfigError: if there is no such strategy.
    """
    name = _choose_strategy(evaluation, strategy)
    stats: dict[Any, Any] = evaluation.stats[name].to_dict()
    held: Any = evaluation.stats.get(BUY_AND_HOLD)
    made = evaluation.trades[evaluation.trades["strategy"] == name].reset_index(drop=True)
    stats["Return (Ann.) [%]"] = stats.get("CAGR [%]", np.nan)
    if held is not None:
        stats.setdefault("Buy & Hold Return [%]", held["Return [%]"])
    if "cost" in made:
        stats.setdefault("Commissions [$]", float(made["cost"].sum()))
    found: dict[str, Any] = {key: stats.get(key, np.nan) for key in _NAMES}
    found["_strategy"] = _Strategy(name)
    found["_equity_curve"] = _equity_curve(evaluation.returns[name], config.backtest.capital)
    found["_trades"] = _trades(made, pd.DatetimeIndex(evaluation.returns.index))
    return pd.Series(found, dtype=object)


class _Strategy(str):
    """The name of a strategy; backtesting.py looks for indicators among its attributes."""


def _choose_strategy(evaluation: Evaluation, strategy: str | None) -> str:
    names = list(evaluation.stats.columns)
    name = names[0] if strategy is None else strategy
    if name not in names:
        raise ConfigError(f"no strategy {name!r} in this run; there are {names}")
    return name


def _weights(evaluation: Evaluation, strategy: str | None, column: str) -> pd.DataFrame:
    name = _choose_strategy(evaluation, strategy)
    table = evaluation.weights
    if table.empty:
        raise RunError("this run directory was written without weights; backtest it again")
    own = table[table["strategy"] == name]
    wide = own.pivot_table(column, "timestamp", "asset", dropna=False, sort=False, observed=True)
    return wide.reindex(evaluation.returns.index).rename_axis(columns=None)


def _equity_curve(returns: pd.Series, capital: float) -> pd.DataFrame:
    falls = abs(drawdown(returns))
    time = returns.index.to_series()
    whole = pd.Series(falls == 0, returns.index)
    since = time.where(whole).ffill().shift(1).fillna(time.iloc[0])
    # Counted once, where the equity is whole again, and at the last bar.
    ends = (whole | (time == time.iloc[-1])) & ~whole.shift(1, fill_value=True)
    return pd.DataFrame(
        {
            "Equity": capital * equity_curve(returns),
            "DrawdownPct": falls,
            "DrawdownDuration": (time - since).where(ends),
        },
        index=returns.index,
    )


def _trades(made: pd.DataFrame, index: pd.DatetimeIndex) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "Size": made["side"].astype(int),
            "EntryBar": index.get_indexer(pd.DatetimeIndex(made["entry"]), method="ffill"),
            "ExitBar": index.get_indexer(pd.DatetimeIndex(made["exit"]), method="ffill"),
            "ReturnPct": made["net"].astype("float64"),
            "EntryTime": made["entry"],
            "ExitTime": made["exit"],
            "Asset": made["asset"],
        }
    )
    table["Duration"] = table["ExitTime"] - table["EntryTime"]
    if {"result", "cost"} <= {*made.columns}:
        table["PnL"] = made["result"] - made["cost"]
        table["Commission"] = made["cost"]
    if "reason" in made:
        table["Tag"] = made["reason"]
    return table
