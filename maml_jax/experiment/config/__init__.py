"""Settings: their fields, defaults and files."""

__all__ = ["backtest", "config", "fields", "folds", "learning", "loading", "messages"]
