"""Forecasts and positions that a learner has to beat."""

__all__ = ["ridge", "simple", "volatility"]
