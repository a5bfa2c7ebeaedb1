"""What every learner costs, set beside what it reaches: the comparison of all methods."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.harness import Worker, arguments, in_turn, markdown, show, use_devices, write
from benchmarks.problems import (
    cost_of_one,
    make_params,
    make_tasks,
    meta_gradient,
    seconds_per_step,
    training,
)
from benchmarks.reproduce.known_answer_rows import ROWS, network
from maml_jax import MetaLearner, maml_plus_plus

TASKS = 64
SHOWN_STEPS = (1, 5, 10)
"""Adaptation steps after which the error in sinusoid regression is shown."""

REPRODUCED = Path(__file__).parents[1] / "docs" / "reproduced"
"""What `python -m benchmarks.reproduce` found, and where the comparison goes."""


class Method(NamedTuple):
    """A learner of the comparison.

    Attributes:
        order: of the derivatives that its meta-gradient takes.
        sinusoid: its row in sinusoid regression.
    """

    order: str
    sinusoid: str | None = None


METHODS = {
    "maml": Method("second", "maml-0.01"),
    "fomaml": Method("first", "fomaml"),
    "reptile": Method("first, no query", "reptile"),
    "anil": Method("second, head only", "anil"),
    "meta-sgd": Method("second", "meta-sgd-10"),
    "maml++": Method("first, then second", "maml++"),
    "cavia": Method("second, context only", "cavia-5"),
    "imaml": Method("implicit", "imaml"),
    "meta-curvature": Method("second", "meta-curvature"),
    "ridge": Method("first, through a closed-form solve", "ridge"),
    "alpaca": Method("first, through a closed-form solve", "alpaca"),
    "matching": Method("first", "matching"),
    "matching-direction": Method("first"),
    "prototypes": Method("first"),
    "joint": Method("first, no adaptation"),
    "joint-tuned": Method("first, fine-tuned at test", "joint"),
    "scratch": Method("none", "scratch"),
}
"""By their keys in the market with a known answer, in the order of the table."""

NAMES = {row.key: row.name for row in ROWS}


def learner_of(key: str) -> MetaLearner:
    """Make a learner with its default settings on networks of 64-64."""
    make = network("tanh")
    if key == "maml++":  # as it trains most of the time, after its beginning in first order
        return maml_plus_plus(make(1), second_order_from=0)
    return next(row for row in ROWS if row.key == key).learner(make)


def setup(*, keys: list[str]) -> dict[str, Callable]:
    """Compile the training of every learner, on all cores."""
    use_devices()
    return {key: training(learner_of(key), TASKS) for key in keys}


def megabytes(learner: MetaLearner) -> float:
    """Return what the compiled meta-gradient of a whole meta-batch at once holds at most."""
    params, tasks = make_params(learner), make_tasks(TASKS)
    gradient = jax.vmap(meta_gradient(learner), (0, None))
    compiled = jax.jit(gradient).lower(tasks, params).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def compare(key: str, measured: dict[str, Any], base: float) -> dict[str, Any]:
    """Return the costs of one learner."""
    learner, seconds = learner_of(key), seconds_per_step(measured[key])
    return {
        "key": key,
        "method": NAMES[key],
        "gradient order": METHODS[key].order,
        "ms a meta-step": 1e3 * seconds,
        "of FOMAML's": seconds / base,
        "MB": megabytes(learner),
        "MFLOP a task": cost_of_one(learner).flops / 1e6,
        "compiling, s": measured[key]["compile_seconds"],
    }


def with_skill(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Set beside the costs what was reached, as far as it was reproduced."""
    sinusoid = {row["key"]: row for row in _reproduced("sinusoid").get("rows", [])}
    parts = _reproduced("known-answer").get("parts", {})
    market = {row["key"]: row["cells"] for row in parts.get("learners", {}).get("rows", [])}
    joined = []
    for row in rows:
        row = dict(row)
        found = sinusoid.get(METHODS[row["key"]].sinusoid or "", {})
        errors = {figure["steps"]: figure["mean"] for figure in found.get("figures", [])}
        # Without steps there is one error, whatever the column.
        row |= {f"sinusoid, {k} steps": errors.get(None, errors.get(k)) for k in SHOWN_STEPS}
        row["its meta-steps"] = found.get("protocol", {}).get("meta_steps")
        for cell in market.get(row.pop("key"), []):
            row[f"IC at SNR {cell['world']['snr']:g}, % of best"] = 100 * cell["share"]
        joined.append(row)
    columns = {name: None for row in joined for name in row}
    return [{name: row.get(name) for name in columns} for row in joined]


def _reproduced(name: str) -> dict[str, Any]:
    path = REPRODUCED / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def main() -> None:
    """Time all learners in turn within `fit`, and write the comparison."""
    quick = arguments(__doc__ or "").quick
    keys = ["maml", "fomaml", "alpaca"] if quick else list(METHODS)
    worker = Worker(setup, keys=keys)
    measured = in_turn([worker], rounds=3 if quick else 5)
    worker.close()
    use_devices()
    base = seconds_per_step(measured["fomaml"])
    rows = [compare(key, measured, base) for key in keys]
    show(f"a meta-step of {TASKS} tasks, support 20, query 10, networks of 64-64", rows)
    joined = with_skill(rows)
    show("the comparison", joined)
    if not quick:
        write("learners", {"learners": rows, "measured": measured})
        REPRODUCED.mkdir(parents=True, exist_ok=True)
        text = "\n".join(markdown(joined)) + "\n"
        (REPRODUCED / "comparison.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
