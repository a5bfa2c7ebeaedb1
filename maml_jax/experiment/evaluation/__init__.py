"""From predictions to decisions, accounts, figures and a verdict."""

__all__ = [
    "accounts",
    "baselines",
    "decisions",
    "evaluate",
    "forecasts",
    "inference",
    "long_tables",
    "predicted",
    "trials",
    "verdict",
]
