"""What to hold now: the latest decision of a strategy, as a table of orders."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest.account.state import Held
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.preparation.requirements import target_of
from maml_jax.features import compute_target
from maml_jax.listing import join_names
from maml_jax.live.account import fill_at_once, open_account
from maml_jax.live.freshness import Freshness, freshness
from maml_jax.live.holdings import Holdings
from maml_jax.live.strategy import Decisions, Strategy, decide_span
from maml_jax.risk.table import risk_table

Bars = Mapping[str, pd.DataFrame]

_RISK_BARS = 600
"""Last bars of an asset that its risk is forecast from."""

_BEFORE = 2
"""Bars that are decided on: the last, and the one before, for what has changed."""

_SMALL = 1e-9


class SignalTable(pd.DataFrame):
    """What to hold now, one row an asset.

    Attributes:
        about: what it rests on: `run`, `settings` (digests), `method`, `now`, `capital`, `horizon`
            (bars), `fill`, `assumed` (whether weights now are those decided a bar before).
    """

    _metadata = ["about"]
    about: dict[str, Any] | None = None

    @property
    def _constructor(self):
        return SignalTable

    @property
    def complete(self) -> bool:
        """Whether no asset is stale or missing."""
        return not self["stale"].any()


class Current(NamedTuple):
    """What is held when a signal is asked for.

    Attributes:
        capital: equity, in money.
        units: of each asset.
        entry: average price of each; NaN where unknown.
        wanted: weight that was decided a bar before, as a share of the capital.
    """

    capital: float
    units: np.ndarray
    entry: np.ndarray
    wanted: np.ndarray


def make_signal(
    strategy: Strategy,
    bars: Bars,
    *,
    now: pd.Timestamp,
    capital: float | None = None,
    holdings: Holdings | None = None,
    digests: Mapping[str, str] | None = None,
) -> SignalTable:
    """Decide on the latest bars, and say what is to be ordered.

    Args:
        strategy: what decides.
        bars: in normal form, so far.
        now: the time, by which bars are stale or not.
        capital: equity in money, cash and positions together; default that of the settings.
        holdings: what is held; default what was decided a bar before.
        digests: of `run` and `settings`.

    Returns:
        One row an asset: `as_of` (when its last bar opened), `age` (hours since that closed),
        `price` (last close), `forecast` and `deviation` (% over the horizon; of a volatility % a
        year; of a direction as it is), `volatility` (% a year), `var_5` (% over the horizon),
        `side`, `weight` and `target_weight` (shares of the capital), `units` and `value` (to buy;
        to sell if negative), `stop` and `take_profit` (prices), `reason`, `stale`.

    Raises:
        ConfigError: if the capital is not positive.
        DataError: if something is held of an asset that the strategy does not trade.
    """
    config = strategy.config
    money = config.backtest.capital if capital is None else capital
    _require(strategy, money, holdings)
    assets = list(strategy.assets)
    fresh = freshness(bars, strategy.assets, strategy.checkpoint.interval, now)
    usable = {a: frame for a, frame in bars.items() if not (a in fresh and fresh[a].stale)}
    decided = _decide(strategy, usable)
    wanted, before = (_row(decided, usable, assets, back) for back in (1, 2))
    price = pd.Series({a: _last_close(bars, a) for a in assets}, dtype=float)
    current = _current(strategy, price, money, holdings, before["weight"])
    after = _preview(strategy, current, price, wanted["weight"], fresh)
    stop, profit = _stops(strategy, current, after, price)
    risk = _risk(strategy, usable)
    in_per_cent = _in_per_cent(strategy, usable, wanted)
    change = after - current.units
    columns = {
        "as_of": pd.Series({a: fresh[a].last for a in assets}, dtype="datetime64[us, UTC]"),
        "age": [_hours(fresh[a].age) for a in assets],
        "price": price,
        **in_per_cent[["forecast", "deviation"]],
        "volatility": in_per_cent["volatility"].fillna(risk["volatility"]),
        "var_5": risk["var_5"],
        "side": np.select([after > 0, after < 0], ["long", "short"], "flat"),
        "weight": np.nan_to_num(current.units * price.to_numpy() / money),
        "target_weight": wanted["weight"],
        "units": change,
        "value": np.nan_to_num(change * price.to_numpy()),
        "stop": stop,
        "take_profit": profit,
        "reason": [
            _reason(strategy, fresh[a], current, place, after, wanted, price)
            for place, a in enumerate(assets)
        ],
        "stale": [fresh[a].stale for a in assets],
    }
    table = SignalTable(columns, index=pd.Index(assets, name="asset"))
    table.about = {
        **(digests or {}),
        "method": strategy.method,
        "now": now,
        "capital": money,
        "horizon": config.target.horizon,
        "kind": config.target.kind,
        "fill": config.target.fill,
        "assumed": holdings is None,
    }
    return table


def _require(strategy: Strategy, capital: float, holdings: Holdings | None) -> None:
    if not 0 < capital < np.inf:
        raise ConfigError(f"capital {capital}: a positive amount of money")
    if holdings is None:
        return
    unknown = [name for name in holdings.units if name not in strategy.assets]
    if unknown:
        raise DataError(
            f"{', '.join(unknown)} is held, and this run trades {join_names(strategy.assets)}; "
            "leave it out of the holdings"
        )


def _hours(age: pd.Timedelta | None) -> float:
    return np.nan if age is None else age / pd.Timedelta(hours=1)


def _last_close(bars: Bars, asset: str) -> float:
    known = bars[asset]["close"].dropna() if asset in bars else pd.Series(dtype=float)
    return float(known.iloc[-1]) if len(known) else np.nan


def _decide(strategy: Strategy, bars: Bars) -> Decisions | None:
    """Decide at the last bars of each asset; None where there is nothing to decide on."""
    last = [bars[a].index[-_BEFORE:][0] for a in strategy.assets if a in bars and len(bars[a])]
    return decide_span(strategy, bars, min(last)) if last else None


def _row(decided: Decisions | None, bars: Bars, assets: list[str], back: int) -> pd.DataFrame:
    """Return what was decided at each asset's last bar, or the one before; NaN for nothing.

    Returns:
        `mean`, `std` and `weight` by asset.
    """
    found = np.full((len(assets), 3), np.nan)
    for row, asset in enumerate(assets):
        index = bars[asset].index if asset in bars else pd.DatetimeIndex([])
        if decided is None or len(index) < back or index[-back] not in decided.weights.index:
            continue
        for column, table in enumerate((decided.mean, decided.std, decided.weights)):
            if table is not None:
                found[row, column] = table.loc[index[-back]].to_numpy(float)[row]
    return pd.DataFrame(found, assets, ["mean", "std", "weight"])


def _in_per_cent(strategy: Strategy, bars: Bars, wanted: pd.DataFrame) -> pd.DataFrame:
    """Return forecasts, their deviations, and the volatility a year that they imply."""
    target, years = target_of(strategy.config), strategy.yearly or {}
    found = wanted[["mean", "std"]].set_axis(["forecast", "deviation"], axis="columns")
    found["volatility"] = np.nan
    if target.kind == "volatility":
        root = np.sqrt(pd.Series(years, dtype=float).reindex(wanted.index))
        found["volatility"] = 100 * np.exp(wanted["mean"]) * root
        found["forecast"] = found["volatility"]
        found["deviation"] = found["volatility"] * wanted["std"]
    elif target.kind == "return":
        need = target.volatility_window + target.horizon + 2
        scale = pd.Series(np.nan, wanted.index)
        for asset in wanted.index[wanted["mean"].notna()]:
            own = bars[str(asset)].iloc[-need:]
            scale[asset] = compute_target(own, target, asset=str(asset))[1].iloc[-1]
        found[["forecast", "deviation"]] = found[["forecast", "deviation"]].mul(100 * scale, axis=0)
    return found


def _risk(strategy: Strategy, bars: Bars) -> pd.DataFrame:
    """Forecast volatility and value at risk with the weights that ship, where they know bars."""
    own = {a: bars[a].iloc[-_RISK_BARS:] for a in strategy.assets if a in bars}
    empty = pd.DataFrame(np.nan, list(strategy.assets), ["volatility", "var_5"])
    try:
        found = risk_table(own, horizon=strategy.config.target.horizon)
    except (ConfigError, DataError):  # other lengths of bars, horizons, or too few bars
        return empty
    return pd.DataFrame(found)[["volatility", "var_5"]].reindex(list(strategy.assets))


def _current(
    strategy: Strategy,
    price: pd.Series,
    capital: float,
    holdings: Holdings | None,
    before: pd.Series,
) -> Current:
    if holdings is None:
        units = (before.fillna(0.0) * capital / price).fillna(0.0).to_numpy()
        return Current(capital, units, np.full(len(units), np.nan), before.fillna(0.0).to_numpy())
    units = np.array([holdings.units.get(a, 0.0) for a in strategy.assets])
    entry = np.array([holdings.entry.get(a, np.nan) for a in strategy.assets])
    # What was decided a bar before counts as done where it is held: weights drift, and stay.
    decided = before.fillna(0.0).to_numpy()
    return Current(
        capital, units, entry, np.where(np.sign(decided) == np.sign(units), decided, np.inf)
    )


def _preview(
    strategy: Strategy,
    current: Current,
    price: pd.Series,
    wanted: pd.Series,
    fresh: Mapping[str, Freshness],
) -> np.ndarray:
    """Return the units after the orders, as if they were filled at the last close without costs."""
    held: Held = open_account(strategy, current.capital)
    prices = price.fillna(0.0).to_numpy()
    held = held._replace(
        units=current.units[:, None],
        cash=np.array([current.capital - float(current.units @ prices)]),
    )
    if held.wanted is not None:
        held = held._replace(wanted=current.wanted[:, None])
    if held.entry is not None:
        held = held._replace(entry=np.nan_to_num(current.entry)[:, None])
    idle = np.array([fresh[a].stale for a in strategy.assets]) | ~(prices > 0)
    orders = np.where(idle, np.nan, wanted.to_numpy(float))
    return fill_at_once(strategy, held, np.where(idle, 0.0, prices), prices, orders)


def _stops(strategy: Strategy, current: Current, units: np.ndarray, price: pd.Series):
    """Return the prices at which the rules of the run would close what is held after the orders.

    A position that is opened now has its entry at the next fill, which the last close stands for.
    """
    settings = strategy.config.backtest
    sign = np.sign(units)
    kept = (np.sign(current.units) == sign) & np.isfinite(current.entry) & (current.entry > 0)
    entry = np.where(kept, current.entry, price.to_numpy())
    nothing = np.full(len(sign), np.nan)
    losses = [each for each in (settings.stop_loss, settings.trailing_stop) if each is not None]
    stop = entry * (1 - sign * min(losses)) if losses else nothing
    gain = settings.take_profit
    profit = nothing if gain is None else entry * (1 + sign * gain)
    return (np.where(sign == 0, np.nan, each) for each in (stop, profit))


def _reason(
    strategy: Strategy,
    fresh: Freshness,
    current: Current,
    place: int,
    units_after: np.ndarray,
    decided: pd.DataFrame,
    prices: pd.Series,
) -> str:
    """Say in a few words why something is ordered of an asset, or nothing is."""
    settings, units, after = strategy.config.backtest, current.units[place], units_after[place]
    mean, wanted = decided[["mean", "weight"]].to_numpy(float)[place]
    price = float(prices.iloc[place])
    if fresh.stale:
        return fresh.problem
    if mean != mean:
        return "no forecast: too few bars" + ("; close" if units != after else "")
    share = price / current.capital
    if abs(after - units) * share > _SMALL:
        limited = abs(after * share - wanted) > _SMALL
        return _verb(units, after) + ("; within max_gross, max_turnover" if limited else "")
    if wanted == 0 and units == 0:
        return "flat: nothing wanted"
    away, band = abs(wanted - units * share), settings.band / len(strategy.assets)
    if settings.band and away < band and wanted != current.wanted[place]:
        return f"band: change of {away:.3f} below {band:.3f}"
    return "hold: as decided before"


def _verb(units: float, after: float) -> str:
    if after == 0:
        return "close"
    if units == 0 or np.sign(units) != np.sign(after):
        return f"{'open' if units == 0 else 'turn'} {'long' if after > 0 else 'short'}"
    return "increase" if abs(after) > abs(units) else "reduce"
