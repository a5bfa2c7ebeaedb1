"""Bars kept on disk, and fetched when they are missing."""

__all__ = ["fetch", "series_files", "store"]
