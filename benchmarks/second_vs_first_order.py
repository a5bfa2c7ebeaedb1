"""What the exact meta-gradient costs beside the first-order one, and how far apart they point."""

from collections.abc import Callable
from functools import cache

import optax
from matplotlib import pyplot
from matplotlib.figure import Figure

from benchmarks.harness import Worker, arguments, in_turn, show, use_devices, write
from benchmarks.problems import (
    cost_of_one,
    make_learner,
    make_params,
    make_tasks,
    mean_gradient,
    seconds_per_step,
    target,
    training,
)
from maml_jax import MetaLearner, exact, first_order

ORDERS = {"second": exact(), "first": first_order()}


@cache
def learner_of(order: str, inner_steps: int) -> MetaLearner:
    return make_learner(inner_steps=inner_steps, gradient=ORDERS[order])


def name_of(tasks: int, inner_steps: int, order: str) -> str:
    return f"{tasks} tasks, {inner_steps} steps, {order} order"


def setup(*, tasks: list[int], inner_steps: list[int]) -> dict[str, Callable]:
    """Compile training for every size and order, on all cores."""
    use_devices()
    return {
        name_of(count, steps, order): training(learner_of(order, steps), count)
        for count in tasks
        for steps in inner_steps
        for order in ORDERS
    }


def cosine(tasks: int, inner_steps: int) -> float:
    """Return the cosine between the meta-gradients of both orders where training starts."""
    learners = [learner_of(order, inner_steps) for order in ORDERS]
    a, b = (mean_gradient(each)(make_tasks(tasks), make_params(each)) for each in learners)
    return float(optax.tree.vdot(a, b) / (optax.tree.norm(a) * optax.tree.norm(b)))


def compare(measured: dict, tasks: int, inner_steps: int) -> dict:
    """Set both orders side by side."""
    second, first = (measured[name_of(tasks, inner_steps, order)] for order in ORDERS)
    flops = [cost_of_one(learner_of(order, inner_steps)).flops for order in ORDERS]
    return {
        "tasks": tasks,
        "inner steps": inner_steps,
        "second, ms": 1e3 * seconds_per_step(second),
        "first, ms": 1e3 * seconds_per_step(first),
        "ratio": seconds_per_step(second) / seconds_per_step(first),
        "second, MFLOP a task": flops[0] / 1e6,
        "first, MFLOP a task": flops[1] / 1e6,
        "ratio of FLOP": flops[0] / flops[1],
        "cosine": cosine(tasks, inner_steps),
    }


def draw(rows: list[dict]) -> Figure:
    """Draw time against inner steps, a panel for each number of tasks."""
    pyplot.switch_backend("Agg")

    counts = sorted({row["tasks"] for row in rows})
    figure, panels = pyplot.subplots(1, len(counts), figsize=(4.5 * len(counts), 3.4))
    for axes, count in zip(panels, counts, strict=True):
        chosen = [row for row in rows if row["tasks"] == count]
        for order in ORDERS:
            steps, times = ([row[key] for row in chosen] for key in ("inner steps", f"{order}, ms"))
            axes.plot(steps, times, "o-", label=f"{order} order")
        axes.set(
            title=f"{count} tasks", xlabel="inner steps", ylabel="ms a meta-step", ylim=(0, None)
        )
        axes.legend()
    return figure


def main() -> None:
    """Time both orders in turn within `fit`."""
    quick = arguments(__doc__).quick
    tasks, inner_steps = ([8, 32], [1, 5]) if quick else ([32, 256], [1, 3, 5, 10])
    worker = Worker(setup, tasks=tasks, inner_steps=inner_steps)
    measured = in_turn([worker], rounds=3 if quick else 9)
    worker.close()
    use_devices()
    rows = [compare(measured, count, steps) for count in tasks for steps in inner_steps]
    show("a meta-step within fit, MLP 10-64-64-1, support 20, query 10", rows)
    targets = [
        target(f"second / first order, 5 inner steps, {row['tasks']} tasks", 3.0, row["ratio"])
        for row in rows
        if row["inner steps"] == 5
    ]
    show("targets", targets)
    if not quick:
        record = {"sizes": rows, "measured": measured, "targets": targets}
        write("second_vs_first_order", record, draw(rows))


if __name__ == "__main__":
    main()
