"""What must be there for the settings of the backtest, said before anything is trained."""

from collections.abc import Mapping, Sequence

import pandas as pd

from maml_jax.backtest.baselines.simple import require_trees
from maml_jax.errors import ConfigError
from maml_jax.experiment.config.config import Config


def require_tradable(
    config: Config, bars: Mapping[str, pd.DataFrame], assets: Sequence[str]
) -> None:
    """Refuse what cannot be traded, or stood beside, as the settings ask.

    Args:
        config: the settings.
        bars: in normal form.
        assets: names of the assets that are walked forward on.

    Raises:
        ConfigError: if one asset alone is to be neutral; if stops, or slippage by the range of a
            bar, are asked of bars without high and low; if trees are asked for and scikit-learn is
            not installed.
    """
    settings = config.backtest
    if settings.sides == "market_neutral" and len(assets) < 2:
        raise ConfigError(
            f"key 'backtest.sides': \"market_neutral\" takes at least 2 assets, and "
            f'{", ".join(assets)} is tested alone; use "long_short" or "long_only"'
        )
    for asset in assets if settings.stops() else ():
        missing = [
            name
            for name in ("high", "low")
            if name not in bars[asset] or bars[asset][name].isna().all()
        ]
        if missing:
            raise ConfigError(
                f"key 'backtest.{settings.stops()[0]}': it is looked for within bars, and {asset} "
                f"has only {list(bars[asset].columns)}, without {' and '.join(missing)}; set it to "
                '"none" (range_slippage to 0) or bring whole bars'
            )
    if "trees" in settings.baselines:
        require_trees()
