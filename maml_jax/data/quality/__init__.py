"""What is wrong with bars, and what to do about it."""

__all__ = ["checks", "cleaning", "trading_hours"]
