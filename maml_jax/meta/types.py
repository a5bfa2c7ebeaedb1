"""The vocabulary of the mechanism: what a task, a model and a meta-learner are."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import optax
from jaxtyping import Array, Float, Key, Num

Params: TypeAlias = Any
"""Any pytree of arrays."""

Info: TypeAlias = Any
"""Any pytree of arrays that describes what happened and feeds nothing back."""

Scalar: TypeAlias = Float[Array, ""]

Setting: TypeAlias = float | Float[Array, ""]
"""A number, traced or not."""

_MISSING = object()


class Batch(NamedTuple):
    """One set of examples.

    Attributes:
        x: inputs, `[n, *features]`.
        y: targets, `[n, *targets]`: numbers, or classes as integers.
        weight: of each row, `[n]`, not negative. A row of weight 0 is not there, whatever stands in
            it, NaN included; one of weight 2 counts as if it were there twice. None: all count
            alike.
    """

    x: Float[Array, "n *features"]
    y: Num[Array, "n *targets"]
    weight: Float[Array, " n"] | None = None


class Task(NamedTuple):
    """One learning problem: adapt on the support set, be judged on the query set.

    Attributes:
        support: the rows to adapt on.
        query: the rows to be judged on.
        weight: of the task in the mean over a meta-batch, `[]`, not negative; None: all alike.
        key: decides what is random in the task, such as dropout; None: nothing is.
    """

    support: Batch
    query: Batch
    weight: Scalar | None = None
    key: Key[Array, ""] | None = None


class Prediction(NamedTuple):
    """What a probabilistic learner predicts: a mean and a standard deviation of one shape."""

    mean: Float[Array, "n *targets"]
    std: Float[Array, "n *targets"]


class AdaptationInfo(NamedTuple):
    """The `info` of a learner: what adapting to one task did.

    Attributes:
        support_loss_before: support loss before the first step; of the prior where there are no
            steps.
        support_loss_after: support loss at the adapted parameters.
    """

    support_loss_before: Float[Array, ""]
    support_loss_after: Float[Array, ""]


class MetaParams(NamedTuple):
    """Meta-parameters of a learner whose inner optimizer is learned too.

    Attributes:
        start: the meta-parameters that it would have with a fixed inner optimizer.
        settings: of the inner optimizer.
    """

    start: Params
    settings: Any


@runtime_checkable
class InitFn(Protocol):
    """The `init` of a network or a learner."""

    def __call__(self, key: Key[Array, ""], x: Float[Array, "..."], /) -> Params:
        """Make fresh parameters.

        Args:
            key: the only source of randomness: one key, one set of parameters.
            x: example inputs, `[n, *features]`. Only shape and dtype count, and of the shape only
                `features`: parameters fit any number of rows.

        Returns:
            Any pytree of arrays. Of a network, every leaf is learned: there is no place for running
            state.
        """
        ...


@runtime_checkable
class ApplyFn(Protocol):
    """The `apply` of a network."""

    def __call__(self, params: Params, x: Float[Array, "..."], /) -> Any:
        """Compute outputs, row by row.

        Args:
            params: as `init` returns them.
            x: inputs, `[n, *features]`; of a sequence model `[n, bar, feature]`, the latest bar
                last.

        Returns:
            Outputs `[n, outputs]`, or a `Prediction`.
        """
        ...


@runtime_checkable
class RandomApplyFn(Protocol):
    """The `apply_with_key` of a network in which something is random in training."""

    def __call__(self, params: Params, x: Float[Array, "..."], key: Key[Array, ""], /) -> Any:
        """Compute outputs with what is random drawn by a key.

        Args:
            params: as `init` returns them.
            x: inputs, `[n, *features]`.
            key: the only source of randomness.

        Returns:
            Outputs as `apply` returns them.
        """
        ...


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
    """A network as a pair of pure functions; a `flax.linen` module serves as it is.

    Attributes:
        init: `(key, x [n, *features]) -> params`.
        apply: `(params, x [n, *features]) -> outputs [n, outputs]`, or a `Prediction`.
        apply_with_key: `(params, x, key) -> outputs`, where something is random in training, such
            as dropout; `apply` is then without it. See `maml_jax.models.stochastic`.
    """

    init: InitFn
    apply: ApplyFn
    apply_with_key: RandomApplyFn | None = None


@runtime_checkable
class LossFn(Protocol):
    """Compares outputs with targets.

    A loss may take two arguments more, by name: `weight`, the weights of the rows `[n]`, where rows
    have weights, and `key`, where tasks have one. Without an argument `weight` it must be a mean
    over rows: of weighted rows it is computed row by row.
    """

    def __call__(self, y_hat: Any, y: Any, /) -> Scalar:
        """Return one number, smaller where predictions are better.

        Args:
            y_hat: outputs `[n, *targets]`, logits `[n, classes]`, or a `Prediction`.
            y: targets, `[n, *targets]`; classes as integers `[n]`.

        Returns:
            The mean over rows, `[]`, differentiable in `y_hat`.
        """
        ...


@runtime_checkable
class SettingsFn(Protocol):
    """The `init` of a `LearnedOptimizer`."""

    def __call__(self, key: Key[Array, ""], params: Params, /) -> Any:
        """Make the settings with which meta-learning begins.

        Args:
            key: the only source of randomness.
            params: parameters that the optimizer will update; only shapes and dtypes count.

        Returns:
            Any pytree of floating arrays.
        """
        ...


class _LearnedOptimizer(NamedTuple):
    init: SettingsFn
    transform: optax.GradientTransformationExtraArgs


class LearnedOptimizer(_LearnedOptimizer):
    """An inner optimizer whose settings are meta-parameters.

    Attributes:
        init: `(key, params) -> settings`, a pytree of floating arrays.
        transform: an optax transformation whose update takes the extra argument `settings`. For
            others before or behind it see `maml_jax.meta.optimizers.chain`.
    """

    __slots__ = ()

    def __new__(cls, init: SettingsFn, transform: optax.GradientTransformationExtraArgs):
        def init_settings(key, params=_MISSING, /):
            if params is _MISSING:  # optax calls init(params)
                raise TypeError(
                    "the settings of a learned optimizer are meta-parameters, which optax.chain "
                    "cannot hold: write maml_jax.meta.optimizers.chain(...) instead"
                )
            return init(key, params)

        return super().__new__(cls, init_settings, transform)


InnerOptimizer: TypeAlias = optax.GradientTransformation | LearnedOptimizer
"""What adapts to a task: any optax transformation, or one that is meta-learned."""


@runtime_checkable
class AdaptFn(Protocol):
    """The `adapt` of a learner."""

    def __call__(
        self,
        meta_params: Params,
        support: Batch,
        /,
        steps: int | None = None,
        key: Key[Array, ""] | None = None,
    ) -> Params:
        """Fit one task from its support set.

        Args:
            meta_params: as `init` returns them, or as training left them.
            support: the labelled rows of the task, x `[n, *features]`, y `[n, *targets]`. From no
                rows, or none of a weight above 0, adapting leads back to where it began.
            steps: how many adaptation steps to take instead of the learner's own number, >= 0;
                static under `jit`. Learners that take no steps refuse any.
            key: decides what is random in adapting, another draw in each step; None: nothing is. It
                is given only where a task has one, so that a learner of one's own may lack it.

        Returns:
            Whatever `predict` needs, the same structure for every task.

        Raises:
            ValueError: if `steps` is negative, or given to a learner that takes none.
        """
        ...


@runtime_checkable
class PredictFn(Protocol):
    """The `predict` of a learner."""

    def __call__(self, adapted: Params, x: Float[Array, "n *features"], /) -> Any:
        """Predict the targets of rows.

        Args:
            adapted: as `adapt` returns them.
            x: inputs, `[n, *features]`.

        Returns:
            `y_hat [n, *targets]`, or a `Prediction` of that shape.
        """
        ...


@runtime_checkable
class MetaLossFn(Protocol):
    """The `loss` of a learner."""

    def __call__(self, meta_params: Params, task: Task, step: Any, /) -> tuple[Scalar, Info]:
        """Return the loss of one task; its gradient in `meta_params` IS the meta-gradient.

        Args:
            meta_params: as `init` returns them.
            task: a support set to adapt to and a query set to be judged on.
            step: number of the meta-step, `[]`, for algorithms that anneal.

        Returns:
            The loss, `[]`, and what is worth knowing beside it, usually an `AdaptationInfo`.
        """
        ...


@runtime_checkable
class UpdateFn(Protocol):
    """The `update` of a learner that has one."""

    def __call__(self, adapted: Params, batch: Batch, /) -> Params:
        """Take in further labelled rows, at a cost that does not grow with those already seen.

        Args:
            adapted: as `adapt` or `update` returns them.
            batch: the rows, x `[n, *features]`, y `[n, *targets]`.

        Returns:
            What adapting to the rows seen before and to these together gives.
        """
        ...


class MetaLearner(NamedTuple):
    """A meta-learning algorithm: pure functions for ONE task; `vmap` makes them many.

    Attributes:
        init: `(key, x) -> meta_params`, fresh meta-parameters for rows like `x [n, *features]`.
        adapt: `(meta_params, support, steps=None, key=None) -> adapted`; usable alone, builds no
            outer graph.
        predict: `(adapted, x) -> y_hat`.
        loss: `(meta_params, task, step) -> (scalar, info)`.
        update: `(adapted, batch) -> adapted`, the same as adapting to the rows seen before and
            those of `batch` together; None where an algorithm has no such recursion. Learners that
            have one adapt to an empty support set too: it gives the prior.
        grad_norms: `(grad) -> norms`, what a bound on the norm of the meta-gradient looks at where
            parts of it are bounded by themselves, such as the members of an ensemble: each leaf
            broadcasts against that of the gradient. None: the norm of all of it.
        random: whether something is random in training where a task has a key, such as dropout.
    """

    init: InitFn
    adapt: AdaptFn
    predict: PredictFn
    loss: MetaLossFn
    update: UpdateFn | None = None
    grad_norms: Callable[[Params], Params] | None = None
    random: bool = False
