"""An online walk-forward: 20 assets x 3,000 daily bars, a meta-update every 21 bars."""

import statistics
import time
from typing import Any

from benchmarks.harness import arguments, show, use_devices, write
from benchmarks.problems import target

ASSETS, BARS, FIRST, EVERY = 20, 3_000, 300, 21
FEATURES, SUPPORT, QUERY = 10, 20, 10
STEPS, META_BATCH = 5, 16


def make_panel(bars: int) -> Any:
    """Return a panel of noise: time does not depend on what it says."""
    import jax.numpy as jnp
    import numpy as np
    import pandas as pd

    from maml_jax.tasks import Panel

    rng = np.random.default_rng(0)
    shape = (ASSETS, bars)
    place = np.arange(bars)
    ends = np.where(place + 6 < bars, place + 6, bars).astype(np.int32)
    return Panel(
        features=jnp.asarray(rng.standard_normal((*shape, FEATURES)), jnp.float32),
        targets=jnp.asarray(rng.standard_normal(shape), jnp.float32),
        valid=jnp.ones(shape, bool),
        label_end=jnp.asarray(np.broadcast_to(ends, shape)),
        timestamps=pd.bdate_range("2010-01-01", periods=bars, tz="UTC"),
        assets=tuple(f"A{i}" for i in range(ASSETS)),
        feature_names=tuple(f"x{i}" for i in range(FEATURES)),
    )


def walk(bars: int) -> list[dict[str, Any]]:
    """Walk forward with several learners; the first of two calls compiles."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from maml_jax import alpaca, first_order, maml, meta_init
    from maml_jax.backtest import OnlineTraining, Updates, find_supports, walk_online
    from maml_jax.models import mlp
    from maml_jax.tasks import asset_family

    panel = make_panel(bars)
    windows = asset_family(panel, support=SUPPORT, query=QUERY)
    optimizer = optax.adam(3e-4)
    learners = {
        "maml": maml(mlp((64, 64, 1))),
        "fomaml": maml(mlp((64, 64, 1)), gradient=first_order()),
        "alpaca": alpaca(mlp((64, 64, 16))),
    }
    rows = []
    for name, learner in learners.items():
        state = meta_init(learner, optimizer, jax.random.key(0), jnp.zeros((1, FEATURES)))
        seconds = []
        for _ in range(4):
            begun = time.perf_counter()
            result = walk_online(
                learner,
                state,
                panel,
                find_supports(panel, SUPPORT, first=FIRST),
                OnlineTraining(optimizer, windows, Updates(EVERY, STEPS, META_BATCH)),
                jax.random.key(1),
            )
            seconds.append(time.perf_counter() - begun)
        mean = getattr(result.predictions, "mean", result.predictions)
        mean = mean if isinstance(mean, np.ndarray) else result.predictions
        rows.append(
            {
                "learner": name,
                "predictions": int(np.isfinite(mean).sum()),
                "updates": len(result.bars),
                "meta-steps": int(result.state.step),
                "first call, s": seconds[0],
                "further calls, s": statistics.median(seconds[1:]),
            }
        )
    return rows


def main() -> None:
    """Run and compare with the target."""
    quick = arguments(__doc__).quick
    use_devices()
    rows = walk(500 if quick else BARS)
    show(f"{ASSETS} assets, an update of {STEPS} x {META_BATCH} tasks every {EVERY} bars", rows)
    targets = [target("maml, compilation included, seconds", 60, rows[0]["first call, s"])]
    show("targets", targets)
    if not quick:
        write("online", {"walks": rows, "targets": targets})


if __name__ == "__main__":
    main()
