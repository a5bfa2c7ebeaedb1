"""The vocabulary of the mechanism: what a task, a model and a meta-learner are."""

from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
from jaxtyping import Array, Float, Key

Params: TypeAlias = Any
"""Any pytree of arrays."""

Info: TypeAlias = Any
"""Any pytree of arrays that describes what happened and feeds nothing back."""

Scalar: TypeAlias = Float[Array, ""]


class Batch(NamedTuple):
    """One set of examples.

    Attributes:
        x: inputs, `[n, *features]`.
        y: targets, `[n, *targets]`.
    """

    x: Float[Array, "n *features"]
    y: Float[Array, "n *targets"]


class Task(NamedTuple):
    """One learning problem: adapt on the support set, be judged on the query set."""

    support: Batch
    query: Batch


class Prediction(NamedTuple):
    """What a probabilistic learner predicts: a mean and a standard deviation of one shape."""

    mean: Float[Array, "n *targets"]
    std: Float[Array, "n *targets"]


@runtime_checkable
class InitFn(Protocol):
    """Makes fresh parameters that fit an example input."""

    def __call__(self, key: Key[Array, ""], x: Float[Array, "..."], /) -> Params: ...


@runtime_checkable
class ApplyFn(Protocol):
    """Computes outputs from parameters and inputs."""

    def __call__(self, params: Params, x: Float[Array, "..."], /) -> Float[Array, "..."]: ...


@runtime_checkable
class ModelLike(Protocol):
    """Anything with `init` and `apply`: a `Model`, a `flax.linen` module, a user's own."""

    @property
    def init(self) -> InitFn:
        """Makes fresh parameters."""
        ...

    @property
    def apply(self) -> ApplyFn:
        """Computes outputs."""
        ...


class Model(NamedTuple):
    """A network as a pair of pure functions; a `flax.linen` module fits in its place as it is."""

    init: InitFn
    apply: ApplyFn


@runtime_checkable
class LossFn(Protocol):
    """Compares outputs with targets and returns one number."""

    def __call__(self, y_hat: Any, y: Any, /) -> Scalar: ...


@runtime_checkable
class AdaptFn(Protocol):
    """Fits one task from its support set.

    `steps` asks for another number of adaptation steps than the learner was made with; learners
    that take no steps refuse it.
    """

    def __call__(
        self, meta_params: Params, support: Batch, /, steps: int | None = None
    ) -> Params: ...


@runtime_checkable
class PredictFn(Protocol):
    """Predicts with adapted parameters: `y_hat [n, *targets]`, or a `Prediction`."""

    def __call__(self, adapted: Params, x: Float[Array, "n *features"], /) -> Any: ...


@runtime_checkable
class MetaLossFn(Protocol):
    """The loss of one task; its gradient in the meta-parameters IS the meta-gradient.

    `step` is the number of the meta-step, for algorithms that anneal.
    """

    def __call__(
        self, meta_params: Params, task: Task, step: jax.Array | int, /
    ) -> tuple[Scalar, Info]: ...


@runtime_checkable
class UpdateFn(Protocol):
    """Takes further labelled rows in, at a cost that does not grow with those taken in before."""

    def __call__(self, adapted: Params, batch: Batch, /) -> Params: ...


class MetaLearner(NamedTuple):
    """A meta-learning algorithm: pure functions for ONE task; `vmap` makes them many.

    Attributes:
        init: `(key, x) -> meta_params`, fresh meta-parameters for inputs shaped like `x`.
        adapt: `(meta_params, support, steps=None) -> adapted`; usable alone, builds no outer graph.
        predict: `(adapted, x) -> y_hat`.
        loss: `(meta_params, task, step) -> (scalar, info)`.
        update: `(adapted, batch) -> adapted`, the same as adapting to the rows seen before and
            those of `batch` together; None where an algorithm has no such recursion. Learners that
            have one adapt to an empty support set too: it gives the prior.
    """

    init: InitFn
    adapt: AdaptFn
    predict: PredictFn
    loss: MetaLossFn
    update: UpdateFn | None = None
