"""Outcomes beyond forecasts of value at risk: marked, counted by group, judged by Basel's zones."""

from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest.inference._tails import check_shapes, tail_of

_YELLOW, _RED = 0.95, 0.9999


def exceedances(y: np.ndarray, var: np.ndarray, level: float) -> np.ndarray:
    """Mark outcomes beyond the forecast: 1 beyond, 0 not, NaN where either is absent.

    Args:
        y: outcomes, of any shape.
        var: forecasts of the quantile at `level`, of the same shape.
        level: of the quantile; above 0.5 outcomes above it are marked, else those below it.

    Raises:
        ValueError: if shapes differ, or the level is not between 0 and 1.
    """
    check_shapes(y=y, var=var)
    _, side = tail_of(level)
    beyond = np.multiply(side, y) < np.multiply(side, var)
    return np.where(np.isnan(y) | np.isnan(var), np.nan, beyond)


def thin(horizon: int, *series: np.ndarray, offset: int = 0) -> tuple[np.ndarray, ...]:
    """Take every h-th entry of the time axis, so that outcomes over h bars do not overlap.

    There are h such samples, one for each offset. To use them all, test each and multiply the
    least p-value by h (Bonferroni): outcomes of different offsets do overlap.

    Args:
        horizon: h, bars that an outcome covers.
        series: arrays `[..., time]`, one entry a bar.
        offset: of the first entry taken, from 0 to h - 1.

    Raises:
        ValueError: if `horizon` is below 1, or `offset` not below it.

    Reference:
        Diebold, Gunther, Tay (1998), Evaluating density forecasts, section 3.
    """
    if horizon < 1:
        raise ValueError(f"a horizon has at least 1 bar, not {horizon}")
    if not 0 <= offset < horizon:
        raise ValueError(f"offsets for {horizon} bars go from 0 to {horizon - 1}, not {offset}")
    return tuple(np.asarray(values)[..., offset::horizon] for values in series)


class TrafficLight(NamedTuple):
    """Zone of a number of exceedances, and where the zones begin.

    Attributes:
        zone: green, yellow or red.
        probability: of as many exceedances or fewer if the forecasts are right.
        yellow: the least number of exceedances that is yellow.
        red: the least number that is red.
    """

    zone: Literal["green", "yellow", "red"]
    probability: float
    yellow: int
    red: int


def traffic_light(exceedances: int, count: int, level: float = 0.01) -> TrafficLight:
    r"""Basel's zones: yellow where $P(X \le x)$ reaches 95 %, red where it reaches 99.99 %.

    X is binomial. Of 250 days at 1 %, 0 to 4 are green, 5 to 9 yellow and 10 or more red.

    Args:
        exceedances: x.
        count: outcomes judged, which do not overlap.
        level: of the quantile; its tail has the probability 1 - level above 0.5.

    Raises:
        ValueError: if there are no outcomes, exceedances are not from 0 to `count`, or the level is
            not between 0 and 1.

    Reference:
        Basel Committee (1996), Supervisory framework for the use of backtesting.
    """
    rate, _ = tail_of(level)
    if count < 1:
        raise ValueError(f"there must be at least 1 outcome to judge, not {count}")
    if not 0 <= exceedances <= count:
        raise ValueError(f"exceedances among {count} outcomes are from 0 to {count}: {exceedances}")
    from scipy.special import bdtr

    reached = bdtr(np.arange(count + 1), count, rate)
    yellow, red = (int(np.searchsorted(reached, bound)) for bound in (_YELLOW, _RED))
    zone = "green" if exceedances < yellow else "yellow" if exceedances < red else "red"
    return TrafficLight(zone, float(reached[exceedances]), yellow, red)


def coverage_table(
    y: np.ndarray, var: np.ndarray, level: float, group: np.ndarray | None = None
) -> pd.DataFrame:
    """Count exceedances by group, such as by asset or by age.

    Assets exceed their forecasts on the same days, so that a pooled count is worth less than as
    many independent outcomes; it is for comparing groups, and no test.

    Args:
        y: outcomes, of any shape; NaN where absent.
        var: forecasts of the quantile at `level`, of the same shape.
        level: of the quantile; above 0.5 outcomes above it are exceedances, else those below it.
        group: labels that broadcast to that shape, such as `assets[:, None]`; all in one without.

    Returns:
        A row a group, in sorted order: `count` of outcomes, `exceedances`, `expected` number of
        them and their `rate`. A group without outcomes has no row.

    Raises:
        ValueError: if shapes differ or the level is not between 0 and 1.
    """
    marks = exceedances(y, var, level)
    labels = np.asarray("all" if group is None else group)
    try:
        labels = np.broadcast_to(labels, marks.shape)
    except ValueError as error:
        raise ValueError(
            f"labels of shape {labels.shape} do not broadcast to outcomes of shape {marks.shape}"
        ) from error
    known = ~np.isnan(marks)
    grouped = pd.Series(marks[known]).groupby(pd.Series(labels[known], name="group"))
    count, found = grouped.size(), grouped.sum().astype(int)
    rate, _ = tail_of(level)
    columns = {"count": count, "exceedances": found, "expected": rate * count}
    return pd.DataFrame({**columns, "rate": found / count})
