"""What the tests of tail forecasts share: which tail, which rows, and p-values by simulation."""

import numpy as np
from jaxtyping import Bool, Float

_DECIMALS = 9
"""Statistics of the same outcomes may differ by rounding; beyond these decimals they are ties."""


def tail_of(level: float) -> tuple[float, int]:
    """Return the probability of a quantile's tail and its side: 1 the lower, -1 the upper one.

    Multiplied by the side, outcomes and forecasts of either tail are those of a lower one.

    Raises:
        ValueError: if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(
            f"the level of a quantile lies between 0 and 1 (0.05 for the 5 % quantile), not {level}"
        )
    return (level, 1) if level <= 0.5 else (1 - level, -1)


def check_shapes(**arrays: np.ndarray) -> None:
    """Require arrays of one shape.

    Raises:
        ValueError: if shapes differ, with their names.
    """
    if len({np.shape(array) for array in arrays.values()}) > 1:
        shapes = ", ".join(f"{name} has {np.shape(array)}" for name, array in arrays.items())
        raise ValueError(f"outcomes and forecasts must have the same shape: {shapes}")


def known_times(**arrays: np.ndarray) -> Bool[np.ndarray, " time"]:
    """Find the times at which no array is NaN.

    Raises:
        ValueError: if an array is no series, shapes differ, an entry is infinite, or no time is
            known to all.
    """
    check_shapes(**arrays)
    for name, array in arrays.items():
        if np.ndim(array) != 1:
            raise ValueError(
                f"a test takes one series, [time], and {name} has shape {np.shape(array)}; test "
                "each asset by itself"
            )
        if np.isinf(array).any():
            raise ValueError(f"{name} has an infinite entry; mark what is absent by NaN")
    known = np.asarray(np.isfinite(list(arrays.values())).all(axis=0))
    if not known.any():
        raise ValueError(f"there is no time at which {' and '.join(arrays)} are all known")
    return known


def monte_carlo_p_value(
    statistic: float, simulated: Float[np.ndarray, " draw"], generator: np.random.Generator
) -> float:
    r"""Share of simulated statistics as large as the one observed, ties broken at random.

    $$p = \frac{1 + \#\{i: (S_i, U_i) \ge (S_0, U_0)\}}{N + 1}$$

    in lexicographic order, U uniform. If the observed statistic is drawn as the N simulated ones
    are, p is at most a with probability a exactly, for each a of which a (N + 1) is whole.

    Reference:
        Dufour (2006), Monte Carlo tests with nuisance parameters, Journal of Econometrics 133.
    """
    observed, others = np.round(statistic, _DECIMALS), np.round(simulated, _DECIMALS)
    ties = int((others == observed).sum())
    above = int((others > observed).sum()) + generator.integers(ties + 1)
    return float((1 + above) / (len(others) + 1))


def check_draws(draws: int) -> None:
    """Require enough draws for a test at 5 %.

    Raises:
        ValueError: if there are fewer than 19.
    """
    if draws < 19:
        raise ValueError(f"a p-value of 5 % needs at least 19 draws, not {draws}")
