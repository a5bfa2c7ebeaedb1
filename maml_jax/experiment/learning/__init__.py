"""Tasks of a market, the methods that learn them, and checkpoints."""

__all__ = ["adapt", "checkpoint", "methods", "step_errors", "tasks", "train"]
