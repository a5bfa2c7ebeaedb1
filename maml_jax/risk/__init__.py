"""Risk of an asset from its first bars on.

The package is a function as well: `maml_jax.risk(bars)` is `maml_jax.risk.forecast_risk(bars)`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

__all__ = ["forecast_risk"]


def forecast_risk(
    bars: pd.DataFrame | Mapping[str, pd.DataFrame] | str | Path,
    *,
    horizon: int | None = None,
    levels: Sequence[float] = (0.01, 0.05),
    target_volatility: float = 0.15,
    capital: float | None = None,
    model: Any = None,
    side: str = "long",
):
    """Forecast the risk of assets over the bars to come, from two bars of each on.

    No training and no settings: weights that ship were meta-learned on assets whose histories were
    cut at random, and adapt to the rows of each asset that there are.

    Args:
        bars: a DataFrame in any layout that `maml_jax.data.to_bars` reads, `{asset: DataFrame}`, or
            a path: a file or `store:...`.
        horizon: bars ahead; default 5 of days, 24 of hours.
        levels: of VaR and ES, as shares: 0.05 is 5 %.
        target_volatility: a year, as a share, that `weight` is sized for.
        capital: adds `position`, the weight in money.
        model: name of weights that ship, a folder of others, or a run directory whose target is a
            volatility; default by the length of the bars.
        side: `long` or `short`: which way the price moves when money is lost.

    Returns:
        A `RiskTable`: one row an asset, in per cent but for `age` (bars), `weight` and `position`;
        with `.plot()` and `.to_page(path)`.

    Raises:
        ConfigError: if a setting is impossible, or no weights know such bars.
        DataError: if bars cannot be read, or nothing can be known of any asset's risk.

    Reference:
        Harrison, Sharma, Pavone (2018), arXiv:1807.08912; Gibbs, Candes (2021), arXiv:2106.00170.
    """
    from maml_jax.risk.reading import read_frames
    from maml_jax.risk.table import risk_table

    return risk_table(
        read_frames(bars),
        horizon=horizon,
        levels=levels,
        target_volatility=target_volatility,
        capital=capital,
        model=model,
        side=side,
    )


class _Package(ModuleType):
    def __call__(self, *arguments: Any, **options: Any):
        return forecast_risk(*arguments, **options)


sys.modules[__name__].__class__ = _Package
