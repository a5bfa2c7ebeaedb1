"""The table that people paste: one column of named figures per strategy."""

import numpy as np
import pandas as pd

from maml_jax.backtest import metrics
from maml_jax.backtest.simulate import Simulation
from maml_jax.backtest.statistics import probabilistic_sharpe


def summarise(
    simulation: Simulation,
    weights: pd.DataFrame,
    trades: pd.DataFrame,
    *,
    bars_per_year: float,
    capital: float = 10_000.0,
) -> pd.Series:
    """Return the figures of one strategy, all of net returns unless the name says otherwise.

    Names follow the `stats` Series of backtesting.py where it has them. Shares and rates are in per
    cent where the name ends in [%].

    Args:
        simulation: what the strategy earned.
        weights: what it held, `[time, asset]`.
        trades: as `list_trades` returns them.
        bars_per_year: for everything annualised.
        capital: starting equity, in the money of the account.
    """
    net, gross = simulation.net, simulation.gross
    equity = capital * pd.Series(metrics.equity_curve(net), index=net.index)
    falls = pd.Series(metrics.drawdown(net), index=net.index)
    closed = trades["net"].to_numpy(float) if len(trades) else np.array([])
    return pd.Series(
        {
            "Start": net.index[0],
            "End": net.index[-1],
            "Duration": net.index[-1] - net.index[0],
            "Bars per Year": bars_per_year,
            "Exposure Time [%]": 100 * (weights.abs().sum(axis=1) > 0).mean(),
            "Equity Final [$]": equity.iloc[-1],
            "Equity Peak [$]": max(equity.max(), capital),
            "Return [%]": 100 * metrics.total_return(net),
            "Gross Return [%]": 100 * metrics.total_return(gross),
            "CAGR [%]": 100 * metrics.cagr(net, bars_per_year),
            "Volatility (Ann.) [%]": 100 * metrics.annual_volatility(net, bars_per_year),
            "Sharpe Ratio": metrics.sharpe_ratio(net, bars_per_year),
            "Gross Sharpe Ratio": metrics.sharpe_ratio(gross, bars_per_year),
            "Probabilistic Sharpe [%]": 100 * probabilistic_sharpe(net),
            "Sortino Ratio": metrics.sortino_ratio(net, bars_per_year),
            "Calmar Ratio": metrics.calmar_ratio(net, bars_per_year),
            "Omega Ratio": metrics.omega_ratio(net),
            "Tail Ratio": metrics.tail_ratio(net),
            "Max. Drawdown [%]": 100 * metrics.max_drawdown(net),
            "Max. Drawdown Duration": _longest_drawdown(falls),
            "VaR 5 % [%]": 100 * metrics.value_at_risk(net),
            "CVaR 5 % [%]": 100 * metrics.conditional_value_at_risk(net),
            "Turnover (Ann.)": metrics.annual_turnover(simulation.turnover, bars_per_year),
            "Win Rate (Bars) [%]": 100 * metrics.win_rate(net),
            "Profit Factor (Bars)": metrics.profit_factor(net),
            "# Trades": len(trades),
            "Win Rate [%]": 100 * metrics.win_rate(closed),
            "Profit Factor": metrics.profit_factor(closed),
            "Best Trade [%]": 100 * closed.max() if len(closed) else np.nan,
            "Worst Trade [%]": 100 * closed.min() if len(closed) else np.nan,
            "Avg. Trade [%]": 100 * closed.mean() if len(closed) else np.nan,
        }
    )


def skill(predictions: pd.DataFrame, outcomes: pd.DataFrame) -> pd.Series:
    """Return how predictions agree with what came: correlations over all rows and by date.

    Args:
        predictions: `[time, asset]`, NaN where there is none.
        outcomes: the target at the same bars, NaN where it is not known.
    """
    ic = metrics.information_coefficient(predictions, outcomes)
    rank_ic = metrics.information_coefficient(predictions, outcomes, rank=True)
    spread = ic.std(ddof=1) if len(ic) > 1 else np.nan
    return pd.Series(
        {
            "Correlation": metrics.pooled_correlation(predictions, outcomes),
            "IC": ic.mean() if len(ic) else np.nan,
            "Rank IC": rank_ic.mean() if len(rank_ic) else np.nan,
            "ICIR": ic.mean() / spread if spread > 0 else np.nan,
        }
    )


def _longest_drawdown(falls: pd.Series) -> pd.Timedelta:
    """Longest time from a maximum of the equity to its recovery, or to the end."""
    time = falls.index.to_series()
    since = time.where(falls >= 0).ffill().fillna(time.iloc[0])
    return (time - since).max()
