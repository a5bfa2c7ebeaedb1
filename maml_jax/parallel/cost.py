"""What a function costs, read off its traced program."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, Literal

from maml_jax.parallel.pool import FFT, LAPACK, find_calls, inner_jaxprs


class Cost(NamedTuple):
    """What one evaluation of a function costs.

    Attributes:
        flops: floating-point operations; a multiplication and an addition are two, as are those of
            every product of matrices; any other operation counts one per number that it makes.
        bytes: the most that its intermediate values and results hold at one time, inputs left out.
            The compiler, which merges operations, stays below it.
        pool_calls: the calls that, once tasks are vectorised, may wait for threads of XLA's own
            pool on a CPU, by name: LAPACK's and Fourier transforms. Which of them do is said by
            `maml_jax.parallel.pool`.
    """

    flops: int
    bytes: int
    pool_calls: tuple[str, ...] = ()


def count_cost(jaxpr: Jaxpr) -> Cost:
    """Count the cost of a traced function.

    A scan costs its body times its length, a `cond` its most expensive branch; a `while` loop,
    whose length nobody knows, is counted once.
    """
    return Cost(*_count(jaxpr), find_calls(jaxpr, LAPACK | FFT))


def _count(jaxpr: Jaxpr) -> tuple[int, int]:
    """Return operations and bytes."""
    last_use = {
        var: index
        for index, equation in enumerate((*jaxpr.eqns, jaxpr))
        for var in (equation.outvars if equation is jaxpr else equation.invars)
        if not isinstance(var, Literal)
    }
    flops = held = peak = 0
    alive: set[Any] = set()
    for index, equation in enumerate(jaxpr.eqns):
        inner = [_count(each) for each in _inner_jaxprs(equation)]
        flops += _flops(equation, [count for count, _ in inner])
        alive.update(equation.outvars)
        held += sum(map(_bytes, equation.outvars))
        peak = max(peak, held + max((most for _, most in inner), default=0))
        done = {
            var
            for var in (*equation.invars, *equation.outvars)
            if not isinstance(var, Literal) and var in alive and last_use.get(var, index) <= index
        }
        alive -= done
        held -= sum(map(_bytes, done))
    return flops, peak


def _flops(equation: Any, inner: list[int]) -> int:
    name = equation.primitive.name
    made = sum(map(_size, equation.outvars))
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * made * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
        return 2 * made * math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    if name == "scan":
        return equation.params["length"] * sum(inner)
    if name == "cond":
        return max(inner)
    return sum(inner) if inner else made


def _inner_jaxprs(equation: Any) -> Iterator[Jaxpr]:
    for value in equation.params.values():
        yield from inner_jaxprs(value)


def _size(var: Any) -> int:
    return math.prod(getattr(var.aval, "shape", ()))


def _bytes(var: Any) -> int:
    return _size(var) * getattr(getattr(var.aval, "dtype", None), "itemsize", 0)
