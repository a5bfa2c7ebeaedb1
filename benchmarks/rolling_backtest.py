"""Adapting at every bar: a rolling backtest of thousands of windows, against PyTorch.

Window of 20 rows, 5 inner steps of SGD, MLP 10-64-64-1 (tanh), one prediction for each window. The
library is timed as users call it, `walk_forward` from panel to predictions. Equality is checked
first.

    python -m benchmarks.rolling_backtest [--peers] [--quick] [--large]

`--large` walks over five million windows and reports the memory that it took.
"""

import resource
import time
from typing import Any

from benchmarks import harness
from benchmarks.peers.problem import make_rolling_problem

SIZES = (2_000, 20_000)
LOOP_WINDOWS = 500
"""The loop over windows is timed on this many and scaled: each costs it the same."""
LARGE = 5_000_000
FORMS = ("func_vmap", "bmm", "compiled_vmap", "bmm_by_hand", "compiled_by_hand")
OURS = "maml_jax walk_forward"
TARGETS = (("seed_loop", 80.0), ("best eager", 4.0), ("best compiled", 1.3))


def _panel(features: Any, targets: Any, assets: int = 1) -> Any:
    import jax.numpy as jnp
    import numpy as np
    import pandas as pd

    from maml_jax.tasks import Panel

    # A row's label is complete at the next bar: the window of bar t ends at bar t - 1.
    time = features.shape[0] // assets
    shape = (assets, time)
    label_end = np.broadcast_to(np.minimum(np.arange(time) + 1, time), shape)
    return Panel(
        features=jnp.asarray(features.reshape(*shape, -1)),
        targets=jnp.asarray(targets.reshape(shape)),
        valid=jnp.ones(shape, bool),
        label_end=jnp.asarray(label_end, jnp.int32),
        timestamps=pd.date_range("2000-01-01", periods=time, freq="min", tz="UTC"),
        assets=tuple(f"A{number}" for number in range(assets)),
        feature_names=tuple(f"f{number}" for number in range(features.shape[1])),
    )


def _learner(problem: Any) -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp
    import optax

    from maml_jax import maml
    from maml_jax.models import mlp

    learner = maml(
        mlp(tuple(kernel.shape[1] for kernel, _ in problem.params)),
        inner_optimizer=optax.sgd(problem.inner_rate),
        inner_steps=problem.inner_steps,
    )
    params = learner.init(jax.random.key(0), jnp.zeros((1, problem.features.shape[1])))
    for layer, (kernel, bias) in enumerate(problem.params):
        params["layers"][layer] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return learner, params


def ours(windows: int) -> dict[str, Any]:
    """The library on all devices, and on one."""
    harness.use_devices()
    from maml_jax.backtest import find_supports, walk_forward

    problem = make_rolling_problem(windows)
    panel = _panel(problem.features, problem.targets)
    learner, params = _learner(problem)

    def on(devices):
        def run():
            supports = find_supports(panel, problem.window)
            return walk_forward(learner, params, panel, supports, devices=devices)

        begun = time.perf_counter()
        run()
        run.compile_seconds = time.perf_counter() - begun
        return run

    everywhere, alone = on(None), on(1)
    return {
        OURS: everywhere,
        "maml_jax, one device": alone,
        "_predictions": lambda: everywhere()[0, problem.window :],
    }


def peer(form: str, windows: int) -> dict[str, Any]:
    """One PyTorch form at its best settings."""
    from benchmarks.peers import rolling as peers

    compile_seconds = None
    if form == "seed_loop":
        contestant = peers.FORMS[form](make_rolling_problem(windows))
        contestant.threads = 1
    else:  # what is best for a chunk is found on fewer windows
        tried = peers.FORMS[form](make_rolling_problem(min(windows, SIZES[0])))
        tried.tune()
        compile_seconds = getattr(tried, "compile_seconds", None)
        contestant = peers.FORMS[form](make_rolling_problem(windows), plan=tried.plan)

    def run():
        contestant.predict()

    run.compile_seconds = compile_seconds
    plan = getattr(contestant, "plan", None)
    run.settings = str(plan) if plan is not None else f"threads={contestant.threads}"
    return {form: run, "_predictions": contestant.predict}


def measure(windows: int, forms: tuple[str, ...], rounds: int) -> dict[str, dict[str, Any]]:
    """Check that all predict the same, then time them in turn."""
    own = harness.Worker(ours, windows=windows)
    expected = own.value("_predictions")
    rivals = []
    for form in forms:
        rival = harness.Worker(peer, form=form, windows=windows)
        harness.require_equal([rival.value("_predictions")], [expected], what=form)
        rivals.append(rival)
    try:
        return harness.in_turn([own, *rivals], rounds=rounds, longest=8.0)
    finally:
        for worker in (own, *rivals):
            worker.close()


def loop_seconds(windows: int) -> float:
    """Time the loop over windows, one after another, for one window."""
    worker = harness.Worker(peer, form="seed_loop", windows=windows)
    try:
        return harness.in_turn([worker], rounds=3)["seed_loop"]["median"] / windows
    finally:
        worker.close()


def large() -> dict[str, float]:
    """Walk over millions of windows; the memory is that above the panel's own."""
    import numpy as np

    harness.use_devices()
    from maml_jax.backtest import find_supports, walk_forward

    assets = 20
    problem = make_rolling_problem(100)
    learner, params = _learner(problem)
    rows = LARGE // assets + problem.window
    rng = np.random.default_rng(0)
    features = rng.standard_normal((assets * rows, problem.features.shape[1]), np.float32)
    targets = rng.standard_normal(assets * rows, np.float32)
    panel = _panel(features, targets, assets)
    del features, targets
    before = _peak_memory()
    begun = time.perf_counter()
    predictions = walk_forward(learner, params, panel, find_supports(panel, problem.window))
    seconds = time.perf_counter() - begun
    return {
        "windows": int(np.isfinite(predictions).sum()),
        "seconds": seconds,
        "GiB above the panel": (_peak_memory() - before) / 2**30,
        "GiB of the panel": sum(a.nbytes for a in panel[:4]) / 2**30,
    }


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure all sizes."""
    asked = harness.arguments(
        __doc__ or "", large="walk over five million windows instead, and report the memory"
    )
    if asked.large:
        worker = harness.Worker(_only_large)
        found = worker.value("_large")
        worker.close()
        met = found["GiB above the panel"] < 2
        target = {"what": "GiB above the panel", "target": 2, "met": met}
        target["measured"] = found["GiB above the panel"]
        harness.show("five million windows", [found])
        harness.write("rolling_backtest_large", {"found": found, "targets": [target]})
        return
    forms: tuple[str, ...] = ()
    by_hand: frozenset[str] = frozenset()
    if asked.peers:
        from benchmarks.peers import rolling as peers

        forms, by_hand = FORMS, peers.BY_HAND
    cases = []
    for windows in SIZES[:1] if asked.quick else SIZES:
        times = measure(windows, forms, rounds=5 if asked.quick or windows > SIZES[0] else 11)
        if asked.peers:
            loop = loop_seconds(LOOP_WINDOWS) * windows
            times["seed_loop"] = {"median": loop, "best": loop, "settings": "scaled"}
        own = times[OURS]["median"]
        cases.append({"windows": windows, "times": times})
        harness.show(
            f"{windows} windows",
            [
                {
                    "form": name,
                    "ms": 1e3 * entry["median"],
                    "us/window": 1e6 * entry["median"] / windows,
                    "times ours": entry["median"] / own,
                    "compiling s": entry.get("compile_seconds"),
                    "settings": entry.get("settings", ""),
                }
                for name, entry in times.items()
            ],
        )
    record = {"cases": cases, "by_hand": sorted(by_hand)}
    record["targets"] = check(cases[-1], by_hand) if asked.peers else []
    if record["targets"]:
        harness.show("targets", record["targets"])
    if not asked.quick:
        harness.write("rolling_backtest", record)


def _only_large() -> dict[str, Any]:
    return {"_large": large}


def check(case: dict[str, Any], by_hand: frozenset[str]) -> list[dict[str, Any]]:
    """Compare the ratios with what the project wants to reach."""
    median = {name: entry["median"] for name, entry in case["times"].items()}
    own = median[OURS]
    rows = []
    for whom, least in TARGETS:
        compiled = whom == "best compiled"
        chosen = {
            hand: [
                n for n in FORMS if (n in by_hand) == hand and n.startswith("compiled") == compiled
            ]
            for hand in (False, True)
        }
        if whom == "seed_loop":
            chosen = {False: [whom], True: []}
        reached = min(median[name] for name in chosen[False]) / own
        rows.append(
            {
                "what": f"{case['windows']} windows, against {whom.replace('_', ' ')}",
                "target": least,
                "measured": reached,
                "met": reached >= least,
                "against derivations by hand": min((median[n] for n in chosen[True]), default=0)
                / own
                or None,
            }
        )
    return rows


if __name__ == "__main__":
    main()
