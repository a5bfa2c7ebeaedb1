"""Figures of strategies in each regime of the market."""

import numpy as np
import pandas as pd

from maml_jax.backtest import metrics
from maml_jax.features.signals.regimes import REGIMES

UNKNOWN_NAME = "unknown"


def summarise_by_regime(
    net: pd.DataFrame, regimes: pd.Series, bars_per_year: float
) -> pd.DataFrame:
    """Return figures of the bars of each regime.

    Args:
        net: net simple returns per bar, `[time, strategy]`.
        regimes: indices in `REGIMES` on the same index, known when what earns the bar's return
            was decided; -1 where there is none.
        bars_per_year: for everything annualised.

    Returns:
        One row per strategy and regime that occurs, in the order of `REGIMES`: `strategy`,
        `regime`, `bars`, `Share of Bars [%]`, `Mean Return (Ann.) [%]`, `Volatility (Ann.) [%]`,
        `Sharpe Ratio`, `Return [%]` (compounded over its bars).
    """
    names = (*REGIMES, UNKNOWN_NAME)
    of_bar = regimes.to_numpy()
    of_bar = np.where(of_bar < 0, len(REGIMES), of_bar)
    rows = []
    for strategy in net.columns:
        for number in np.unique(of_bar):
            r = net[strategy].to_numpy(float)[of_bar == number]
            rows.append(
                {
                    "strategy": strategy,
                    "regime": names[number],
                    "bars": len(r),
                    "Share of Bars [%]": 100 * len(r) / len(net),
                    "Mean Return (Ann.) [%]": 100 * r.mean() * bars_per_year,
                    "Volatility (Ann.) [%]": 100 * metrics.annual_volatility(r, bars_per_year),
                    "Sharpe Ratio": metrics.sharpe_ratio(r, bars_per_year),
                    "Return [%]": 100 * metrics.total_return(r),
                }
            )
    return pd.DataFrame(rows)
