"""How to differentiate through the inner loop, one value a mode."""

__all__ = ["implicit", "mixed_mode", "modes"]
