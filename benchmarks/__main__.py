"""Run every benchmark and write RESULTS.md from what they found.

    python -m benchmarks [--peers] [--report]

`--report` writes RESULTS.md from the results on disk and runs nothing.
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import harness

BENCHMARKS = {
    "meta_step": "Meta-step",
    "rolling_backtest": "Rolling backtest",
    "limit": "How far from the machine's limit",
    "second_vs_first_order": "Second against first order",
    "learners": "All learners",
    "deep_inner_loop": "Deep inner loops",
    "scaling": "Scaling",
    "end_to_end": "End to end",
    "online": "Online walk-forward",
    "simulate": "Accounts of many strategies",
    "bars": "Bars: fetching, storing, reading, checking",
    "risk": "Risk of young assets",
}
WITH_PEERS = ("meta_step", "rolling_backtest", "simulate")
SEPARATE = {
    "rolling_backtest_large": "Five million windows (`rolling_backtest --large`)",
    "whole_runs": "Whole runs (`scaling --runs`)",
}
PAGE = Path(__file__).parent / "RESULTS.md"


def run_all(peers: bool) -> None:
    """Run the benchmarks one after another; a failure ends it."""
    for name in BENCHMARKS:
        begun = time.perf_counter()
        options = ["--peers"] if peers and name in WITH_PEERS else []
        print(f"\n=== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=True)
        print(f"=== {name}: {time.perf_counter() - begun:.0f} s", flush=True)


def page() -> str:
    """Return RESULTS.md."""
    found = {}
    for name in (*BENCHMARKS, *SEPARATE):
        path = harness.RESULTS / f"{name}.json"
        if path.exists():
            found[name] = json.loads(path.read_text(encoding="utf-8"))
    about = next(iter(found.values()))["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    lines = [
        "# Results",
        "",
        "Written by `make bench`. Medians of runs in turn; ratios say how many times longer",
        "others take. In *eager* and *compiled* forms PyTorch differentiates. Forms *by hand* are",
        "no MAML for any network: their second-order gradients were derived on paper for this one",
        "MLP, loss and optimizer, and written as batched products without automatic",
        "differentiation. They show where the limit lies.",
        "",
        f"{about['processor']}, {about['cores']} cores, {about['system']}, "
        f"Python {about['python']}; {versions}.",
        "",
    ]
    for name, title in {**BENCHMARKS, **SEPARATE}.items():
        if name in found:
            lines += [f"## {title}", "", *section(name, found[name]), ""]
    return "\n".join(lines).rstrip() + "\n"


def section(name: str, record: dict[str, Any]) -> list[str]:
    """Return the part of one benchmark: its targets, its tables, its figure."""
    lines = []
    if record.get("targets"):
        lines += [*harness.markdown(record["targets"]), ""]
    write = {
        "meta_step": _meta_step,
        "rolling_backtest": _rolling,
        "limit": _limit,
        "whole_runs": _whole_runs,
    }.get(name, _generic)
    lines += write(record)
    if (harness.RESULTS / f"{name}.png").exists():
        lines += ["", f"![{name.replace('_', ' ')}](results/{name}.png)"]
    return lines


def _meta_step(record: dict[str, Any]) -> list[str]:
    cases = record["cases"]
    names = list(dict.fromkeys(name for case in cases for name in case["times"]))
    rows = []
    for name in names:
        row: dict[str, Any] = {"milliseconds": name.replace("_", " ")}
        for case in cases:
            entry = case["times"].get(name)
            row[f"{case['order']}, {case['tasks']}"] = entry and 1e3 * entry["median"]
        compiling = [c["times"][name].get("compile_seconds") for c in cases if name in c["times"]]
        compiling = [seconds for seconds in compiling if seconds is not None]
        row["compiling, s"] = max(compiling) if compiling else None
        rows.append(row)
    return harness.markdown(rows)


def _rolling(record: dict[str, Any]) -> list[str]:
    rows = []
    for name in record["cases"][-1]["times"]:
        row: dict[str, Any] = {"": name.replace("_", " ")}
        for case in record["cases"]:
            entry = case["times"].get(name)
            row[f"{case['windows']:,} windows, ms"] = entry and 1e3 * entry["median"]
            compiling = entry and entry.get("compile_seconds")
            if compiling is not None:
                row["compiling, s"] = compiling
                row["both, s"] = compiling + entry["median"]
        rows.append(row)
    keys = {key: None for row in rows for key in row}
    return harness.markdown([{key: row.get(key) for key in keys} for row in rows])


def _limit(record: dict[str, Any]) -> list[str]:
    lines = harness.markdown([{"the machine": k, "": v} for k, v in record["rates"].items()])
    for order, job in record["jobs"].items():
        plain = {k: v for k, v in job.items() if not isinstance(v, list | dict)}
        lines += ["", *harness.markdown([{order: k, "": v} for k, v in plain.items()])]
        lines += [
            "",
            *harness.markdown(
                [{"kind of work": k, "% of time": v} for k, v in job["profile"].items()]
            ),
        ]
    return lines


def _whole_runs(record: dict[str, Any]) -> list[str]:
    lines = []
    for rows in record["series"].values():
        lines += [*harness.markdown([_flat(row) for row in rows]), ""]
    return lines[:-1]


def _generic(record: dict[str, Any]) -> list[str]:
    lines = []
    for key, value in record.items():
        if key in ("machine", "targets"):
            continue
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [*harness.markdown([_flat(row) for row in value]), ""]
        elif isinstance(value, dict) and _flat(value):
            lines += [*harness.markdown([{key: k, "": v} for k, v in _flat(value).items()]), ""]
    return lines[:-1]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not isinstance(value, list | dict)}


def main() -> None:
    """Run all, then write the page."""
    asked = harness.arguments(__doc__ or "", report="write RESULTS.md from the results on disk")
    if not asked.report:
        run_all(asked.peers)
    PAGE.write_text(page(), encoding="utf-8")
    print("written: benchmarks/RESULTS.md")


if __name__ == "__main__":
    main()
