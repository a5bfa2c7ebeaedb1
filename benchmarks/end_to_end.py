"""How long the built-in example takes from process start to report, and the import."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import arguments, show, write
from benchmarks.problems import target

CACHE = "JAX_COMPILATION_CACHE_DIR"

IMPORT = "import maml_jax"

ADAPT = """
import jax
import jax.numpy as jnp
from maml_jax import Batch, maml
from maml_jax.models import mlp

learner = maml(mlp((64, 64, 1)))
x = jnp.zeros((20, 10))
params = learner.init(jax.random.key(0), x)
jax.block_until_ready(learner.adapt(params, Batch(x, jnp.ones((20, 1)))))
"""


def environment(**settings: str) -> dict[str, str]:
    """Return that of this process without a place for compiled programs, plus `settings`."""
    set_here = (CACHE, "JAX_ENABLE_COMPILATION_CACHE")
    present = {name: value for name, value in os.environ.items() if name not in set_here}
    return {"JAX_PLATFORMS": "cpu", **present, **settings}


def python(*command: str, **settings: str) -> tuple[float, str]:
    """Run Python in a fresh process; return the seconds until it has ended, and its output."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], env=environment(**settings), capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return seconds, done.stdout


def run_example(cache: str, settings: list[str]) -> dict[str, Any]:
    """Run the example into a new directory that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="end-to-end-") as directory:
        out = Path(directory) / "run"
        command = ("-m", "maml_jax", "run", "--out", str(out), *settings)
        seconds, output = python(*command, **{CACHE: cache})
        if not (out / "report.html").stat().st_size:
            raise SystemExit("the run wrote no report")
    stages = next(line for line in output.splitlines() if line.startswith("total "))
    return {"seconds": seconds, "stages": stages}


def median_of(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run in the middle."""
    return sorted(runs, key=lambda each: each["seconds"])[len(runs) // 2]


def main() -> None:
    """Run everything in fresh processes."""
    quick = arguments(__doc__).quick
    repeats = 1 if quick else 3
    settings = ["--set", "training.steps=5"] if quick else []
    with tempfile.TemporaryDirectory(prefix="end-to-end-") as cache:
        cold = run_example(cache, settings)
        warm = [run_example(cache, settings) for _ in range(repeats)]
    fresh = {
        name: statistics.median(python("-c", code)[0] for _ in range(repeats))
        for name, code in {"import": IMPORT, "import and first adapt": ADAPT}.items()
    }

    middle = median_of(warm)
    print(f"\ncold  {cold['stages']}\nwarm  {middle['stages']}")
    rows = [
        {"process": "built-in example, cold", "seconds": cold["seconds"]},
        {"process": "built-in example, warm", "seconds": middle["seconds"]},
        *({"process": name, "seconds": seconds} for name, seconds in fresh.items()),
    ]
    show("from process start to its end", rows)
    targets = [
        target("built-in example, cold, seconds", 45, cold["seconds"]),
        target("built-in example, warm, seconds", 20, middle["seconds"]),
        target("import and first adapt, seconds", 4, fresh["import and first adapt"]),
    ]
    show("targets", targets)
    if not quick:
        write("end_to_end", {"cold": cold, "warm": warm, "fresh": fresh, "targets": targets})


if __name__ == "__main__":
    main()
