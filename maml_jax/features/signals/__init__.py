"""Regimes of a market, and the sides that trading rules take."""

__all__ = ["markov", "regimes", "strategies"]
