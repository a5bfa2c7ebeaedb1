"""Plots, each made from a table."""

__all__ = ["comparisons", "forecasts", "returns", "style", "trading"]
