"""The whole pipeline on bars that are altered or cut off after a bar, compared up to that bar."""

import numpy as np
import pandas as pd
from helpers import random_market

from maml_jax.backtest.strategy_names import RANDOM
from maml_jax.experiment import Config, load_config
from maml_jax.experiment.evaluation.evaluate import Evaluation, evaluate
from maml_jax.experiment.learning.train import meta_train
from maml_jax.experiment.preparation.prepare import Prepared, prepare

COUNT, TRAIN_LAST, TEST_FIRST = 165, 104, 105
MARKET = random_market(count=COUNT, assets=3)
DATES = next(iter(MARKET.values())).index


def config_for(fill="close", **changes) -> Config:
    settings = {
        "data": {
            "path": "memory",
            "train_assets": ["A0", "A1"],
            "test_assets": ["A0", "A2"],
            "train_end": DATES[TRAIN_LAST].isoformat(),
            "test_start": DATES[TEST_FIRST].isoformat(),
        },
        "features": {"window": 5, "fast": 3, "slow": 5},
        "target": {"fill": fill, "horizon": 3, "volatility_window": 5},
        "task": {"support": 10, "query": 4},
        "model": {"hidden": [8]},
        "learner": {"methods": ["maml"], "inner_steps": 2},
        "training": {"steps": 3, "meta_batch": 4},
        "backtest": {"threshold": 0.0, "bars_per_year": 365, "samples": 20},
        "regimes": {"trend_window": 10, "volatility_window": 5, "history": 20},
    }
    return load_config(settings, changes)


_WHOLE = {}


def pipeline(config: Config, bars) -> tuple[Prepared, Evaluation]:
    prepared = prepare(config, bars)
    trained = {method: meta_train(prepared, method)[0] for method in config.learner.methods}
    return prepared, evaluate(prepared, trained)


def whole(config: Config) -> tuple[Prepared, Evaluation]:
    """Run the pipeline on all bars, once for each of the settings."""
    key = config.to_toml()
    if key not in _WHOLE:
        _WHOLE[key] = pipeline(config, MARKET)
    return _WHOLE[key]


def alter_after(t, seed):
    """Multiply all bars after one by random factors."""
    rng = np.random.default_rng(seed)
    changed = {}
    for asset, bars in MARKET.items():
        factors = np.exp(0.3 * rng.standard_normal((COUNT - t - 1, 1)))
        changed[asset] = bars.copy()
        changed[asset].iloc[t + 1 :] *= factors
    return changed


def cut_off_after(t):
    return {asset: bars.iloc[: t + 1] for asset, bars in MARKET.items()}


def assert_same_up_to(t, config, changed):
    """Compare all that is known at the close of bar t."""
    prepared, evaluation = whole(config)
    other, result = pipeline(config, changed)
    time = DATES[t]
    np.testing.assert_array_equal(prepared.scaler.mean, other.scaler.mean)
    np.testing.assert_array_equal(prepared.scaler.std, other.scaler.std)
    assert prepared.scaler[2:] == other.scaler[2:]
    assert prepared.chain == other.chain
    assert prepared.panel.assets == other.panel.assets
    names = ["features", "valid"]
    for name in names if prepared.panel.regimes is None else [*names, "regimes"]:
        a, b = (np.asarray(getattr(p.panel, name))[:, : t + 1] for p in (prepared, other))
        np.testing.assert_array_equal(a, b, err_msg=name)

    def known(table):
        table = table[table["timestamp"] <= time].reset_index(drop=True)
        return table[["timestamp", "asset", "strategy", "prediction", "position"]]

    before, after = known(evaluation.predictions), known(result.predictions)
    assert len(before) > 0
    pd.testing.assert_frame_equal(before, after, rtol=1e-5, atol=1e-6)
    for name in ("returns", "gross"):
        # Positions at random times are those of other bars, later ones too.
        a, b = (
            getattr(e, name).loc[:time].drop(columns=RANDOM, errors="ignore")
            for e in (evaluation, result)
        )
        pd.testing.assert_frame_equal(a, b, rtol=1e-5, atol=1e-7)
