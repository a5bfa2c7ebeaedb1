"""The learner, the tasks and the bars on which the library is measured against itself."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd

from benchmarks.peers.problem import make_problem
from maml_jax import Batch, MetaLearner, Task, fit, maml, meta_init
from maml_jax.meta import GradientMode
from maml_jax.models import mlp
from maml_jax.parallel.cost import Cost, count_cost
from maml_jax.parallel.map import average_tasks
from maml_jax.tasks import Panel

FEATURES = 10
INNER_RATE = 0.01

_WORK = 6 * 10**9
"""Floating-point operations of one timed call, some tenths of a second."""

_FEWEST, _MOST = 2, 200
"""Meta-steps of one timed call."""


def make_learner(
    *, hidden: int = 64, inner_steps: int = 5, gradient: GradientMode | None = None
) -> MetaLearner:
    """Make MAML on a perceptron with two hidden layers."""
    optimizer = optax.sgd(INNER_RATE)
    model = mlp((hidden, hidden, 1))
    return maml(model, inner_optimizer=optimizer, inner_steps=inner_steps, gradient=gradient)


def make_tasks(count: int) -> Task:
    """Make a meta-batch of regressions: 20 rows to adapt on, 10 to be judged on, 10 features."""
    problem = make_problem(count, sizes=(FEATURES, 1))
    return Task(
        Batch(jnp.asarray(problem.support_x), jnp.asarray(problem.support_y)),
        Batch(jnp.asarray(problem.query_x), jnp.asarray(problem.query_y)),
    )


def make_panel(assets: int, bars: int) -> Panel:
    """Make a Panel of noise in which every bar has its features and, two bars later, its label."""
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(generator.standard_normal(shape), jnp.float32)

    label_end = np.minimum(np.arange(bars) + 2, bars)
    return Panel(
        features=draw(assets, bars, FEATURES),
        targets=draw(assets, bars),
        valid=jnp.ones((assets, bars), bool),
        label_end=jnp.asarray(np.tile(label_end, (assets, 1)), jnp.int32),
        timestamps=pd.date_range("2000-01-01", periods=bars, freq="h"),
        assets=tuple(f"asset {number}" for number in range(assets)),
        feature_names=tuple(f"feature {number}" for number in range(FEATURES)),
    )


def meta_gradient(learner: MetaLearner) -> Callable[[Task, Any], Any]:
    """Return the meta-gradient as a function of one task and the meta-parameters."""

    def gradient(task: Task, params: Any) -> Any:
        return jax.grad(lambda params: learner.loss(params, task, 0)[0])(params)

    return gradient


def mean_gradient(learner: MetaLearner, *, chunk: int | None = None) -> Callable[[Task, Any], Any]:
    """Return the compiled mean meta-gradient of a meta-batch."""
    one = meta_gradient(learner)

    def gradient(tasks: Task, params: Any) -> Any:
        return average_tasks(lambda *given: (one(*given), ()), tasks, params, chunk=chunk)[0]

    return jax.jit(gradient)


def make_params(learner: MetaLearner) -> Any:
    """Draw the meta-parameters that everything starts from."""
    return learner.init(jax.random.key(0), jnp.zeros(FEATURES))


def cost_of_one(learner: MetaLearner) -> Cost:
    """Count what the meta-gradient of one task costs."""
    task = jax.tree.map(lambda leaf: leaf[0], make_tasks(1))
    return count_cost(jax.make_jaxpr(meta_gradient(learner))(task, make_params(learner)).jaxpr)


def training(learner: MetaLearner, tasks: int, *, devices: int | None = None) -> Callable[[], None]:
    """Make a contestant that takes several meta-steps in one `fit`, always on the same tasks.

    Its `settings` hold the number of meta-steps, which its time is to be divided by.
    """
    flops = tasks * cost_of_one(learner).flops
    steps = max(_FEWEST, min(_MOST, round(_WORK / flops)))
    optimizer, key = optax.adam(1e-3), jax.random.key(0)
    sampler = jax.tree_util.Partial(_same_tasks, make_tasks(tasks))
    state = meta_init(learner, optimizer, key, jnp.zeros(FEATURES))

    def run() -> None:
        options = {"steps": steps, "state": state, "devices": devices}
        jax.block_until_ready(fit(learner, optimizer, sampler, key, **options))

    return warmed_up(run, meta_steps=steps, flops=flops)


def warmed_up(function: Callable[[], Any], **settings: Any) -> Callable[[], Any]:
    """Run a contestant twice and note how much longer the first time took: the compile time."""
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    function.compile_seconds = seconds[0] - seconds[1]
    function.settings = settings
    return function


def seconds_per_step(measured: dict[str, Any]) -> float:
    """Return the median time of one meta-step, from what was measured of `training`."""
    return measured["median"] / measured["settings"]["meta_steps"]


def target(what: str, limit: float, measured: float, *, at_least: bool = False) -> dict[str, Any]:
    """Set a measured value beside what was aimed at: at most `limit`, or `at_least` that."""
    met = measured >= limit if at_least else measured <= limit
    return {
        "what": what,
        "target": f"{'>=' if at_least else '<='} {limit:g}",
        "measured": measured,
        "met": bool(met),
    }


def _same_tasks(tasks: Task, key: jax.Array) -> Task:
    del key
    return tasks
