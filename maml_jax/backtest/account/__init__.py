"""Orders, fills, costs and the money that is left."""

__all__ = ["account", "execution", "many", "orders", "scan", "state", "trades"]
