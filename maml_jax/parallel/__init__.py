"""Many calls of a pure function on many devices; it knows nothing of meta-learning."""

from maml_jax.parallel.map import average_tasks, map_tasks

__all__ = ["average_tasks", "map_tasks"]
