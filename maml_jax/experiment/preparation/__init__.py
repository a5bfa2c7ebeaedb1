"""From bars to a panel: spans, features, targets, regimes."""

__all__ = ["bars", "prepare", "regimes", "requirements", "series", "spans", "tradable", "usable"]
