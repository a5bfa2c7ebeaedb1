"""What all benchmarks share: processes that are timed in turn, tables, JSON, figures.

Contestants live in processes of their own, because thread pools and memory allocators disturb one
another. The parent lets them run in turn, round after round, so that a machine that is slow for a
while is slow for all; what counts are medians and ratios.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from maml_jax.parallel.machine import cores, lapack_waits

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "jax",
    "jaxlib",
    "optax",
    "flax",
    "numpy",
    "torch",
    "higher",
    "torchopt",
    "vectorbt",
    "numba",
)


def arguments(description: str, **switches: str) -> argparse.Namespace:
    """Read the command line: `--peers`, `--quick`, and what a benchmark adds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--peers", action="store_true", help="measure the peers too (extra `peers`)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes and few rounds, to try it"
    )
    for name, text in switches.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser.parse_args()


def use_devices(count: int | None = None) -> None:
    """Give JAX one CPU device per core, or `count`; to be called before it computes."""
    import jax

    if jax.config.jax_platforms in (None, "", "cpu"):
        devices = cores() if count is None else count
        if lapack_waits():  # as the command line does
            os.environ.setdefault("NPROC", str(max(devices, cores()) + 1))
        jax.config.update("jax_num_cpu_devices", devices)


def machine() -> dict[str, Any]:
    """Describe the machine and the versions."""
    processor = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor,
        "cores": cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


class Worker:
    """A process that holds contestants and runs them on demand.

    Args:
        setup: a function at the top level of its module; returns `{name: function}`. Names that
            begin with an underscore are not timed. A function may have the attributes `steps` (how
            many it takes at a call; times are per step), `compile_seconds` and `settings` (which
            are passed on).
        **options: given to `setup`.
    """

    def __init__(self, setup: Callable[..., Mapping[str, Callable[[], Any]]], **options: Any):
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, setup, options), daemon=True)
        self._process.start()
        self.about: dict[str, dict[str, Any]] = self._receive()

    def seconds(self, name: str) -> float:
        """Run a contestant once and return how long it took."""
        self._pipe.send(("seconds", name))
        return self._receive()

    def value(self, name: str) -> Any:
        """Run a contestant once and return its result, arrays as numpy."""
        self._pipe.send(("value", name))
        return self._receive()

    def close(self) -> None:
        """End the process."""
        self._pipe.send(None)
        self._process.join(timeout=10)
        self._process.kill()

    def _receive(self) -> Any:
        answer = self._pipe.recv()
        if isinstance(answer, _Failure):
            raise RuntimeError(f"a contestant failed:\n{answer.text}")
        return answer


class _Failure:
    def __init__(self, text: str):
        self.text = text


def _serve(pipe, setup, options) -> None:
    try:
        contestants = setup(**options)
        pipe.send(
            {
                name: {key: getattr(function, key, None) for key in ("compile_seconds", "settings")}
                for name, function in contestants.items()
            }
        )
        while (order := pipe.recv()) is not None:
            kind, name = order
            start = time.perf_counter()
            value = contestants[name]()
            seconds = time.perf_counter() - start
            steps = getattr(contestants[name], "steps", 1)
            pipe.send(seconds / steps if kind == "seconds" else value)
    except Exception:  # raised again by the parent, which asked
        pipe.send(_Failure(traceback.format_exc()))


def in_turn(
    workers: list[Worker], *, rounds: int, longest: float = 60.0
) -> dict[str, dict[str, Any]]:
    """Time all contestants in turn.

    Args:
        workers: whose contestants, under different names.
        rounds: how often each runs after one run that does not count.
        longest: seconds that one contestant may take in all; slow ones get fewer rounds.

    Returns:
        For each name: `median` and `best` in seconds, `rounds`, and what the worker said of it.
    """
    places = [
        (worker, name) for worker in workers for name in worker.about if not name.startswith("_")
    ]
    first = {name: worker.seconds(name) for worker, name in places}
    times: dict[str, list[float]] = {name: [] for _, name in places}
    for number in range(rounds):
        for worker, name in places:
            if number < 3 or (number + 2) * first[name] < longest:
                times[name].append(worker.seconds(name))
    return {
        name: {
            "median": statistics.median(times[name]),
            "best": min(times[name]),
            "rounds": len(times[name]),
            **{key: value for key, value in worker.about[name].items() if value is not None},
        }
        for worker, name in places
    }


def require_equal(found: Any, expected: Any, *, what: str, tolerance: float = 1e-5) -> float:
    """Refuse results that differ by more than `tolerance` of the largest entry of each array."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        worst = max(worst, float(np.abs(a - b.reshape(a.shape)).max() / np.abs(b).max()))
    if not worst <= tolerance:
        raise SystemExit(f"{what}: differs by {worst:.1e}, nothing is timed")
    return worst


def write(name: str, record: dict[str, Any], figure: Any = None) -> None:
    """Write `results/<name>.json`, and the figure as `results/<name>.png`."""
    RESULTS.mkdir(exist_ok=True)
    record = {"machine": machine(), **record}
    text = json.dumps(record, indent=1, default=float)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    if figure is not None:
        figure.savefig(RESULTS / f"{name}.png", dpi=110, bbox_inches="tight")
    print(f"\nwritten: benchmarks/results/{name}.json")


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows of equal keys as a table."""
    columns = list(rows[0])
    cells = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
    print(f"\n{title}")
    for row in [columns, ["-" * width for width in widths], *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def markdown(rows: list[dict[str, Any]]) -> list[str]:
    """Return a Markdown table of rows of equal keys."""
    columns = [c for c in rows[0] if any(row.get(c) is not None for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_cell(row.get(c)) for c in columns) + " |" for row in rows]


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1000
        else str(round(value) if isinstance(value, float) else value)
    )
