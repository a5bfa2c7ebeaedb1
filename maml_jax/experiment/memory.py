"""How much memory a run will take, said before it trains."""

import logging

from maml_jax.experiment.config.config import Config
from maml_jax.experiment.folds.prepare import Folds
from maml_jax.parallel.machine import memory, resident_memory

_log = logging.getLogger("maml_jax")

# Bytes, measured on whole runs of 75 to 1,000 assets and of 25,000 to 200,000 bars.
_PROGRAMS = 350e6
"""Of compiled programs, and of libraries that are loaded on the way."""

_METHOD = 100e6
"""Of the programs of one method."""

_SCAN = 400e6
"""Of a scan over bars, with what is made of what it keeps."""

_ROW = 150
"""Of a bar of an asset, beside its features: labels, places, pools."""

_TESTED = 240
"""Of a tested bar of an asset and strategy: predictions, orders, weights and trades."""


def say_memory(folds: Folds) -> int:
    """Log how much memory a run will take, as a warning where the machine does not have it.

    Args:
        folds: as they were prepared.

    Returns:
        The estimate in bytes, good to a third or so.
    """
    need, present = estimate(folds), memory()
    if need <= present:
        _log.info("memory: about %.1f GB at the most, of %.1f GB", need / 1e9, present / 1e9)
        return need
    joined = folds.joined
    bars = joined.test_last - joined.test_first + 1
    _log.warning(
        "this run needs about %.1f GB of memory and there are %.1f GB, so it may be ended by the "
        "system: it tests %d strategies on %d assets x %d bars; test fewer assets "
        "(data.test_assets), a shorter span (data.test_start, data.test_end), fewer methods "
        "(learner.methods) or baselines (backtest.baselines)",
        *(need / 1e9, present / 1e9, _strategies(folds.config), len(joined.test_assets), bars),
    )
    return need


def estimate(folds: Folds) -> int:
    """Estimate the most memory that training and testing will hold at one time, in bytes."""
    config, joined = folds.config, folds.joined
    assets, bars, features = joined.panel.features.shape
    # Tables for the device, with room to spare, on every device.
    rows = len(folds.parts) * assets * bars * (_ROW + 4 * 3 * features)
    tested = len(joined.test_assets) * (joined.test_last - joined.test_first + 1)
    results = _strategies(config) * tested * _TESTED
    scan = min(_SCAN, _strategies(config) * tested * _TESTED)
    programs = _PROGRAMS + _METHOD * len(config.learner.methods)
    return int(resident_memory() + programs + rows + results + scan)


def _strategies(config: Config) -> int:
    """Count strategies: methods, their variants, baselines, and those that stand in every run."""
    named = len(config.learner.methods) + len(config.online.variants)
    return named + len(config.backtest.baselines) + 3
