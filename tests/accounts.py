"""Markets and orders that accounts are tested on."""

import numpy as np
import pandas as pd

from maml_jax.backtest import Execution, Market, trade

FREE = Execution(fee=0.0, slippage=0.0)
COSTS = Execution(fee=0.001, slippage=0.0005)
CAPITAL = 10_000.0


def account(orders, market, fill="next_close", execution=FREE, **options):
    options = {"capital": CAPITAL} | options
    return trade(orders, market, fill=fill, execution=execution, **options)


def market_of(closes):
    """A market of closes alone; one column per asset."""
    closes = np.asarray(closes, float)
    closes = closes[:, None] if closes.ndim == 1 else closes
    index = pd.date_range("2024-01-01", periods=len(closes), tz="UTC", name="timestamp")
    names = list("ABCDEFGH")[: closes.shape[1]]
    close = pd.DataFrame(closes, index, names)
    return Market(close * np.nan, close * np.nan, close * np.nan, close)


def orders_of(values, market):
    values = np.asarray(values, float)
    return pd.DataFrame(
        values.reshape(market.close.shape), market.close.index, market.close.columns
    )
