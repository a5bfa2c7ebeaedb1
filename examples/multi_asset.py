"""Meta-train on two stock indices, then adapt to an asset that was never seen: crude oil.

Prints the mean squared error on the bars that follow 20 labelled bars, before adapting and after 1
to 5 gradient steps, from the meta-learned start and from a random one. The target is the return of
the next 5 days in units of trailing volatility; the error of predicting 0 stands beside.

    python examples/multi_asset.py [--steps META_STEPS]
"""

import argparse

import jax
import jax.numpy as jnp
import optax
import pandas as pd

from maml_jax import fit, maml
from maml_jax.data import builtin_bars
from maml_jax.features import Target, compute_features, fit_scaler, technical_features
from maml_jax.meta import mean_squared_error
from maml_jax.models import mlp
from maml_jax.parallel import map_tasks
from maml_jax.tasks import asset_family, make_panel, market_sampler

TRAIN, UNSEEN = ["SP500", "NASDAQ"], "WTI"
TRAIN_END = pd.Timestamp("2009-12-31", tz="UTC")
SUPPORT, QUERY = 20, 10


def main(steps: int) -> pd.DataFrame:
    # Bars -> features, standardised on the meta-training span alone -> arrays.
    bars = builtin_bars()
    features = [f for f in technical_features().values() if f.columns == ("close",)]
    tables = {asset: compute_features(frame, features) for asset, frame in bars.items()}
    scaler = fit_scaler(tables[asset].loc[:TRAIN_END] for asset in TRAIN)
    scaled = {asset: scaler.transform(table) for asset, table in tables.items()}
    panel = make_panel(bars, scaled, Target(horizon=5, fill="next_close"))
    train_end = int(panel.timestamps.searchsorted(TRAIN_END, side="right"))

    # Meta-train.
    learner = maml(mlp((64, 64, 1)), inner_optimizer=optax.sgd(0.005), inner_steps=5)
    windows = asset_family(panel, support=SUPPORT, query=QUERY, assets=TRAIN, last=train_end - 1)
    sampler = market_sampler(panel, windows, meta_batch=32)
    state, history = fit(learner, optax.adam(1e-3), sampler, jax.random.key(0), steps=steps)
    first, last = history.loss[:20].mean(), history.loss[-20:].mean()
    print(f"meta-training: query loss {first:.3f} -> {last:.3f}")

    # Adapt to every window of the unseen asset after the meta-training span.
    windows = asset_family(panel, support=SUPPORT, query=QUERY, assets=[UNSEEN], first=train_end)
    unseen = market_sampler(panel, windows, meta_batch=1)
    untrained = learner.init(jax.random.key(1), panel.features[0, :1])

    def query_error(start, inner_steps):
        def one(window):
            task = unseen.task(window)
            adapted = learner.adapt(start, task.support, steps=inner_steps)
            return mean_squared_error(learner.predict(adapted, task.query.x), task.query.y)

        return float(jnp.mean(map_tasks(one, jnp.arange(len(windows.asset)))))

    table = pd.DataFrame(
        {
            name: [query_error(start, k) for k in range(6)]
            for name, start in {"meta-learned": state.params, "from scratch": untrained}.items()
        },
        index=pd.Index(range(6), name="inner steps"),
    )
    print(f"\nquery error on {UNSEEN}, mean of {len(windows.asset)} windows of 2010 to 2018")
    print(table.round(4).to_string())
    tasks = map_tasks(unseen.task, jnp.arange(len(windows.asset)))
    print(f"predicting 0: {float(jnp.mean(tasks.query.y**2)):.4f}")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="meta-steps")
    main(parser.parse_args().steps)
