r"""Regimes as the hidden states of a Markov chain, filtered and never smoothed.

$$r_t = \mu_{S_t} + \sigma_{S_t} \epsilon_t, \qquad P(S_t = j \mid S_{t-1} = i) = p_{ij}$$

The parameters are fitted once, on a past span. From then on each bar has the probabilities of the
states given the returns up to it: Hamilton's filter, started a fixed number of bars earlier with
the chain's stationary distribution, so that it does not depend on where a series begins.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.data.synthetic import stationary_distribution
from maml_jax.errors import DataError
from maml_jax.features.signals.regimes import UNKNOWN, log_returns

MEMORY = 250
"""Returns that the filter reads; older ones have no influence by then."""

_SPREADS = (2.0, 4.0)
"""Largest over smallest deviation at each start of the search; there are several maxima."""

_ROUNDS = 30
"""Rounds of expectation and maximisation before the search by gradients."""

_PER_STATE = 50
"""Returns that each state needs to be fitted."""

_LEAST_CHANCE = 1e-9
"""Least probability of a transition: else a bar that only another state explains is impossible."""

_LEAST_DEVIATION = 1e-3
"""A state with a smaller share of the overall deviation has collapsed on equal returns."""


class MarkovParameters(NamedTuple):
    """A fitted chain, as plain numbers. States are ordered by deviation, calmest first.

    Attributes:
        means: mean log return per bar in each state.
        deviations: standard deviation per bar in each state, ascending.
        transition: probabilities `[from][to]`.
        memory: returns that a bar's probabilities depend on, its own included.
    """

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    transition: tuple[tuple[float, ...], ...]
    memory: int = MEMORY

    @property
    def states(self) -> int:
        """The number of states."""
        return len(self.means)

    @property
    def warm_up(self) -> int:
        """Bars at the start of a series without probabilities."""
        return self.memory

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters as lists and numbers, for JSON."""
        return {
            "means": list(self.means),
            "deviations": list(self.deviations),
            "transition": [list(row) for row in self.transition],
            "memory": self.memory,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "MarkovParameters":
        """Return the parameters that `to_dict` wrote.

        Raises:
            DataError: if an entry is missing, or the entries do not make a chain.
        """
        try:
            parameters = cls(
                tuple(map(float, content["means"])),
                tuple(map(float, content["deviations"])),
                tuple(tuple(map(float, row)) for row in content["transition"]),
                int(content["memory"]),
            )
            stationary_distribution(np.array(parameters.transition))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not the parameters of a Markov chain: {error!r}") from error
        sizes = {parameters.states, len(parameters.deviations), len(parameters.transition)}
        if len(sizes) > 1 or min(parameters.deviations) <= 0 or parameters.memory < 1:
            raise DataError(
                "not the parameters of a Markov chain: means, deviations and transition must have "
                f"the same number of states, deviations and memory be positive: {parameters}"
            )
        return parameters


def fit_markov(
    returns: pd.Series | Sequence[float] | np.ndarray,
    states: int = 2,
    *,
    memory: int = MEMORY,
    max_iterations: int = 200,
    asset: str = "the asset",
) -> MarkovParameters:
    """Fit a chain to the returns of a past span by maximum likelihood.

    `MarkovRegression` of statsmodels with a mean and a variance per state; the best of two searches
    from fixed starts. Takes seconds for 2 states and thousands of bars, ten or more for 3.

    Args:
        returns: log returns `[bar]` of the meta-training span alone, as from `log_returns` or
            `market_log_returns`; missing ones are left out.
        states: 2 or 3.
        memory: returns that a bar's probabilities depend on.
        max_iterations: gradient steps of each search.
        asset: how error messages call the returns.

    Raises:
        ValueError: if `states`, `memory` or `max_iterations` is impossible.
        DataError: if there are too few returns, they are constant or not finite, or no search
            converges to different states.

    References:
        Hamilton, "A new approach to the economic analysis of nonstationary time series and the
        business cycle" (1989), Econometrica 57.
    """
    if states not in (2, 3):
        raise ValueError(f"states must be 2 or 3, got {states}")
    for name, value in (("memory", memory), ("max_iterations", max_iterations)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    values = np.asarray(returns, float)
    values = values[~np.isnan(values)]
    if len(values) < _PER_STATE * states:
        raise DataError(
            f"{asset}: {states} states need at least {_PER_STATE * states} returns to be fitted, "
            f"and there are {len(values)}; give a longer span"
        )
    if not np.isfinite(values).all() or np.ptp(values) == 0:
        raise DataError(
            f"{asset}: the returns to fit are constant or not finite; states cannot be fitted"
        )
    centre, scale = values.mean(), values.std()
    unit = (values - centre) / scale
    found = [_search(unit, states, spread, max_iterations) for spread in _SPREADS]
    whole = [each for each in found if not isinstance(each, str)]
    if not whole:
        raise DataError(
            f"{asset}: the fit of {states} states to {len(values)} returns failed "
            f"({'; '.join(dict.fromkeys(map(str, found)))}); give a longer span, or fewer states"
        )
    _, means, deviations, transition = max(whole, key=lambda each: each[0])
    order = np.argsort(deviations, kind="stable")
    matrix = np.maximum(transition[np.ix_(order, order)], _LEAST_CHANCE)
    matrix /= matrix.sum(axis=1, keepdims=True)
    return MarkovParameters(
        tuple((centre + scale * means[order]).tolist()),
        tuple((scale * deviations[order]).tolist()),
        tuple(tuple(row) for row in matrix.tolist()),
        int(memory),
    )


def filter_regimes(parameters: MarkovParameters, bars: pd.DataFrame) -> pd.DataFrame:
    """Return the probability of each state at each bar's close, from bars up to it.

    Args:
        parameters: of a chain.
        bars: of one asset, in normal form; closes alone are read.

    Returns:
        Columns 0, 1, ... (the calmest state first) on the index of `bars`; rows sum to 1. NaN in
        the first `parameters.warm_up` bars and in masked ones; a return from or to a masked bar
        carries no information.
    """
    probabilities = filter_states(parameters, log_returns(bars))
    return probabilities.where(bars["close"].notna(), axis="index")


def markov_regimes(parameters: MarkovParameters, bars: pd.DataFrame) -> pd.Series:
    """Label each bar with its most probable state, by `filter_regimes`.

    Returns:
        int8 on the index of `bars`; `UNKNOWN` (-1) where there are no probabilities.
    """
    return most_probable(filter_regimes(parameters, bars))


def filter_states(parameters: MarkovParameters, returns: pd.Series) -> pd.DataFrame:
    r"""Return the probability of each state given the last returns.

    $$P(S_t = j \mid r_{t-m+1}, \dots, r_t) \propto
      \phi\Bigl(\frac{r_t - \mu_j}{\sigma_j}\Bigr) \frac1{\sigma_j}
      \sum_i P(S_{t-1} = i \mid r_{t-m+1}, \dots, r_{t-1})\, p_{ij}$$

    Args:
        parameters: of a chain; m is its `memory`.
        returns: log returns `[bar]`; NaN where unknown, which leaves the probabilities to the
            chain.

    Returns:
        Columns 0, 1, ... on the index of `returns`; NaN in the first `parameters.warm_up` bars.
    """
    likelihoods = _likelihoods(parameters, returns.to_numpy(float))
    transition = np.array(parameters.transition)
    memory, count = parameters.memory, max(0, len(returns) - parameters.memory)
    beliefs = np.broadcast_to(stationary_distribution(transition), (count, len(transition)))
    for lag in range(memory):
        # All bars at once: each takes in the return `memory - lag - 1` bars before it.
        expected = beliefs @ transition if lag else beliefs
        beliefs = expected * likelihoods[lag + 1 : lag + 1 + count]
        beliefs = beliefs / beliefs.sum(axis=1, keepdims=True)
    result = np.full((len(returns), len(transition)), np.nan)
    result[memory:] = beliefs
    return pd.DataFrame(result, index=returns.index, columns=range(len(transition)))


def most_probable(probabilities: pd.DataFrame) -> pd.Series:
    """Return the index of the most probable state in each row, int8; -1 where unknown."""
    values = probabilities.to_numpy()
    known = ~np.isnan(values).any(axis=1)
    labels = np.full(len(values), UNKNOWN, np.int8)
    labels[known] = values[known].argmax(axis=1)
    return pd.Series(labels, index=probabilities.index, name="regime")


def _likelihoods(parameters: MarkovParameters, returns: np.ndarray) -> np.ndarray:
    """Return the likelihood of each state, relative to the best one, `[bar, state]`."""
    means, deviations = np.array(parameters.means), np.array(parameters.deviations)
    z = (returns[:, None] - means) / deviations
    logs = np.where(np.isfinite(z), -0.5 * z**2 - np.log(deviations), 0.0)
    return np.exp(logs - logs.max(axis=1, keepdims=True))


def _search(values: np.ndarray, states: int, spread: float, max_iterations: int):
    """Fit from one start: log likelihood, means, deviations and transition; or why it failed."""
    # Takes seconds to import, and few need it.
    from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

    with warnings.catch_warnings():  # the result shows what they would say
        warnings.simplefilter("ignore")
        try:
            model = MarkovRegression(values, k_regimes=states, switching_variance=True)
            fitted: Any = model.fit(
                _start(model, states, spread),
                em_iter=_ROUNDS,
                maxiter=max_iterations,
                cov_type="none",
                disp=0,
            )
        except (ArithmeticError, RuntimeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        params, places = np.asarray(fitted.params), model.parameters
        matrix = model.regime_transition_matrix(params)[:, :, 0].T  # statsmodels has [to, from]
        likelihood = float(fitted.llf)
    if not fitted.mle_retvals.get("converged", False):
        return f"no convergence in {max_iterations} iterations"
    variances = params[places["variance"]]
    if not (np.isfinite(params).all() and np.isfinite(likelihood) and np.isfinite(matrix).all()):
        return "parameters that are not finite"
    if variances.min() < _LEAST_DEVIATION**2:
        return "a state without variance"
    return likelihood, params[places["exog"]], variances**0.5, matrix


def _start(model, states: int, spread: float) -> np.ndarray:
    """Return the start of a search: deviations in even ratios, states that last twenty bars."""
    params = np.zeros(len(model.param_names))
    matrix = np.full((states, states), 0.05 / (states - 1))
    np.fill_diagonal(matrix, 0.95)
    deviations = spread ** np.linspace(-0.5, 0.5, states)
    params[model.parameters["regime_transition"]] = matrix[:, :-1].T.ravel()
    params[model.parameters["variance"]] = deviations**2 / (deviations**2).mean()
    return params
