"""Adapt and predict bar by bar, from the past alone."""

__all__ = ["folds", "growing", "online", "rolling", "supports"]
