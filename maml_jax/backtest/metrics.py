"""Metrics of a series of net returns: one pure function each.

`returns` are simple returns per bar, $r_1 .. r_n$; the equity starts at 1. A metric that the data
do not determine (too few bars, no loss to divide by) is NaN.

NaN is skipped, as pandas and empyrical do: the first value of `pct_change` is no return. Two series
are joined by their index, and bars count that both have. Of a table each column is measured: the
result is a Series with a value per column (of curves, a table).

Where empyrical and quantstats differ, the function says how. On series that do not move empyrical
divides by zero, or by what rounding leaves of it, and returns infinity where we return NaN.
"""

import numpy as np
import pandas as pd
from jaxtyping import Float

from maml_jax.backtest._series import (
    Returns,
    by_column,
    known_pairs,
    known_values,
    read_series,
    require_share,
)
from maml_jax.errors import DataError

_DAY = pd.Timedelta(days=1)


@by_column
def sharpe_ratio(returns: Returns, bars_per_year: float) -> float:
    r"""Annualised Sharpe ratio, $\bar r / s \cdot \sqrt A$ with $s$ of ddof 1 (Sharpe, 1994).

    NaN of a flat series; empyrical returns infinity, or a number that rounding makes.
    """
    r = known_values(returns)
    return _ratio(r.mean(), _deviation(r)) * np.sqrt(bars_per_year) if len(r) > 1 else np.nan


@by_column
def sortino_ratio(returns: Returns, bars_per_year: float) -> float:
    r"""Annualised Sortino ratio, $\bar r A / (\sqrt{\overline{\min(r, 0)^2}} \sqrt A)$.

    The mean in the denominator is over all n bars (Sortino and Price, 1994). NaN without a loss,
    where empyrical and quantstats return infinity.
    """
    r = known_values(returns)
    if len(r) < 2:
        return np.nan
    downside = np.sqrt(np.mean(np.square(np.minimum(r, 0))))
    return _ratio(r.mean(), downside) * np.sqrt(bars_per_year)


@by_column
def annual_volatility(returns: Returns, bars_per_year: float) -> float:
    r"""Annualised volatility, $s \sqrt A$ with $s$ of ddof 1."""
    r = known_values(returns)
    return _deviation(r) * np.sqrt(bars_per_year) if len(r) > 1 else np.nan


@by_column
def total_return(returns: Returns) -> float:
    r"""Total return, $\prod (1 + r_t) - 1$; -1 once the equity is lost.

    An equity below zero grows no more; in empyrical two losses of more than all make a gain.
    """
    r = known_values(returns)
    return float(np.prod(growth(r)) - 1) if len(r) else np.nan


@by_column
def cagr(returns: Returns, bars_per_year: float) -> float:
    r"""Compound annual growth rate, $\prod (1 + r_t)^{A/n} - 1$; -1 once the equity is lost.

    Time passes in a bar without a return too: NaN counts in $n$, as in empyrical.
    """
    r, bars = known_values(returns), len(returns)
    if not len(r):
        return np.nan
    with np.errstate(over="ignore"):
        return float(np.prod(growth(r)) ** (bars_per_year / bars) - 1)


@by_column
def equity_curve(returns: Returns) -> Float[np.ndarray, " bar"]:
    r"""Growth of 1, $E_t = \prod_{s \le t} (1 + r_s)$; 0 from the bar on that loses all of it.

    A bar without a return leaves it as it was. empyrical's `cum_returns` is this less 1.
    """
    return np.cumprod(growth(np.nan_to_num(read_series(returns), posinf=np.inf, neginf=-np.inf)))


@by_column
def drawdown(returns: Returns) -> Float[np.ndarray, " bar"]:
    r"""Fall of the equity below its running maximum, $E_t / \max_{s \le t} E_s - 1$.

    The starting equity of 1 counts as a maximum.
    """
    equity = equity_curve(returns)
    return equity / np.maximum.accumulate(np.maximum(equity, 1.0)) - 1


@by_column
def max_drawdown(returns: Returns) -> float:
    """Deepest drawdown, <= 0."""
    below = drawdown(known_values(returns))
    return float(min(below.min(), 0.0)) if len(below) else np.nan


@by_column
def calmar_ratio(returns: Returns, bars_per_year: float) -> float:
    """CAGR over the size of the deepest drawdown (Young, 1991)."""
    deepest = max_drawdown(returns)
    return cagr(returns, bars_per_year) / -deepest if deepest < 0 else np.nan


@by_column
def omega_ratio(returns: Returns) -> float:
    """Sum of gains over sum of losses, threshold 0 (Keating and Shadwick, 2002)."""
    r = known_values(returns)
    losses = -r[r < 0].sum()
    return float(r[r > 0].sum() / losses) if losses > 0 and len(r) > 1 else np.nan


@by_column
def tail_ratio(returns: Returns) -> float:
    """Size of the 95th percentile over size of the 5th."""
    r = known_values(returns)
    if not len(r):
        return np.nan
    return _ratio(abs(np.percentile(r, 95)), abs(np.percentile(r, 5)))


@by_column
def value_at_risk(returns: Returns, share: float = 0.05) -> float:
    """Historical value at risk: the return that a `share` of bars falls short of.

    quantstats takes the quantile of a normal distribution. `share` is one: 0.05 is 5 %.
    """
    require_share(share)
    r = known_values(returns)
    return float(np.percentile(r, 100 * share)) if len(r) else np.nan


@by_column
def conditional_value_at_risk(returns: Returns, share: float = 0.05) -> float:
    """Mean of the worst `share` of returns.

    quantstats takes the mean of those below its value at risk. `share` is one: 0.05 is 5 %.
    """
    require_share(share)
    r = np.sort(known_values(returns))
    return float(r[: int((len(r) - 1) * share) + 1].mean()) if len(r) else np.nan


@by_column
def win_rate(returns: Returns) -> float:
    """Share of returns above 0; of bars or of trades, as given.

    Returns of 0 count as not won; quantstats leaves them out.
    """
    r = known_values(returns)
    return float(np.mean(r > 0)) if len(r) else np.nan


@by_column
def profit_factor(returns: Returns) -> float:
    """Sum of gains over sum of losses; of bars or of trades, as given."""
    r = known_values(returns)
    losses = -r[r < 0].sum()
    return float(r[r > 0].sum() / losses) if losses > 0 else np.nan


@by_column
def annual_turnover(turnover: Returns, bars_per_year: float) -> float:
    """Mean turnover per bar times bars per year."""
    values = known_values(turnover)
    return float(values.mean() * bars_per_year) if len(values) else np.nan


@by_column
def alpha(returns: Returns, benchmark: Returns, bars_per_year: float) -> float:
    r"""Annual return beyond a share of a benchmark's, $A\,(\bar r - \beta\,\bar b)$ (Jensen, 1968).

    NaN where the benchmark does not move. So does quantstats; empyrical compounds,
    $(1 + \bar r - \beta\,\bar b)^A - 1$, which is never less.
    """
    r, b = known_pairs(returns, benchmark)
    return bars_per_year * float(r.mean() - beta(r, b) * b.mean()) if len(r) else np.nan


@by_column
def beta(returns: Returns, benchmark: Returns) -> float:
    r"""Slope of returns on a benchmark's, $\mathrm{Cov}(r, b) / \mathrm{Var}(b)$.

    NaN where the benchmark does not move.
    """
    r, b = known_pairs(returns, benchmark)
    moved = b - b.mean() if len(b) > 1 and not (b == b[0]).all() else np.zeros_like(b)
    return _ratio(float(moved @ r), float(moved @ moved))


@by_column
def break_even_cost(gross: Returns, turnover: Returns) -> float:
    """Cost in basis points of the value traded that would have eaten the mean gross return.

    Below 0 where nothing was earned before costs; NaN where nothing was traded.
    """
    result, traded = known_pairs(gross, turnover)
    return 1e4 * _ratio(result.mean(), traded.mean()) if len(traded) else np.nan


@by_column
def geometric_mean(returns: Returns) -> float:
    r"""Mean by which each return grew the capital, $(\prod (1 + r))^{1/n} - 1$."""
    r = known_values(returns)
    return float(np.prod(growth(r)) ** (1 / len(r)) - 1) if len(r) else np.nan


@by_column
def system_quality(trades: Returns) -> float:
    r"""System quality number of the returns of trades, $\sqrt{n}\,\bar r / s$ (Tharp, 2008)."""
    r = known_values(trades)
    return _ratio(r.mean(), _deviation(r)) * np.sqrt(len(r)) if len(r) > 1 else np.nan


@by_column
def kelly_criterion(trades: Returns) -> float:
    """Share of capital that grows fastest, by the win rate and the mean gain over the mean loss.

    NaN where no trade won or none lost (Kelly, 1956). Trades at 0 count as not won; quantstats
    leaves them out.
    """
    r = known_values(trades)
    won, lost = r[r > 0], r[r < 0]
    if not len(won) or not len(lost):
        return np.nan
    return float(np.mean(r > 0) - (1 - np.mean(r > 0)) * -lost.mean() / won.mean())


def hit_rate(predictions: pd.DataFrame, outcomes: pd.DataFrame) -> float:
    """Share of predictions whose sign came true, of those that have one and whose outcome has."""
    p, y = predictions.to_numpy(float).ravel(), outcomes.to_numpy(float).ravel()
    sided = np.isfinite(p) & np.isfinite(y) & (p != 0) & (y != 0)
    return float(np.mean(np.sign(p[sided]) == np.sign(y[sided]))) if sided.any() else np.nan


def information_coefficient(
    predictions: pd.DataFrame, outcomes: pd.DataFrame, *, rank: bool = False
) -> pd.Series:
    """Correlation of predictions and outcomes across assets, at each date.

    Args:
        predictions: `[time, asset]`, NaN where there is none.
        outcomes: the target at the same bars and assets, NaN where it is not known.
        rank: Spearman's correlation (RankIC) instead of Pearson's.

    Returns:
        One value per date with three or more assets whose predictions and outcomes vary.
    """
    p, y = predictions.to_numpy(float), outcomes.to_numpy(float)
    both = ~(np.isnan(p) | np.isnan(y))
    name, dates = "rank_ic" if rank else "ic", np.flatnonzero(both.sum(axis=1) >= 3)
    if not len(dates):
        return pd.Series([], predictions.index[dates], dtype=float, name=name)
    p, y = (np.where(both[dates], values[dates], np.nan) for values in (p, y))
    if rank:
        from scipy.stats import rankdata

        p, y = (rankdata(values, axis=1, nan_policy="omit") for values in (p, y))
    with np.errstate(invalid="ignore"):
        usable = (_spread(p) > 0) & (_spread(y) > 0)
        p, y = (values - np.nanmean(values, axis=1, keepdims=True) for values in (p, y))
        size = np.sqrt(np.nansum(p**2, axis=1) * np.nansum(y**2, axis=1))
        usable &= size > 0
        found = np.nansum(p * y, axis=1)[usable] / size[usable]
    return pd.Series(found, predictions.index[dates[usable]], name=name)


def pooled_correlation(predictions: pd.DataFrame, outcomes: pd.DataFrame) -> float:
    """Pearson correlation of predictions and outcomes over all assets and dates together."""
    p, y = predictions.to_numpy(float).ravel(), outcomes.to_numpy(float).ravel()
    both = np.isfinite(p) & np.isfinite(y)
    p, y = p[both], y[both]
    if len(p) < 3 or p.std() == 0 or y.std() == 0:
        return np.nan
    return float(np.corrcoef(p, y)[0, 1])


def bars_per_year(index: pd.DatetimeIndex) -> float:
    """Infer how many bars a year holds, from the median step and from whether weekends trade.

    Daily bars: 252, or 365 with weekends. Shorter bars: what fits a year of 365 days if Saturdays
    trade, else 252 times the bars of a median day; a day's last bar that would run past the full
    hour is counted by its part, so that hourly bars of a session from 9:30 to 16:00 make 1638.
    Weeks 52, months 12, quarters 4, years 1.

    >>> bars_per_year(pd.date_range("2024-01-01", periods=500, freq="h", tz="UTC"))
    8760.0

    Raises:
        DataError: if there are fewer than two bars.
    """
    if len(index) < 2:
        raise DataError("bars per year cannot be inferred from fewer than two bars; set it")
    step = pd.Timedelta(np.median(np.diff(index.to_numpy())))
    if step > 1.5 * _DAY:
        per_year = 365 * _DAY / step
        return float(min((1, 2, 4, 12, 26, 52, 122, 182), key=lambda n: abs(np.log(per_year / n))))
    days = index.normalize().unique()
    weekdays, saturdays = (days.day_of_week < 5).sum(), (days.day_of_week == 5).sum()
    has_weekends = saturdays > 0.1 * weekdays
    if step > 0.5 * _DAY:
        return 365.0 if has_weekends else 252.0
    counts = _bars_of_days(index, step)
    usual = np.median(counts[1:-1] if len(counts) > 2 else counts)
    met_no_weekend = not (pd.date_range(days[0], days[-1]).day_of_week == 5).any()
    if has_weekends or len(days) < 3 or (met_no_weekend and usual >= 0.9 * (_DAY / step)):
        return float(365 * _DAY / step)
    return float(252 * usual)


def _bars_of_days(index: pd.DatetimeIndex, step: pd.Timedelta) -> Float[np.ndarray, " day"]:
    by_day = pd.Series(index, index=index.normalize()).groupby(level=0)
    end = by_day.max() + step
    overrun = (end - end.dt.floor("h")) / step if step >= pd.Timedelta(hours=1) else 0.0
    return (by_day.size() - overrun).to_numpy(float)


def growth(returns: Float[np.ndarray, "..."]) -> np.ndarray:
    """Growth of the equity per bar; a loss of more than all of it leaves nothing, for good.

    NaN stays NaN.
    """
    return np.maximum(1 + np.asarray(returns, float), 0.0)


def _deviation(r: np.ndarray) -> float:
    """Standard deviation with ddof 1; exactly 0 for a constant series, whatever the rounding."""
    return 0.0 if (r == r[0]).all() else float(r.std(ddof=1))


def _spread(values: np.ndarray) -> np.ndarray:
    """Largest minus smallest value of each row that has one."""
    return np.nanmax(values, axis=1) - np.nanmin(values, axis=1)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else np.nan
