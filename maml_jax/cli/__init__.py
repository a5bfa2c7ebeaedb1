"""The command line: parse, call `maml_jax.experiment`, print."""

__all__ = ["adapt", "data", "fetch", "lookahead", "main", "report", "tables", "trust"]
