"""From bars to a panel: spans, features, targets, regimes."""

__all__ = ["bars", "feature_tables", "prepare", "regimes", "requirements", "series", "spans"]
