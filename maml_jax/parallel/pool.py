"""Calls that wait for threads of XLA's own pool, and how a program does without the waiting.

On a CPU all devices of a process share one pool of threads, which runs parts of their programs.
Some calls on a batch split it among those threads and wait for them. Where such calls fill the
pool, on several devices or side by side in the program of one, nobody is left to work for them:
they wait for ever. As long as there are more threads than calls that can run at one time, all goes
well. Where there are not, a batch is taken in turn here: a call on one matrix, or on one signal,
has nothing to split.
"""

import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun

from maml_jax.parallel.machine import fft_waits, lapack_waits, pool_threads

LAPACK = frozenset(
    "cholesky eig eigh geqp3 geqrf hessenberg householder_product lu ormqr qr schur svd"
    " triangular_solve tridiagonal tridiagonal_solve".split()
)
"""Primitives that are LAPACK's on a CPU; each has an operand that is a matrix."""

FFT = frozenset({"fft"})

_log = logging.getLogger("maml_jax")


def inner_jaxprs(value: Any) -> Iterator[Jaxpr]:
    """Find the programs within a parameter of an equation."""
    for each in value if isinstance(value, tuple | list) else (value,):
        each = getattr(each, "jaxpr", each)
        if isinstance(each, Jaxpr):
            yield each


def waiting_calls() -> frozenset[str]:
    """Return the primitives that wait for the pool with the jaxlib that is installed."""
    return (LAPACK if lapack_waits() else frozenset()) | (FFT if fft_waits() else frozenset())


def find_calls(jaxpr: Jaxpr, names: frozenset[str], *, batched: bool = False) -> tuple[str, ...]:
    """Find calls in a traced program.

    Args:
        jaxpr: the program.
        names: of primitives.
        batched: only calls on more than one matrix or signal, which alone can be split. Loops that
            take one after another, as `maml_jax.meta.linalg` has, hold none.

    Returns:
        A name for each call.
    """
    found: list[str] = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in names and not (batched and math.prod(_batch(equation)) == 1):
            found.append(equation.primitive.name)
        for value in _on_cpu(equation).values():
            for inner in inner_jaxprs(value):
                found.extend(find_calls(inner, names, batched=batched))
    return tuple(found)


def without_waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` such that no call in it can wait for XLA's pool for ever.

    It stays as it is where the pool has more threads than could be waited in: one for every call
    and CPU device of this process. Otherwise calls on a batch become loops, on a CPU.

    Args:
        function: of all tasks that are vectorised together; vectorising it further would make
            batches again.
    """

    def safe(*arguments):
        jaxpr, results = jax.make_jaxpr(function, return_shape=True)(*arguments)
        names = waiting_calls()
        calls = find_calls(jaxpr.jaxpr, names, batched=True)
        devices = len(jax.local_devices(backend="cpu"))
        if devices * len(calls) >= pool_threads():
            _log.info(
                "%s on %d CPU device(s) could wait for XLA's pool of %d threads for ever: batches"
                ' are taken in turn; with os.environ["NPROC"] = "%d" before JAX is used they are'
                " not",
                *(", ".join(sorted(set(calls))), devices, pool_threads()),
                devices * len(calls) + 1,
            )
            jaxpr = _in_turn(jaxpr, names)
        flat = jaxpr_as_fun(jaxpr)(*jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(results), flat)

    return safe


def _in_turn(jaxpr: Any, names: frozenset[str]) -> Any:
    """Replace calls on batches by loops, in a program and all that it holds."""
    if jaxpr is not getattr(jaxpr, "jaxpr", jaxpr):  # JAX 0.11 has one class for both
        return ClosedJaxpr(_in_turn(jaxpr.jaxpr, names), jaxpr.consts)
    return jaxpr.replace(eqns=[_equation_in_turn(equation, names) for equation in jaxpr.eqns])


def _equation_in_turn(equation: Any, names: frozenset[str]) -> Any:
    if equation.primitive.name in names and math.prod(_batch(equation)) != 1:
        loop = jax.make_jaxpr(jax.jit(partial(_loop, equation)))(
            *(jax.ShapeDtypeStruct(var.aval.shape, var.aval.dtype) for var in equation.invars)
        )
        return loop.eqns[0].replace(invars=equation.invars, outvars=equation.outvars)
    params = {
        name: _replace_jaxprs(value, names)
        for name, value in equation.params.items()
        if any(True for _ in inner_jaxprs(value))
    }
    return equation.replace(params=equation.params | params) if params else equation


def _replace_jaxprs(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, tuple | list):
        replaced = [_replace_jaxprs(each, names) for each in value]
        return type(value)(*replaced) if hasattr(value, "_fields") else type(value)(replaced)
    return _in_turn(value, names) if isinstance(value, Jaxpr | ClosedJaxpr) else value


def _loop(equation: Any, *values: Any) -> Any:
    call = partial(equation.primitive.bind, **equation.params)
    batch = _batch(equation)

    def in_turn(*values):
        flat = [value.reshape(-1, *value.shape[len(batch) :]) for value in values]
        results = lax.map(lambda each: call(*each), flat)
        return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), results)

    return lax.platform_dependent(*map(jnp.asarray, values), cpu=in_turn, default=call)


def _batch(equation: Any) -> tuple[int, ...]:
    """Return the leading axes of a call: of what comes before a matrix, or before a signal."""
    own = len(equation.params["fft_lengths"]) if equation.primitive.name in FFT else 2
    widest = max((var.aval.shape for var in equation.invars), key=len)
    return widest[: len(widest) - own]


def _on_cpu(equation: Any) -> dict[str, Any]:
    """Return the parameters of an equation, without branches for other platforms."""
    params = dict(equation.params)
    platforms = params.get("branches_platforms")
    if platforms is not None:
        mine = next((i for i, each in enumerate(platforms) if each is None or "cpu" in each), 0)
        params["branches"] = (params["branches"][mine],)
    return params
