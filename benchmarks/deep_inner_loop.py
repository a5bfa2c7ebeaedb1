"""Memory and time of the meta-gradient through a long inner loop and a large network."""

import time
from collections.abc import Callable

import jax
import numpy as np

from benchmarks.harness import Worker, arguments, in_turn, require_equal, show, use_devices, write
from benchmarks.problems import make_learner, make_params, make_tasks, mean_gradient, target
from maml_jax import exact

PLAIN, CHOSEN = "plain, at once", "exact(), chosen chunk"
WAYS = {
    PLAIN: (exact(remat=False), True),
    "remat=True, at once": (exact(remat=True), True),
    "nested, at once": (exact(remat="nested"), True),
    CHOSEN: (exact(), False),
    "nested, chosen chunk": (exact(remat="nested"), False),
}
"""The gradient mode, and whether all tasks are one chunk; otherwise the library cuts them up."""


def setup(*, tasks: int, inner_steps: int, hidden: int) -> dict[str, Callable]:
    """Compile all ways on one device, so that the compiler's figures of memory compare."""
    use_devices(1)
    batch = make_tasks(tasks)
    contestants = {}
    for name, (mode, whole) in WAYS.items():
        learner = make_learner(hidden=hidden, inner_steps=inner_steps, gradient=mode)
        params = make_params(learner)
        gradient = mean_gradient(learner, chunk=tasks if whole else None)
        start = time.perf_counter()
        compiled = gradient.lower(batch, params).compile()

        def run(compiled=compiled, params=params):
            return [np.asarray(leaf) for leaf in jax.tree.leaves(compiled(batch, params))]

        run.compile_seconds = time.perf_counter() - start
        run.settings = {"bytes": compiled.memory_analysis().temp_size_in_bytes}
        contestants[name] = run
    return contestants


def main() -> None:
    """Compare what storing, recomputing and cutting up cost."""
    quick = arguments(__doc__).quick
    sizes = {"tasks": 16, "inner_steps": 100, "hidden": 512}
    if quick:
        sizes = {"tasks": 8, "inner_steps": 20, "hidden": 64}
    worker = Worker(setup, **sizes)
    expected = worker.value(PLAIN)
    for name in WAYS.keys() - {PLAIN}:
        require_equal(worker.value(name), expected, what=name)
    measured = in_turn([worker], rounds=3)
    worker.close()

    plain = measured[PLAIN]
    rows = [
        {
            "way": name,
            "MB": each["settings"]["bytes"] / 1e6,
            "of plain memory": each["settings"]["bytes"] / plain["settings"]["bytes"],
            "seconds": each["median"],
            "of plain time": each["median"] / plain["median"],
            "compile seconds": each["compile_seconds"],
        }
        for name, each in measured.items()
    ]
    show(f"meta-gradient, temporary memory and time: {sizes}", rows)
    chosen = next(row for row in rows if row["way"] == CHOSEN)
    targets = [
        target("memory of what the library chooses / plain", 0.25, chosen["of plain memory"]),
        target("time of what the library chooses / plain", 1.0, chosen["of plain time"]),
    ]
    show("targets", targets)
    if not quick:
        write("deep_inner_loop", {"sizes": sizes, "ways": rows, "targets": targets})


if __name__ == "__main__":
    main()
