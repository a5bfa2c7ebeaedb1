"""ANIL: only the head of the network adapts; what feeds it is meta-learned and stays."""

import re
from collections.abc import Callable

import jax

from maml_jax.errors import ShapeError
from maml_jax.learners._descent import INNER_STEPS, by_descent, whole_network
from maml_jax.meta.gradients import GradientMode, exact
from maml_jax.meta.losses import mean_squared_error
from maml_jax.meta.optimizers import learned_rates
from maml_jax.meta.types import InnerOptimizer, LossFn, MetaLearner, ModelLike, Params


def anil(
    model: ModelLike,
    *,
    adapts: Callable[[str], bool] | None = None,
    inner_optimizer: InnerOptimizer = learned_rates(0.01),
    inner_steps: int = INNER_STEPS,
    gradient: GradientMode = exact(),
    loss: LossFn = mean_squared_error,
) -> MetaLearner:
    r"""Make the ANIL learner (almost no inner loop).

    $$\theta = (\theta_{body}, \theta_{head}), \qquad \theta_{head}' = \theta_{head} -
      \alpha\nabla_{\theta_{head}} L^{support}(\theta_{body}, \theta_{head}) \text{ (repeated)}$$

    Both parts are meta-learned; the adapted parameters are the whole network's.

    Args:
        model: `(init, apply)`.
        adapts: says which leaves adapt, from their path such as `"layers.2.kernel"`. Default: the
            layer named `head`, `out` or `output`, or the last one where all layers have one name
            and numbers.
        inner_optimizer: adapts the head; by default one learned rate for each leaf.
        inner_steps: steps of adaptation.
        gradient: how to differentiate through adaptation.
        loss: compares outputs with targets.

    Returns:
        A `MetaLearner` whose `info` is an `AdaptationInfo`.

    Raises:
        ShapeError: from `init`, if no leaf adapts, or the last layer is not clear from the names;
            the message lists the paths.

    Reference:
        Raghu, Raghu, Bengio, Vinyals (2020), Rapid Learning or Feature Reuse?, arXiv:1909.09157.

    >>> import jax, jax.numpy as jnp
    >>> from maml_jax.models import mlp
    >>> body_and_head = mlp((8, 8, 1)).init(jax.random.key(0), jnp.zeros((1, 3)))
    >>> [path for path in paths_of(body_and_head) if is_last_layer(body_and_head)(path)]
    ['layers.2.bias', 'layers.2.kernel']
    """

    def mark_adapting(theta: Params) -> list[bool]:
        paths = paths_of(theta)
        is_adapting = is_last_layer(theta) if adapts is None else adapts
        marks = [bool(is_adapting(path)) for path in paths]
        if not any(marks):
            raise ShapeError(
                f"`adapts` selects no parameter; the parameters are {', '.join(paths)}"
            )
        return marks

    def split(theta: Params) -> tuple[list, Params]:
        leaves, structure = jax.tree.flatten(theta)
        marks = mark_adapting(theta)
        body = [None if mark else leaf for leaf, mark in zip(leaves, marks, strict=True)]
        head = [leaf for leaf, mark in zip(leaves, marks, strict=True) if mark]
        return head, jax.tree.unflatten(structure, body)

    def join(head: list, body: Params) -> Params:
        rest = iter(head)
        leaves, structure = jax.tree.flatten(body, is_leaf=lambda leaf: leaf is None)
        return jax.tree.unflatten(
            structure, [next(rest) if leaf is None else leaf for leaf in leaves]
        )

    network = whole_network(model)

    def init(key, x, /) -> Params:
        theta = network.init(key, x)
        mark_adapting(theta)
        return theta

    return by_descent(
        network._replace(init=init, split=split, join=join),
        inner_optimizer=inner_optimizer,
        inner_steps=inner_steps,
        gradient=gradient,
        loss=loss,
    )


def paths_of(params: Params) -> list[str]:
    """Return the path of each leaf, in the order of `jax.tree.leaves`."""
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path(params)
    ]


def is_last_layer(params: Params) -> Callable[[str], bool]:
    """Return the predicate that picks the leaves of a network's last layer by their path.

    Raises:
        ShapeError: if layers of several kinds stand side by side, none of them called a head: the
            order of their names would not be the order in which they are computed.
    """
    paths = paths_of(params)
    layers = {path: path.rpartition(".")[0] for path in paths}
    heads = [path for path in paths if re.match(r"(params\.)?(head|out|output)(\.|$)", path)]
    if heads:
        return lambda path: path in heads
    kinds = {re.sub(r"\d+$", "", layer) for layer in layers.values()}
    if len(kinds) > 1 or ("" in layers.values() and len(paths) > 1):
        raise ShapeError(
            "which layer is the last is not clear from the names of the parameters; say which "
            f'adapt, as in adapts=lambda path: path.startswith("head"); there are '
            f"{', '.join(paths)}"
        )
    last = max(layers.values(), key=_natural)
    return lambda path: layers[path] == last


def _natural(path: str) -> list:
    """Order `Dense_10` behind `Dense_9`."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)|\.", path)
        if part
    ]
