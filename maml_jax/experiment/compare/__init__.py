"""Several runs side by side."""

__all__ = ["compare", "page"]
