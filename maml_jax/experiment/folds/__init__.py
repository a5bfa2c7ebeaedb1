"""Several training and test spans in one run."""

__all__ = ["evaluate", "plan", "prepare"]
