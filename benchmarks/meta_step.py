"""One meta-step of MAML on small regression tasks, against every way to do it in PyTorch.

MLP 10-64-64-1 (tanh), 20 support and 10 query rows, 5 inner steps of SGD; one meta-step is the
meta-gradient, clipping of its norm, and Adam. Equality of meta-gradients is checked first.

    python -m benchmarks.meta_step [--peers] [--quick]
"""

import time
from typing import Any

from benchmarks import harness
from benchmarks.peers.problem import Problem, make_problem

SIZES = (4, 32, 256)
ORDERS = {"second order": True, "first order": False}
LOOPS = ("seed_loop", "learn2learn_loop", "higher_loop")
ONCE = ("higher_loop", "torchopt_vmap")
"""Forms much like others, measured at one size."""

FORMS = (
    *LOOPS,
    *("torchopt_vmap", "func_vmap", "bmm", "compiled_vmap"),
    *("bmm_by_hand", "compiled_by_hand"),
)
OURS = "maml_jax fit"

TARGETS = (
    # order, tasks, ratio of whom, at least
    ("second order", 256, "best eager", 3.0),
    ("second order", 256, "best compiled", 1.5),
    ("second order", 256, "seed_loop", 25.0),
    ("second order", 32, "learn2learn_loop", 25.0),
    ("second order", 32, "best compiled", 1.3),
    ("second order", 4, "learn2learn_loop", 12.0),
    ("first order", 256, "best eager", 2.0),
    ("first order", 32, "best eager", 1.5),
    ("first order", 4, "best eager", 1.5),
)


def ours(tasks: int, second_order: bool) -> dict[str, Any]:
    """The library: in `fit`, called step by step, and without its scheduling."""
    harness.use_devices()
    import jax
    import jax.numpy as jnp
    import optax

    from maml_jax import Batch, Task, exact, first_order, fit, maml, meta_init, meta_step
    from maml_jax.meta import MetaState
    from maml_jax.models import mlp

    problem = make_problem(tasks, second_order=second_order)
    learner = maml(
        mlp(tuple(w.shape[1] for w, _ in problem.params)),
        inner_optimizer=optax.sgd(problem.inner_rate),
        inner_steps=problem.inner_steps,
        gradient=exact() if second_order else first_order(),
    )
    optimizer = optax.adam(1e-3)
    batch = Task(
        Batch(jnp.asarray(problem.support_x), jnp.asarray(problem.support_y)),
        Batch(jnp.asarray(problem.query_x), jnp.asarray(problem.query_y)),
    )
    start = meta_init(learner, optimizer, jax.random.key(0), batch.support.x[0])
    params = start.params
    for layer, (kernel, bias) in enumerate(problem.params):
        params["layers"][layer] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    start = MetaState(params, optimizer.init(params), start.step)
    sampler = jax.tree_util.Partial(lambda tasks, key: tasks, batch)
    steps = max(2, 256 // tasks)

    def in_fit():
        return jax.block_until_ready(
            fit(learner, optimizer, sampler, jax.random.key(0), steps=steps, state=start)[0]
        )

    state = [start]

    def step_by_step():
        state[0], _ = jax.block_until_ready(meta_step(learner, optimizer, state[0], batch))

    plain_step, plain_state = _make_plain_step(learner, optimizer), [start]

    def plain():
        plain_state[0] = jax.block_until_ready(plain_step(plain_state[0], batch))

    def gradient():
        descent, rate = optax.sgd(1.0), {"max_grad_norm": None}
        state = MetaState(params, descent.init(params), start.step)
        moved, _ = meta_step(learner, descent, state, batch, **rate)
        found = jax.tree.map(lambda a, b: a - b, params, moved.params)["layers"]
        return [jax.device_get(layer[name]) for layer in _ordered(found) for name in ORDER]

    in_fit.steps = steps
    for function in (in_fit, step_by_step, plain):
        begun = time.perf_counter()
        function()
        function.compile_seconds = time.perf_counter() - begun
    return {
        OURS: in_fit,
        "maml_jax meta_step": step_by_step,
        "JAX, plain vmap": plain,
        "_gradient": gradient,
    }


def _make_plain_step(learner, optimizer):
    """Make a meta-step as a user of plain JAX would write it."""
    import jax
    import jax.numpy as jnp
    import optax

    from maml_jax.meta import MetaState

    @jax.jit
    def plain_step(state, batch):
        def mean_loss(params):
            losses, _ = jax.vmap(lambda task: learner.loss(params, task, state.step))(batch)
            return losses.mean()

        grad = jax.grad(mean_loss)(state.params)
        scale = jnp.minimum(1.0, 1.0 / optax.tree.norm(grad))
        grad = jax.tree.map(lambda leaf: leaf * scale, grad)
        updates, opt_state = optimizer.update(grad, state.opt_state)
        new = optax.apply_updates(state.params, updates)
        return MetaState(new, opt_state, state.step + 1)

    return plain_step


ORDER = ("kernel", "bias")


def _ordered(layers: dict) -> list:
    return [layers[number] for number in sorted(layers)]


def peer(form: str, tasks: int, second_order: bool) -> dict[str, Any]:
    """One PyTorch form at its best settings."""
    from benchmarks.peers import meta_step as peers

    problem: Problem = make_problem(tasks, second_order=second_order)
    contestant = peers.FORMS[form](problem)
    if form in LOOPS:
        contestant.threads = 1  # the best for every loop: its operations are too small to share
    else:
        contestant.tune()

    def run():
        contestant.step()

    run.compile_seconds = getattr(contestant, "compile_seconds", None)
    plan = getattr(contestant, "plan", None)
    run.settings = str(plan) if plan is not None else f"threads={contestant.threads}"

    def gradient():
        return [array for layer in contestant.gradient()[1] for array in layer]

    return {form: run, "_gradient": gradient}


def measure(tasks: int, order: str, forms: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """Check that all find the same meta-gradient, then time them in turn."""
    own = harness.Worker(ours, tasks=tasks, second_order=ORDERS[order])
    expected = own.value("_gradient")
    rivals = []
    for form in forms:
        rival = harness.Worker(peer, form=form, tasks=tasks, second_order=ORDERS[order])
        harness.require_equal(rival.value("_gradient"), expected, what=f"{form}, {tasks} tasks")
        rivals.append(rival)
    try:
        return harness.in_turn([own, *rivals], rounds=rounds, longest=5.0)
    finally:
        for worker in (own, *rivals):
            worker.close()


def ratios(found: dict[str, dict[str, Any]], by_hand: frozenset[str]) -> dict[str, float]:
    """Return how many times the library is faster than each peer and than the best of a kind."""
    median = {name: entry["median"] for name, entry in found.items()}
    own = median[OURS]
    result = {name: seconds / own for name, seconds in median.items() if name != OURS}
    kinds = {
        "best eager": [
            n for n in median if n in FORMS and "compiled" not in n and n not in by_hand
        ],
        "best compiled": [n for n in median if "compiled" in n and n not in by_hand],
        "best eager by hand": [n for n in median if n in by_hand and "compiled" not in n],
        "best compiled by hand": [n for n in median if n in by_hand and "compiled" in n],
    }
    return result | {
        kind: min(median[n] for n in names) / own for kind, names in kinds.items() if names
    }


def figure(cases: list[dict[str, Any]]) -> Any:
    """Draw the time of every form at every size."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawing, panels = pyplot.subplots(1, len(ORDERS), figsize=(11, 4.2), sharey=True)
    names = list(dict.fromkeys(name for case in cases for name in case["times"]))
    colours = dict(zip(names, pyplot.get_cmap("tab20").colors, strict=False))
    for panel, order in zip(panels, ORDERS, strict=True):
        chosen = [case for case in cases if case["order"] == order]
        for name in chosen[1]["times"]:
            measured = [case for case in chosen if name in case["times"]]
            times = [1e3 * case["times"][name]["median"] for case in measured]
            own = name.startswith("maml_jax")
            panel.loglog(
                [case["tasks"] for case in measured],
                times,
                marker="o",
                linewidth=2.5 if own else 1,
                color=colours[name],
                label=name.replace("_", " ") if not own else name,
            )
        panel.set_title(order)
        panel.set_xlabel("tasks of a meta-batch")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("milliseconds for a meta-step")
    handles, labels = panels[0].get_legend_handles_labels()
    panels[-1].legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return drawing


def main() -> None:
    """Measure all sizes and both orders."""
    asked = harness.arguments(__doc__ or "")
    forms: tuple[str, ...] = ()
    by_hand: frozenset[str] = frozenset()
    if asked.peers:
        from benchmarks.peers import meta_step as peers

        forms, by_hand = FORMS, peers.BY_HAND
    cases = []
    for order in ORDERS:
        for tasks in SIZES[:2] if asked.quick else SIZES:
            chosen = forms if tasks == SIZES[1] else tuple(f for f in forms if f not in ONCE)
            if order == "first order" and tasks < max(SIZES):  # compiling takes minutes in all
                chosen = tuple(form for form in chosen if not form.startswith("compiled"))
            times = measure(tasks, order, chosen, rounds=5 if asked.quick else 15)
            case = {
                "order": order,
                "tasks": tasks,
                "times": times,
                "ratios": ratios(times, by_hand),
            }
            cases.append(case)
            harness.show(
                f"{order}, {tasks} tasks",
                [
                    {
                        "form": name,
                        "ms": 1e3 * entry["median"],
                        "best": 1e3 * entry["best"],
                        "times ours": entry["median"] / times[OURS]["median"],
                        "compiling s": entry.get("compile_seconds"),
                        "settings": entry.get("settings", ""),
                    }
                    for name, entry in times.items()
                ],
            )
    record = {"cases": cases, "by_hand": sorted(by_hand), "targets": check(cases)}
    if record["targets"]:
        harness.show("targets", record["targets"])
    if not asked.quick:
        harness.write("meta_step", record, figure(cases))


def check(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare the ratios with what the project wants to reach."""
    rows = []
    for order, tasks, whom, least in TARGETS:
        for case in cases:
            if (case["order"], case["tasks"]) == (order, tasks) and whom in case["ratios"]:
                reached = case["ratios"][whom]
                by_hand = case["ratios"].get(f"{whom} by hand")
                rows.append(
                    {
                        "what": f"{order}, {tasks} tasks, against {whom.replace('_', ' ')}",
                        "target": least,
                        "measured": reached,
                        "met": reached >= least,
                        "against derivations by hand": by_hand,
                    }
                )
    return rows


if __name__ == "__main__":
    main()
