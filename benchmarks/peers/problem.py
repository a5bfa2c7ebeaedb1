"""The two computations that are timed, as plain numpy arrays that every framework reads.

Nothing here imports a framework, so that each can be measured in a process of its own.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SIZES = (10, 64, 64, 1)
"""Widths of the default network: inputs, two hidden layers with tanh, one output."""

Params = list[tuple[np.ndarray, np.ndarray]]
"""One `(weight [inputs, outputs], bias [outputs])` per layer; tanh after every layer but the last.
"""


class Problem(NamedTuple):
    """One meta-step of MAML on a regression meta-batch, everything in float32.

    The loss is the mean over tasks of the mean squared error on the query set, at the parameters
    that `inner_steps` steps of plain gradient descent on the support set lead to.

    Attributes:
        params: the start that all tasks share.
        support_x: `[tasks, support, inputs]`.
        support_y: `[tasks, support, outputs]`.
        query_x: `[tasks, query, inputs]`.
        query_y: `[tasks, query, outputs]`.
        inner_rate: step size of the inner descent.
        inner_steps: number of inner steps.
        second_order: differentiate through the inner steps; else take the gradient at the adapted
            parameters for the meta-gradient.
    """

    params: Params
    support_x: np.ndarray
    support_y: np.ndarray
    query_x: np.ndarray
    query_y: np.ndarray
    inner_rate: float
    inner_steps: int
    second_order: bool


class RollingProblem(NamedTuple):
    """A rolling backtest: adapt on the `window` rows before each row, then predict that row.

    There are `time - window` windows; window `i` adapts on rows `i .. i + window - 1` and predicts
    row `i + window`. Every window starts from the same parameters.

    Attributes:
        params: the start that all windows share.
        features: `[time, inputs]`.
        targets: `[time]`.
        window: rows to adapt on.
        inner_rate: step size of the descent.
        inner_steps: number of steps.
    """

    params: Params
    features: np.ndarray
    targets: np.ndarray
    window: int
    inner_rate: float
    inner_steps: int


def make_params(sizes: Sequence[int], generator: np.random.Generator) -> Params:
    """Draw weights of variance 1 / inputs, and small biases so that none starts at zero."""
    return [
        (
            (generator.standard_normal((inputs, outputs)) / np.sqrt(inputs)).astype(np.float32),
            (0.1 * generator.standard_normal(outputs)).astype(np.float32),
        )
        for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True)
    ]


def make_problem(
    tasks: int,
    *,
    sizes: Sequence[int] = SIZES,
    support: int = 20,
    query: int = 10,
    inner_steps: int = 5,
    inner_rate: float = 0.01,
    second_order: bool = True,
    seed: int = 0,
) -> Problem:
    """Draw a meta-batch of noisy linear regressions, each task with coefficients of its own.

    Args:
        tasks: tasks in the meta-batch.
        sizes: widths of the network, inputs and outputs included.
        support: rows of each support set.
        query: rows of each query set.
        inner_steps: steps of inner descent.
        inner_rate: its step size.
        second_order: whether the meta-gradient is exact.
        seed: decides the parameters and the data.
    """
    generator = np.random.default_rng(seed)
    params = make_params(sizes, generator)
    inputs, outputs = sizes[0], sizes[-1]
    coefficients = generator.standard_normal((tasks, inputs, outputs)) / np.sqrt(inputs)

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        x = generator.standard_normal((tasks, rows, inputs))
        y = x @ coefficients + 0.5 * generator.standard_normal((tasks, rows, outputs))
        return x.astype(np.float32), y.astype(np.float32)

    return Problem(params, *draw(support), *draw(query), inner_rate, inner_steps, second_order)


def make_rolling_problem(
    windows: int,
    *,
    sizes: Sequence[int] = SIZES,
    window: int = 20,
    inner_steps: int = 5,
    inner_rate: float = 0.01,
    seed: int = 0,
) -> RollingProblem:
    """Draw a series whose regression coefficients drift, long enough for `windows` windows.

    Args:
        windows: predictions to make.
        sizes: widths of the network; the last must be 1.
        window: rows to adapt on before each prediction.
        inner_steps: steps of descent per window.
        inner_rate: its step size.
        seed: decides the parameters and the data.
    """
    if sizes[-1] != 1:
        raise ValueError(f"the backtest predicts one number, but the network has {sizes[-1]}")
    generator = np.random.default_rng(seed)
    params = make_params(sizes, generator)
    time, inputs = windows + window, sizes[0]
    features = generator.standard_normal((time, inputs))
    drift = np.cumsum(0.05 * generator.standard_normal((time, inputs)), axis=0)
    coefficients = drift + generator.standard_normal(inputs) / np.sqrt(inputs)
    targets = (features * coefficients).sum(axis=1) + 0.5 * generator.standard_normal(time)
    return RollingProblem(
        params,
        features.astype(np.float32),
        targets.astype(np.float32),
        window,
        inner_rate,
        inner_steps,
    )
