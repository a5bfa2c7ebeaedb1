"""Tasks and bars that tests are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from maml_jax import Batch, Task


def sinusoid_sampler(tasks=8, shots=10):
    """y = A sin(x - phase), A in [0.1, 5], phase in [0, pi], x in [-5, 5]."""

    def sample(key):
        amplitude_key, phase_key, x_key = jax.random.split(key, 3)
        amplitude = jax.random.uniform(amplitude_key, (tasks, 1, 1), minval=0.1, maxval=5.0)
        phase = jax.random.uniform(phase_key, (tasks, 1, 1), maxval=jnp.pi)
        x = jax.random.uniform(x_key, (tasks, 2 * shots, 1), minval=-5.0, maxval=5.0)
        y = amplitude * jnp.sin(x - phase)
        return Task(Batch(x[:, :shots], y[:, :shots]), Batch(x[:, shots:], y[:, shots:]))

    return sample


def one_task(key=0, shots=10, dtype=jnp.float32):
    tasks = sinusoid_sampler(1, shots)(jax.random.key(key))
    return jax.tree.map(lambda leaf: leaf[0].astype(dtype), tasks)


def random_bars(seed=0, count=300, *, start="2020-01-01", step="D", columns="ohlcv", drift=0.0):
    """Bars of a random walk with fat tails, consistent within each bar."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(drift + 0.01 * rng.standard_t(4, count)))
    gap = np.exp(0.002 * rng.standard_normal(count))
    open_ = np.concatenate([[100.0], close[:-1]]) * gap
    spread = np.exp(0.003 * np.abs(rng.standard_normal((2, count))))
    table = {
        "open": open_,
        "high": np.maximum(open_, close) * spread[0],
        "low": np.minimum(open_, close) / spread[1],
        "close": close,
        "volume": 1000 * np.exp(0.3 * rng.standard_normal(count)),
    }
    index = pd.date_range(start, periods=count, freq=step, tz="UTC", name="timestamp")
    chosen = {"ohlcv": list(table), "close": ["close"]}[columns]
    return pd.DataFrame(table, index=index.as_unit("us"))[chosen]


def random_market(count=300, assets=3, **options):
    return {f"A{i}": random_bars(seed=i, count=count, **options) for i in range(assets)}
