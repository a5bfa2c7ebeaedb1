"""Markets that are simulated, whose truth is therefore known. Numpy and pandas only."""

from maml_jax.data.synthetic.known_answer import known_answer_bars, known_answer_oracle
from maml_jax.data.synthetic.market import Market, Simulated
from maml_jax.data.synthetic.regimes import REGIMES, Regime, regime_bars, stationary_distribution
from maml_jax.data.synthetic.walks import garch_bars, random_walk_bars, trend_bars

__all__ = [
    "Market",
    "REGIMES",
    "Regime",
    "Simulated",
    "garch_bars",
    "known_answer_bars",
    "known_answer_oracle",
    "random_walk_bars",
    "regime_bars",
    "stationary_distribution",
    "trend_bars",
]
