"""One whole run on synthetic closes in a process of its own: its stages and its memory.

    python -m benchmarks.whole_run ASSETS BARS [FREQUENCY]

prints one line of JSON. Default baselines and settings, methods maml and alpaca.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

METHODS = ("maml", "alpaca")
EVERY = 0.02
"""Seconds between two looks at the memory."""


def synthetic_closes(assets: int, bars: int, frequency: str) -> dict[str, pd.DataFrame]:
    """Draw random walks, all on the same bars."""
    rng = np.random.default_rng(0)
    index = pd.date_range("2010-01-01", periods=bars, freq=frequency, tz="UTC")
    return {
        f"A{n:04d}": pd.DataFrame(
            {"close": 100 * np.exp(np.cumsum(0.01 * rng.standard_normal(bars)))}, index=index
        )
        for n in range(assets)
    }


def resident() -> float:
    """Return the memory that this process holds, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Watched:
    """Looks at the memory of this process again and again."""

    def __init__(self):
        self.peak = resident()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self.peak = max(self.peak, resident())
            time.sleep(EVERY)


def run_here(assets: int, bars: int, frequency: str) -> dict[str, Any]:
    """Run, and measure time and memory.

    Returns:
        `seconds` in total, of which `training` and `compiling`, `stages`, `peak_mb` and `before_mb`
        (with everything imported and the bars drawn), `report_mb` and `directory_mb` on disk.
    """
    from maml_jax.experiment import run
    from maml_jax.experiment.process import set_up
    from maml_jax.experiment.timing import collect_stages

    set_up()
    closes = synthetic_closes(assets, bars, frequency)
    watched = Watched()
    before = watched.peak
    with tempfile.TemporaryDirectory(prefix="whole-run-") as directory, collect_stages() as stages:
        out, start = Path(directory) / "run", time.perf_counter()
        run(bars=closes, out=out, learner={"methods": METHODS})
        seconds = time.perf_counter() - start
        sizes = {file.name: file.stat().st_size for file in out.rglob("*") if file.is_file()}
    training = [each for each in stages if each.name.startswith("meta-training")]
    return {
        "assets": assets,
        "bars": bars,
        "seconds": seconds,
        "training": sum(each.seconds for each in training),
        "compiling": sum(each.compiling for each in stages if each not in training),
        "peak_mb": watched.peak,
        "before_mb": before,
        "report_mb": sizes["report.html"] / 1e6,
        "directory_mb": sum(sizes.values()) / 1e6,
        "stages": {each.name: round(each.seconds, 2) for each in stages},
    }


def run_apart(assets: int, bars: int, frequency: str = "B") -> dict[str, Any]:
    """Run in a fresh process.

    Raises:
        SystemExit: if it fails, with what it wrote.
    """
    command = [sys.executable, "-m", "benchmarks.whole_run", str(assets), str(bars), frequency]
    environment = {"JAX_PLATFORMS": "cpu", **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    given = [*sys.argv[1:], "B"][:3]
    print(json.dumps(run_here(int(given[0]), int(given[1]), given[2])))
