"""Marks values through which only reverse-mode derivatives can be taken, with an error that helps.

JAX's own error for a `custom_vjp` that meets forward mode cannot say what to use instead. The mark
is the identity; its tangent passes through a second identity that reverse mode transposes away and
that refuses to be computed, which only forward mode would do.
"""

from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from maml_jax.errors import GradientError
from maml_jax.meta.gradients._floating import is_floating

_value = Primitive("reverse_only")
_tangent = Primitive("reverse_only_tangent")


def reverse_only(tree: Any, mode: str) -> Any:
    """Return a pytree as it is, refusing forward-mode derivatives with respect to it.

    Args:
        tree: any pytree; only its floating leaves are marked.
        mode: what cannot be differentiated in forward mode, as the error names it.

    Raises:
        GradientError: where a forward-mode derivative is computed (`jax.jvp`, `jax.jacfwd`, `jax.
            linearize` used as a function), or compiled.
    """

    def mark(leaf):
        return _value.bind(leaf, mode=mode) if is_floating(leaf) else leaf

    return jax.tree.map(mark, tree)


def _refuse(*_, mode: str, **__):
    raise GradientError(
        f"{mode} has no forward-mode derivative (jax.jvp, jax.jacfwd, jax.hessian): use "
        "gradient=exact(), which has every derivative, or reverse mode (jax.grad, jax.vjp)"
    )


def _identity(value, **_):
    return value


def _forward(primals, tangents, *, mode):
    (value,), (tangent,) = primals, tangents
    if isinstance(tangent, ad.Zero):
        return _value.bind(value, mode=mode), tangent
    return _value.bind(value, mode=mode), _tangent.bind(tangent, mode=mode)


def _batch(values, axes, *, mode):
    return _value.bind(values[0], mode=mode), axes[0]


for _primitive in (_value, _tangent):
    _primitive.def_abstract_eval(_identity)

_value.def_impl(_identity)
_tangent.def_impl(_refuse)
batching.primitive_batchers[_value] = _batch
batching.primitive_batchers[_tangent] = _refuse
ad.primitive_jvps[_value] = _forward
ad.deflinear2(_tangent, lambda cotangent, _, mode: [cotangent])
mlir.register_lowering(_value, lambda ctx, *args, **kw: [args[0]])
mlir.register_lowering(_tangent, _refuse)
