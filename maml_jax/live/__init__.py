"""A trained run, bar by bar: what to hold now, a paper account, orders to a broker."""

from maml_jax.live.latest import signal

__all__ = ["signal"]
