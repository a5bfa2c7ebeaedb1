"""What to hold now: the latest decision of a strategy, as a table of orders."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from maml_jax.backtest.account.state import Held
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment.preparation.requirements import target_of
from maml_jax.features import compute_target
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
    if not 0 < money < np.inf:
        raise ConfigError(f"capital {money}: a positive amount of money")
    assets = list(strategy.assets)
    if holdings is not None:
        unknown = [name for name in holdings.units if name not in assets]
        if unknown:
            raise DataError(
                f"{', '.join(unknown)} is held, and this run trades {', '.join(assets)}; leave it "
                "out of the holdings"
            )
    fresh = freshness(bars, strategy.assets, strategy.checkpoint.interval, now)
    table = SignalTable(index=pd.Index(assets, name="asset"))
    table["as_of"] = pd.to_datetime([fresh[a].last for a in assets], utc=True)
    table["age"] = [np.nan if (g := fresh[a].age) is None else g / pd.Timedelta("1h") for a in assets]
    price = pd.Series({a: _last_close(bars, a) for a in assets}, dtype=float)
    table["price"] = price
    usable = {a: frame for a, frame in bars.items() if not (a in fresh and fresh[a].stale)}
    decided = _decide(strategy, usable)
    before, wanted = (_row(decided, strategy, usable, back) for back in (2, 1))
    table["forecast"], table["deviation"], volatility = _in_per_cent(strategy, usable, decided)
    risk = _risk(strategy, usable)
    table["volatility"] = volatility.fillna(risk["volatility"])
    table["var_5"] = risk["var_5"]
    current = _current(strategy, price, money, holdings, before)
    after = _preview(strategy, current, price, wanted, fresh)
    weight = current.units * price.to_numpy() / money
    table["weight"] = np.nan_to_num(weight)
    table["target_weight"] = wanted
    change = after - current.units
    table["units"], table["value"] = change, change * price.to_numpy()
    final = pd.Series(after, assets)
    table["side"] = np.select([final > 0, final < 0], ["long", "short"], "flat")
    table["stop"], table["take_profit"] = _stops(strategy, current, final, price)
    table["stale"] = [fresh[a].stale for a in assets]
    table["reason"] = [
        _reason(strategy, fresh[a], current.units[i], after[i], before[a], wanted[a], money, price[a])
        for i, a in enumerate(assets)
    ]
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


def _last_close(bars: Bars, asset: str) -> float:
    known = bars[asset]["close"].dropna() if asset in bars else pd.Series(dtype=float)
    return float(known.iloc[-1]) if len(known) else np.nan


def _decide(strategy: Strategy, bars: Bars) -> Decisions | None:
    """Decide at the last bars of each asset; None where there is nothing to decide on."""
    last = [bars[a].index[-_BEFORE:][0] for a in strategy.assets if a in bars and len(bars[a])]
    return decide_span(strategy, bars, min(last)) if last else None


def _row(decided: Decisions | None, strategy: Strategy, bars: Bars, back: int) -> pd.Series:
    """Return the weights that were wanted at each asset's last bar, or the one before; NaN: none."""
    found = dict.fromkeys(strategy.assets, np.nan)
    for asset in strategy.assets if decided is not None else ():
        index = bars[asset].index if asset in bars else ()
        if len(index) >= back and index[-back] in decided.weights.index:
            found[asset] = decided.weights.at[index[-back], asset]
    return pd.Series(found)


def _in_per_cent(strategy: Strategy, bars: Bars, decided: Decisions | None):
    """Return forecasts, their deviations, and the volatility a year that they imply."""
    target, years = target_of(strategy.config), strategy.yearly or {}
    rows: dict[str, tuple[float, float, float]] = {}
    for asset in strategy.assets:
        rows[asset] = (np.nan, np.nan, np.nan)
        if decided is None or asset not in bars:
            continue
        time = bars[asset].index[-1]
        mean = float(decided.mean.at[time, asset])
        std = np.nan if decided.std is None else float(decided.std.at[time, asset])
        if target.kind == "volatility":
            year = 100 * np.exp(mean) * np.sqrt(years.get(asset, np.nan))
            rows[asset] = (year, year * std, year)
        elif target.kind == "direction":
            rows[asset] = (mean, std, np.nan)
        else:
            need = target.volatility_window + target.horizon + 2
            scale = compute_target(bars[asset].iloc[-need:], target, asset=asset)[1].iloc[-1]
            rows[asset] = (100 * mean * scale, 100 * std * scale, np.nan)
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table[0], table[1], table[2]


def _risk(strategy: Strategy, bars: Bars) -> pd.DataFrame:
    """Forecast volatility and value at risk with the weights that ship, where they know the bars."""
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


def _stops(strategy: Strategy, current: Current, units: pd.Series, price: pd.Series):
    """Return the prices at which the rules of the run would close what is held after the orders.

    A position that is opened now has its entry at the next fill, which the last close stands for.
    """
    settings = strategy.config.backtest
    sign = np.sign(units.to_numpy())
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
    units: float,
    after: float,
    before: float,
    wanted: float,
    capital: float,
    price: float,
) -> str:
    """Say in a few words why something is ordered, or nothing is."""
    settings = strategy.config.backtest
    if fresh.stale:
        return fresh.problem
    if wanted != wanted:
        return "no forecast: too few bars"
    change = (after - units) * price / capital
    if abs(change) > _SMALL:
        short = abs(after * price / capital - wanted) > 1e-6
        limit = "; limited by max_gross or max_turnover" if short else ""
        if units == 0 or np.sign(units) != np.sign(after):
            verb = "close" if after == 0 else "open" if units == 0 else "turn"
            side = "" if after == 0 else " long" if after > 0 else " short"
            return f"{verb}{side}{limit}"
        return ("increase" if abs(after) > abs(units) else "reduce") + limit
    if wanted == 0 and units == 0:
        return "flat: nothing wanted"
    away = wanted - units * price / capital
    part = settings.band / len(strategy.assets)
    if settings.band and abs(away) < part and wanted != before:
        return f"band: change of {abs(away):.3f} below {part:.3f}"
    return "hold: as decided before"
