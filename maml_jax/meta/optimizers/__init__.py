"""Inner optimizers of which parts are meta-learned."""

__all__ = ["conditioned_rates", "learned_rates"]
