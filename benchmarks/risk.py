"""Risk of 500 assets: at every bar, today's row, and the command from start to finish.

python -m benchmarks.risk [--quick]
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import arguments, show, write
from benchmarks.whole_run import synthetic_closes

ASSETS, BARS, ROUNDS = 500, 2000, 3
LEVELS = (0.01, 0.05)


def measure(assets: int, bars: int, rounds: int) -> list[dict]:
    """Time the forecasts."""
    import maml_jax
    from maml_jax.risk.forecast import forecast_tails, forecast_volatility
    from maml_jax.risk.histories import make_histories
    from maml_jax.risk.model import load_model

    frames = synthetic_closes(assets, bars, "B")
    model = load_model("stocks-daily")

    def every_bar() -> None:
        forecasts = forecast_volatility(model, make_histories(frames), horizon=5)
        forecast_tails(model, forecasts, LEVELS)

    jobs = {
        f"{assets} assets x {bars} bars, risk at every bar": every_bar,
        f"{assets} assets, today's rows": lambda: maml_jax.risk(frames),
        "the command on two bars, from process start": _command,
    }
    rows = []
    for name, job in jobs.items():
        job()
        seconds = []
        for _ in range(rounds):
            begun = time.perf_counter()
            job()
            seconds.append(time.perf_counter() - begun)
        rows.append({"job": name, "seconds": statistics.median(seconds), "best": min(seconds)})
    return rows


def _command() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bars.csv"
        path.write_text("date,close\n2024-05-02,100\n2024-05-03,102\n", encoding="utf-8")
        command = [sys.executable, "-m", "maml_jax", "risk", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Time and compare with the targets."""
    quick = arguments(__doc__).quick
    rows = measure(50 if quick else ASSETS, 500 if quick else BARS, 1 if quick else ROUNDS)
    show("risk", rows)
    bounds = (30.0, 2.0, 3.0)
    targets = [
        {"job": row["job"], "at most, s": bound, "found, s": row["seconds"]}
        for row, bound in zip(rows, bounds, strict=True)
    ]
    show("targets", targets)
    if not quick:
        write("risk", {"times": rows, "targets": targets})


if __name__ == "__main__":
    main()
