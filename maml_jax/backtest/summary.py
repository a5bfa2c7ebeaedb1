"""The table that people paste: one column of named figures per strategy."""

from typing import Any, Protocol

import numpy as np
import pandas as pd

from maml_jax.backtest import metrics
from maml_jax.backtest.inference.significance import probabilistic_sharpe
from maml_jax.backtest.period_tables import spells


class Result(Protocol):
    """What became of a strategy, such as an `Account`."""

    @property
    def net(self) -> pd.Series:
        """Return per bar after costs."""
        ...

    @property
    def gross(self) -> pd.Series:
        """Return per bar before costs."""
        ...

    @property
    def turnover(self) -> pd.Series:
        """Value traded per bar, as share of the equity."""
        ...


def summarise(
    result: Result,
    weights: pd.DataFrame,
    trades: pd.DataFrame,
    *,
    bars_per_year: float,
    capital: float = 10_000.0,
    benchmark: pd.Series | None = None,
) -> pd.Series:
    """Return the figures of one strategy, all of net returns unless the name says otherwise.

    Names follow the `stats` Series of backtesting.py where it has them. Shares and rates are in per
    cent where the name ends in [%]. What the data do not determine is NaN or NaT.

    Args:
        result: returns and turnover of the strategy, such as an `Account`.
        weights: what it held, `[time, asset]`.
        trades: one row per trade, as those of an `Account`.
        bars_per_year: for everything annualised.
        capital: starting equity, in the money of the account.
        benchmark: net returns of buying and holding at the same bars, to which alpha (per year) and
            beta refer; without it they are NaN.
    """
    terms = {"bars_per_year": bars_per_year, "capital": capital, "benchmark": benchmark}
    return pd.Series(compute_figures(result, weights, trades, **terms))


def compute_figures(
    result: Result,
    weights: pd.DataFrame,
    trades: pd.DataFrame,
    *,
    bars_per_year: float,
    capital: float,
    benchmark: pd.Series | None,
) -> dict[str, Any]:
    """Return what `summarise` does as a dict, which is made in half of the time."""
    index = pd.DatetimeIndex(result.net.index)
    series = (result.net, result.gross, result.turnover)
    net, gross, turnover = (each.to_numpy(float) for each in series)
    equity = capital * metrics.equity_curve(net)
    depth, lengths = _drawdowns(net, index)
    held = np.nansum(np.abs(weights.to_numpy(float)), axis=1)
    market = np.full(len(net), np.nan)
    if benchmark is not None:
        market = benchmark.reindex(index).to_numpy(float)
    return {
        "Start": index[0],
        "End": index[-1],
        "Duration": index[-1] - index[0],
        "Bars per Year": bars_per_year,
        "Exposure Time [%]": 100 * (held > 0).mean(),
        "Avg. Exposure [%]": 100 * held.mean(),
        "Equity Final [$]": equity[-1],
        "Equity Peak [$]": max(equity.max(), capital),
        "Return [%]": 100 * metrics.total_return(net),
        "Gross Return [%]": 100 * metrics.total_return(gross),
        "Buy & Hold Return [%]": 100 * metrics.total_return(market),
        "CAGR [%]": 100 * metrics.cagr(net, bars_per_year),
        "Volatility (Ann.) [%]": 100 * metrics.annual_volatility(net, bars_per_year),
        "Sharpe Ratio": metrics.sharpe_ratio(net, bars_per_year),
        "Gross Sharpe Ratio": metrics.sharpe_ratio(gross, bars_per_year),
        "Probabilistic Sharpe [%]": 100 * probabilistic_sharpe(net),
        "Sortino Ratio": metrics.sortino_ratio(net, bars_per_year),
        "Calmar Ratio": metrics.calmar_ratio(net, bars_per_year),
        "Omega Ratio": metrics.omega_ratio(net),
        "Tail Ratio": metrics.tail_ratio(net),
        "Alpha [%]": 100 * metrics.alpha(net, market, bars_per_year),
        "Beta": metrics.beta(net, market),
        "Max. Drawdown [%]": 100 * metrics.max_drawdown(net),
        "Avg. Drawdown [%]": depth.mean() if len(depth) else np.nan,
        "Max. Drawdown Duration": lengths.max() if len(depth) else pd.Timedelta(0),
        "Avg. Drawdown Duration": lengths.mean(),
        "VaR 5 % [%]": 100 * metrics.value_at_risk(net),
        "CVaR 5 % [%]": 100 * metrics.conditional_value_at_risk(net),
        "Turnover (Ann.)": metrics.annual_turnover(turnover, bars_per_year),
        "Costs (Ann.) [%]": 100 * (gross - net).mean() * bars_per_year,
        "Break-Even Cost [bp]": metrics.break_even_cost(gross, turnover),
        "Win Rate (Bars) [%]": 100 * metrics.win_rate(net),
        "Profit Factor (Bars)": metrics.profit_factor(net),
        **_trade_figures(trades),
    }


def _trade_figures(trades: pd.DataFrame) -> dict[str, Any]:
    """Return the figures of trades."""
    closed = trades["net"].to_numpy(float) if len(trades) else np.array([])
    lasted = pd.to_timedelta(trades["exit"] - trades["entry"]) if len(trades) else None
    return {
        "# Trades": len(trades),
        "Win Rate [%]": 100 * metrics.win_rate(closed),
        "Profit Factor": metrics.profit_factor(closed),
        "Best Trade [%]": 100 * closed.max() if len(closed) else np.nan,
        "Worst Trade [%]": 100 * closed.min() if len(closed) else np.nan,
        "Avg. Trade [%]": 100 * metrics.geometric_mean(closed),
        "Max. Trade Duration": pd.NaT if lasted is None else lasted.max(),
        "Avg. Trade Duration": pd.NaT if lasted is None else lasted.mean(),
        "Expectancy [%]": 100 * closed.mean() if len(closed) else np.nan,
        "SQN": metrics.system_quality(closed),
        "Kelly Criterion": metrics.kelly_criterion(closed),
    }


def _drawdowns(net: np.ndarray, index: pd.DatetimeIndex) -> tuple[np.ndarray, pd.TimedeltaIndex]:
    """Return the depth in per cent and the duration of each drawdown, as `drawdowns` does."""
    below = metrics.drawdown(net)
    first, after = spells(below)
    ends = index[np.minimum(after, len(index) - 1)]
    # Bars at a peak come in between, so the least from the start of a drawdown on is its own.
    depth = np.minimum.reduceat(below, first) if len(first) else below[:0]
    return 100 * depth, pd.TimedeltaIndex(ends - index[np.maximum(first - 1, 0)])


def skill(predictions: pd.DataFrame, outcomes: pd.DataFrame) -> pd.Series:
    """Measure how predictions agree with outcomes: over all rows, and by date across assets.

    Args:
        predictions: `[time, asset]`, NaN where there is none.
        outcomes: the target at the same bars, NaN where it is not known.
    """
    return pd.Series(compute_skill(predictions, outcomes))


def compute_skill(predictions: pd.DataFrame, outcomes: pd.DataFrame) -> dict[str, float]:
    """Return what `skill` does as a dict."""
    ic = metrics.information_coefficient(predictions, outcomes)
    rank_ic = metrics.information_coefficient(predictions, outcomes, rank=True)
    spread = ic.std(ddof=1) if len(ic) > 1 else np.nan
    return {
        "Correlation": metrics.pooled_correlation(predictions, outcomes),
        "IC": ic.mean() if len(ic) else np.nan,
        "Rank IC": rank_ic.mean() if len(rank_ic) else np.nan,
        "ICIR": ic.mean() / spread if spread > 0 else np.nan,
        "Hit Rate [%]": 100 * metrics.hit_rate(predictions, outcomes),
    }
