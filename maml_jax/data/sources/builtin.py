"""Real history that comes with a dependency, so that everything can be tried offline."""

from importlib import import_module

import pandas as pd

from maml_jax.data.bars import to_bars

SOURCES = {"SP500": "sp500", "NASDAQ": "nasdaq", "WTI": "wti"}


def builtin_bars() -> dict[str, pd.DataFrame]:
    """Return daily bars of the S&P 500, the NASDAQ composite (OHLCV) and WTI crude oil (close).

    1999 to 2018, from the data sets of the `arch` package (NCSA licence). Days on which oil has no
    quotation are absent from its series.

    >>> {name: len(bars) for name, bars in builtin_bars().items()}
    {'SP500': 5031, 'NASDAQ': 5031, 'WTI': 5020}
    """
    result = {}
    for symbol, module in SOURCES.items():
        table = import_module(f"arch.data.{module}").load().loc["1999":"2018"]
        table = table.rename(columns={"DCOILWTICO": "close"}).dropna()
        result |= to_bars(table, source=f"arch.data.{module}", symbol=symbol)
    return result
