"""How far the meta-step is from what the machine can do, and where the rest of the time goes.

Measured in one run: the rate of a large product of matrices, the rate of XLA's batched products in
exactly the shapes and numbers of the meta-step (each alone, its operands in the cache), the rate of
memory; then the meta-step itself, whose operations are counted on its traced program, and a
profile of it.

    python -m benchmarks.limit [--quick]
"""

import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import harness

TASKS = 256
PROFILED_TASKS = 32
"""Few enough for the profiler to keep every event."""


class Product(NamedTuple):
    """A `dot_general`: shapes of both sides and which axes meet."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    dimensions: Any

    @property
    def flops(self) -> int:
        """A multiplication and an addition for every pair that meets."""
        (_, right_contracted), (_, right_batch) = self.dimensions
        free = math.prod(
            size
            for axis, size in enumerate(self.right)
            if axis not in (*right_contracted, *right_batch)
        )
        return 2 * math.prod(self.left) * free


def products(jaxpr: Any, times: int = 1) -> Iterator[tuple[Product, int]]:
    """List the products of a traced program and how often each is taken."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            left, right = (var.aval.shape for var in equation.invars)
            yield Product(left, right, equation.params["dimension_numbers"]), times
        length = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for each in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(each, "jaxpr", each)
                if hasattr(inner, "eqns"):
                    yield from products(inner, times * length)


def best_seconds(run: Callable[[], Any], rounds: int = 9) -> float:
    """Return the median of several calls after one that does not count."""
    import jax

    jax.block_until_ready(run())
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - begun)
    return sorted(times)[len(times) // 2]


def on_every_device(function: Callable, *arrays: Any) -> Callable[[], Any]:
    """Compile a function to run on each device at the same time, on copies of its own."""
    import jax
    import numpy as np
    from jax.sharding import Mesh, NamedSharding
    from jax.sharding import PartitionSpec as P

    mesh = Mesh(np.array(jax.devices()), ("core",))
    spread = NamedSharding(mesh, P("core"))
    copies = [jax.device_put(np.stack([a] * len(jax.devices())), spread) for a in arrays]
    local = jax.shard_map(
        lambda *own: function(*(array[0] for array in own))[None],
        mesh=mesh,
        in_specs=P("core"),
        out_specs=P("core"),
        check_vma=False,
    )
    compiled = jax.jit(local).lower(*copies).compile()
    return lambda: compiled(*copies)


def product_seconds(product: Product) -> float:
    """Return how long one such product takes while every device computes them."""
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(s, np.float32) for s in (product.left, product.right))
    repeats = max(20, int(5e7 / max(product.flops, 10_000)))

    def loop(left, right):
        def body(_, carry):
            operands, total = carry
            result = lax.dot_general(*operands, product.dimensions)
            operands, result = lax.optimization_barrier((operands, result))
            return operands, total + result.ravel()[0]

        start = ((left, right), jnp.zeros(()))
        return lax.fori_loop(0, repeats, body, start)[1][None]

    return best_seconds(on_every_device(loop, left, right), rounds=5) / repeats


def machine_rates() -> dict[str, float]:
    """Measure a large product on all cores and the speed of memory."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    size = 2048
    matrix = jnp.ones((size, size), jnp.float32)
    large = jax.jit(lambda a: a @ a)
    devices = len(jax.devices())
    own = np.ones((size, size), np.float32)
    numbers = np.ones(2**25, np.float32)
    each = best_seconds(on_every_device(lambda a: a @ a, own))
    stream = best_seconds(on_every_device(lambda a: a * 2.0 + 1.0, numbers))
    return {
        "GFLOP/s, one large product shared by all cores": 2e-9
        * size**3
        / best_seconds(lambda: large(matrix)),
        "GFLOP/s, a large product on every device": 2e-9 * size**3 * devices / each,
        "GB/s, memory read and written": 8e-9 * numbers.size * devices / stream,
    }


def job(second_order: bool) -> dict[str, Any]:
    """Measure the meta-step and its products."""
    import jax
    import jax.numpy as jnp
    import optax

    from maml_jax import Batch, Task, exact, first_order, fit, maml
    from maml_jax.meta.steps import meta_gradient
    from maml_jax.models import mlp
    from maml_jax.parallel.map import plan_tasks

    learner = maml(mlp(), gradient=exact() if second_order else first_order())
    rng = jax.random.split(jax.random.key(0), 4)
    shapes = ((20, 10), (20, 1), (10, 10), (10, 1))
    arrays = [
        jax.random.normal(key, (TASKS, *shape)) for key, shape in zip(rng, shapes, strict=True)
    ]
    tasks = Task(Batch(*arrays[:2]), Batch(*arrays[2:]))
    params = learner.init(rng[0], tasks.support.x[0])
    step = jnp.zeros((), jnp.int32)
    plan = plan_tasks(meta_gradient, (learner.loss,), tasks, params, step)
    where = plan.schedule
    chunk = jax.tree.map(lambda leaf: leaf[: where.chunk], tasks)
    traced = jax.make_jaxpr(
        lambda chunk, params: jax.vmap(lambda task: plan.function(task, params, step))(chunk)
    )(chunk, params)
    counts: Counter[Product] = Counter()
    for product, times in products(traced.jaxpr):
        counts[product] += times

    sampler = jax.tree_util.Partial(lambda tasks, key: tasks, tasks)
    steps, optimizer = 8, optax.adam(1e-3)

    def train():
        return fit(learner, optimizer, sampler, jax.random.key(0), steps=steps)[0]

    measured = best_seconds(train) / steps
    alone = {product: product_seconds(product) for product in counts}
    products_seconds = where.chunks * sum(n * alone[p] for p, n in counts.items())
    flops = where.slots * sum(n * p.flops for p, n in counts.items()) / where.chunk
    table = [
        {
            "left": "x".join(map(str, product.left)),
            "right": "x".join(map(str, product.right)),
            "meet": str(product.dimensions[0]),
            "times": number,
            "us": 1e6 * alone[product],
            "GFLOP/s": 1e-9 * product.flops / alone[product],
            "share %": 100 * where.chunks * number * alone[product] / products_seconds,
        }
        for product, number in sorted(counts.items(), key=lambda e: -e[1] * alone[e[0]])
    ]
    return {
        "ms": 1e3 * measured,
        "devices": where.devices,
        "chunk": where.chunk,
        "MFLOP of products a task": 1e-6 * flops / TASKS,
        "GFLOP/s of the meta-step": 1e-9 * flops / measured,
        "GFLOP/s of its products alone": 1e-9 * flops / products_seconds,
        "share": products_seconds / measured,
        "products": table,
        "profile": profile(learner, tasks),
    }


def profile(learner: Any, tasks: Any) -> dict[str, float]:
    """Tell which share of the time of the meta-gradient, on one device, each kind of work takes."""
    import jax

    from maml_jax.meta.steps import meta_gradient
    from maml_jax.parallel.map import average_tasks

    tasks = jax.tree.map(lambda leaf: leaf[:PROFILED_TASKS], tasks)
    params = learner.init(jax.random.key(0), tasks.support.x[0])
    function = meta_gradient(learner.loss)
    compiled = (
        jax.jit(lambda tasks, params: average_tasks(function, tasks, params, 0, devices=1))
        .lower(tasks, params)
        .compile()
    )
    jax.block_until_ready(compiled(tasks, params))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready(compiled(tasks, params))
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    kinds = kinds_of_work(compiled.as_text())
    spent: Counter[str] = Counter()
    whole = 0.0
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                if event.name in kinds:
                    spent[kinds[event.name]] += event.duration_ns
                elif event.name.startswith("while"):
                    whole = max(whole, event.duration_ns)
    spent["between operations"] = max(0.0, whole - sum(spent.values()))
    total = sum(spent.values())
    return {kind: 100 * part / total for kind, part in spent.most_common()}


def kinds_of_work(program: str) -> dict[str, str]:
    """Sort the operations of a compiled program's loops by what they do."""
    bodies: dict[str, str] = {}
    operations: dict[str, tuple[str, str]] = {}
    name = ""
    for line in program.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = head[1]
            bodies[name] = ""
        elif found := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = \S+ ([\w\-]+)\(", line):
            bodies[name] = bodies.get(name, "") + f" {found[2]}("
            called = re.search(r"calls=%?([\w.\-]+)", line)
            operations[found[1]] = (found[2], called[1] if called else "")
    kinds = {}
    for operation, (code, called) in operations.items():
        work = bodies.get(called, "") if code == "fusion" else f" {code}("
        if " dot(" in work:
            kinds[operation] = "products"
        elif " tanh(" in work:
            kinds[operation] = "tanh, with what is merged into it"
        elif " reduce(" in work:
            kinds[operation] = "sums"
        elif code == "fusion":
            kinds[operation] = "elementwise"
        elif code in ("copy", "transpose", "concatenate", "dynamic-slice", "dynamic-update-slice"):
            kinds[operation] = "moving data"
    return kinds


def main() -> None:
    """Measure the machine, then both orders."""
    asked = harness.arguments(__doc__ or "")
    harness.use_devices()
    rates = machine_rates()
    harness.show("the machine", [{"rate": name, "": value} for name, value in rates.items()])
    jobs = {}
    for order, second in (("second order", True), ("first order", False)):
        found = jobs[order] = job(second)
        flat = [{"": k, "value": v} for k, v in found.items() if not isinstance(v, list | dict)]
        harness.show(f"{order}, {TASKS} tasks", flat)
        harness.show("its products, each alone", found["products"][:12])
        profiled = [{"kind of work": k, "% of the time": v} for k, v in found["profile"].items()]
        harness.show("profile", profiled)
    share = jobs["second order"]["share"]
    target = {"what": "share of XLA's own rate for the same products", "target": 0.5}
    record = {
        "rates": rates,
        "jobs": jobs,
        "targets": [target | {"measured": share, "met": share >= target["target"]}],
    }
    if not asked.quick:
        harness.write("limit", record)


if __name__ == "__main__":
    main()
