"""An accelerator against the cores of the machine that it stands in.

Meta-steps of growing meta-batches, a rolling backtest, and a thousand accounts, the same program on
both. Where there is no accelerator, it says so and writes nothing.

    python -m benchmarks.accelerator [--quick]
"""

import time
from collections.abc import Callable
from typing import Any

from benchmarks.harness import Worker, arguments, in_turn, show, use_devices, write

TASKS = (64, 1_024, 16_384)
WINDOWS = (20_000, 200_000)
ACCOUNTS = (1_000, 5_000, 20)
"""Strategies, bars and assets."""

QUICK = {"tasks": (64,), "windows": (2_000,), "accounts": (20, 200, 3)}


def setup(
    *, cpu: bool, tasks: tuple[int, ...], windows: tuple[int, ...], accounts: tuple[int, int, int]
) -> dict[str, Callable]:
    """Compile everything on the accelerator, or on all cores."""
    import jax

    if cpu:
        jax.config.update("jax_platforms", "cpu")
        use_devices()
    side = "cores" if cpu else "accelerator"
    made = {**_steps(tasks), **_walks(windows), **_accounts(*accounts)}
    return {f"{name} | {side}": function for name, function in made.items()}


def _steps(sizes: tuple[int, ...]) -> dict[str, Callable]:
    from benchmarks.problems import training
    from maml_jax import alpaca, first_order, maml
    from maml_jax.models import mlp

    learners = {
        "MAML": maml(mlp((64, 64, 1))),
        "FOMAML": maml(mlp((64, 64, 1)), gradient=first_order()),
        "Bayesian head": alpaca(mlp((64, 64, 16))),
    }
    made = {}
    for size in sizes:
        for name, learner in learners.items():
            run = training(learner, size)
            run.steps = run.settings["meta_steps"]  # pyright: ignore[reportFunctionMemberAccess]
            made[f"{name}, meta-step of {size:,} tasks"] = run
    return made


def _walks(sizes: tuple[int, ...]) -> dict[str, Callable]:
    from benchmarks.problems import make_panel, make_params
    from maml_jax import maml
    from maml_jax.backtest import find_supports, walk_forward
    from maml_jax.models import mlp

    learner = maml(mlp((64, 64, 1)))
    params = make_params(learner)
    made = {}
    for size in sizes:
        panel = make_panel(20, size // 20)

        def run(panel=panel) -> Any:
            return walk_forward(learner, params, panel, find_supports(panel, 20))

        made[f"rolling backtest of {size:,} windows"] = _timed_first(run)
    return made


def _accounts(strategies: int, bars: int, assets: int) -> dict[str, Callable]:
    import numpy as np
    import pandas as pd

    from maml_jax.backtest import Market, trade_many

    rng = np.random.default_rng(0)
    index = pd.bdate_range("2000-01-01", periods=bars, tz="UTC")
    close = 100 * np.exp(np.cumsum(0.01 * rng.standard_normal((bars, assets)), axis=0))
    table = pd.DataFrame(close, index, [f"A{i}" for i in range(assets)])
    market = Market(table, table, table, table)
    orders = rng.choice([-1.0, 0.0, 1.0], (strategies, bars, assets)) / assets

    def run() -> Any:
        return trade_many(orders, market, fill="next_close")

    return {f"{strategies:,} accounts, {bars:,} bars, {assets} assets": _timed_first(run)}


def _timed_first(run: Callable[[], Any]) -> Callable[[], Any]:
    begun = time.perf_counter()
    run()
    run.compile_seconds = time.perf_counter() - begun  # pyright: ignore[reportFunctionMemberAccess]
    return run


def main() -> None:
    """Time both in turn."""
    import jax

    quick = arguments(__doc__ or "").quick
    device = jax.devices()[0]
    if device.platform == "cpu":
        print("JAX sees no accelerator here")
        return
    sizes: dict[str, Any] = (
        QUICK if quick else {"tasks": TASKS, "windows": WINDOWS, "accounts": ACCOUNTS}
    )
    workers = [Worker(setup, cpu=cpu, **sizes) for cpu in (False, True)]
    measured = in_turn(workers, rounds=3, longest=10.0)
    for worker in workers:
        worker.close()
    rows = []
    for name in dict.fromkeys(each.partition(" | ")[0] for each in measured):
        fast, slow = (measured[f"{name} | {side}"] for side in ("accelerator", "cores"))
        rows.append(
            {
                "work": name,
                "accelerator, ms": 1e3 * fast["median"],
                "cores, ms": 1e3 * slow["median"],
                "times faster": slow["median"] / fast["median"],
                "compiling, s": fast["compile_seconds"],
                "... on cores": slow["compile_seconds"],
            }
        )
    show(f"{device.device_kind} against the machine's cores", rows)
    if not quick:
        write("accelerator", {"device": device.device_kind, "work": rows})


if __name__ == "__main__":
    main()
