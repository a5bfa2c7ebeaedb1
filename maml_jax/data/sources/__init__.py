"""Where bars come from: exchanges, archives, vendors, and the bars that ship."""

__all__ = ["binance", "builtin", "bybit", "http", "source", "yahoo"]
