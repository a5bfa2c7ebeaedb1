"""Sections of a page, each made from the tables of a run."""

__all__ = ["assets", "forecasts", "overfitting", "returns"]
