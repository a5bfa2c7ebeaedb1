"""Markets that are simulated, whose truth is therefore known. Numpy and pandas only."""

from .known_answer import known_answer_bars as known_answer_bars
from .known_answer import known_answer_oracle as known_answer_oracle
from .market import Market as Market
from .market import Simulated as Simulated
from .regimes import REGIMES as REGIMES
from .regimes import Regime as Regime
from .regimes import regime_bars as regime_bars
from .regimes import stationary_distribution as stationary_distribution
from .walks import garch_bars as garch_bars
from .walks import random_walk_bars as random_walk_bars
from .walks import trend_bars as trend_bars
