"""Orders, fills, costs and the money that is left."""

from maml_jax.backtest.account.account import Account, trade, trade_all, trade_alone
from maml_jax.backtest.account.execution import Execution
from maml_jax.backtest.account.many import Totals, trade_many
from maml_jax.backtest.account.orders import Market, has_ended, make_market, place_orders

__all__ = [
    "Account",
    "Execution",
    "Market",
    "Totals",
    "has_ended",
    "make_market",
    "place_orders",
    "trade",
    "trade_all",
    "trade_alone",
    "trade_many",
]
