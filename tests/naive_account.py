"""An account written down bar by bar and asset by asset, to compare with the compiled one."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from maml_jax.backtest import Execution


class NaiveTrade(NamedTuple):
    asset: str
    side: int
    entry: pd.Timestamp
    exit: pd.Timestamp | None
    result: float
    cost: float
    reason: str | None
    value: float  # equity at entry


class Position:
    def __init__(self):
        self.units = 0.0
        self.entry = self.best = math.nan
        self.wanted = 0.0
        self.waiting = None  # an order for which there was no price
        self.rest = False  # a part of the last order is not executed
        self.blocked = 0
        self.mark = 0.0
        self.last_bar = None
        self.trade = None


class NaiveAccount:
    """Follows the text of the documentation, not the code."""

    def __init__(self, orders, market, *, fill, execution=None, capital):
        self.fill = fill
        self.orders = orders.to_dict("records")
        tables = {name: table.to_dict("records") for name, table in market._asdict().items()}
        self.prices = [
            {a: {name: rows[t][a] for name, rows in tables.items()} for a in orders.columns}
            for t in range(len(orders))
        ]
        self.rules = execution or Execution()
        self.cash = self.equity = capital
        steps = orders.index.to_series().diff()
        self.years = (steps / pd.Timedelta(days=365)).fillna(0.0).tolist()
        self.alive = True
        self.assets = {name: Position() for name in orders.columns}
        self.curve, self.costs, self.turnover, self.trades, self.units = [], [], [], [], []
        self.patience = max(pd.Timedelta(days=30), 6 * orders.index.to_series().diff().median())
        for number, time in enumerate(orders.index):
            self._bar(number, time)

    def _bar(self, number, time):
        before = self.equity
        self.paid = self.traded = 0.0
        self.time, self.order, self.dt = time, self.orders[number], self.years[number]
        bar = {}
        for name, position in self.assets.items():
            prices = self.prices[number][name]
            bar[name] = prices if math.isfinite(prices["close"]) else None
            if bar[name]:
                position.last_bar = time
        self.bar = bar
        if self.alive:
            self._borrow()
            if self.fill == "next_open":
                self._orders("open")
            for name, position in self.assets.items():
                if bar[name] and position.units:
                    self._stops(name, position, bar[name], before)
            for name, position in self.assets.items():
                if bar[name] and position.units:
                    extreme = max if position.units > 0 else min
                    side = "high" if position.units > 0 else "low"
                    if math.isfinite(bar[name][side]):
                        position.best = extreme(position.best, bar[name][side])
            if self.fill != "next_open":
                self._orders("close")
        for name, position in self.assets.items():
            if bar[name]:
                position.mark = bar[name]["close"]
        self.equity = self.cash + sum(p.units * p.mark for p in self.assets.values())
        if self.alive and self.equity <= 0:
            self.alive = False
            for name, position in self.assets.items():
                if position.units:
                    spread = self._spread(name)
                    slip = self.rules.slippage * position.mark + spread
                    self._trade(name, position, -position.units, position.mark, slip, "ruin")
            self.equity = self.cash
        self.curve.append(self.equity)
        self.costs.append(self.paid)
        self.turnover.append(self.traded)
        self.units.append([p.units for p in self.assets.values()])

    def _spread(self, name):
        bar = self.bar[name]
        if bar is None or not math.isfinite(bar["high"] - bar["low"]):
            return 0.0
        return self.rules.range_slippage * (bar["high"] - bar["low"])

    def _pay(self, position, money):
        self.cash -= money
        self.paid += money
        if position.trade:
            position.trade["cost"] += money

    def _borrow(self):
        longs = sum(max(p.units * p.mark, 0.0) for p in self.assets.values())
        owed = max(-self.cash, 0.0)
        for position in self.assets.values():
            value = position.units * position.mark
            amount = -value if value < 0 else (owed * value / longs if longs else 0.0)
            if amount:
                self._pay(position, self.rules.borrow * self.dt * amount)

    def _orders(self, which):
        plan = {}
        value = self.cash
        prices, worth = {}, {}
        for name, position in self.assets.items():
            bar = self.bar[name]
            price = bar[which] if bar else math.nan
            order = self.order[name]
            gone = position.last_bar is not None and self.time - position.last_bar > self.patience
            if bar is None and gone:
                price, order = position.mark, 0.0
            can = math.isfinite(price) and price > 0
            worth[name] = price if math.isfinite(price) else position.mark
            value += position.units * worth[name]
            prices[name] = price if can else None
            if not math.isnan(order):
                position.waiting = order
            position.gone = bar is None and gone
        if value <= 0:
            for name, position in self.assets.items():
                if prices[name]:
                    position.waiting = None
            return
        for name, position in self.assets.items():
            if not prices[name]:
                continue
            fresh = position.waiting is not None
            changed = fresh and position.waiting != position.wanted
            if fresh:
                position.wanted, position.waiting = position.waiting, None
            sign = int(np.sign(position.wanted))
            if sign != position.blocked:
                position.blocked = 0
            asked = fresh if self.rules.rebalance == "always" else changed
            asked = asked or position.rest
            position.rest = False
            if not asked or position.blocked:
                continue
            change = position.wanted * value / prices[name] - position.units
            part = value / len(self.assets)
            small = abs(change) * prices[name] / part < self.rules.band * (1 - 1e-12)
            if small and position.wanted != 0:
                continue
            plan[name] = change
        if self.rules.max_gross is not None:
            self._keep_gross(plan, worth, value)
        total = sum(abs(change) * prices[name] for name, change in plan.items()) / value
        limit = self.rules.max_turnover
        part = 1.0 if limit is None or total <= limit * (1 + 1e-12) else limit / total
        for name, change in plan.items():
            position = self.assets[name]
            position.rest = part < 1 and change != 0
            slip = self.rules.slippage * prices[name] + self._spread(name)
            self.traded += abs(part * change) * prices[name] / value
            reason = "end" if position.gone else "order"
            self._trade(name, position, part * change, prices[name], slip, reason, value)

    def _keep_gross(self, plan, worth, value):
        rest, more = 0.0, {}
        for name, position in self.assets.items():
            price, units = worth[name], position.units
            after = units + plan.get(name, 0.0)
            if units * after < 0:
                kept = 0.0
            elif abs(after) > abs(units):
                kept = units
            else:
                kept = after
            rest += abs(kept * price) / value
            more[name] = (kept, after - kept, price)
        asked = sum(abs(larger * price) / value for _, larger, price in more.values())
        if not asked or rest + asked <= self.rules.max_gross:
            return
        part = max(0.0, (self.rules.max_gross - rest) / asked)
        for name in plan:
            kept, larger, _ = more[name]
            plan[name] = kept + part * larger - self.assets[name].units

    def _stops(self, name, position, bar, before):
        rules, long = self.rules, position.units > 0
        levels = []
        if rules.stop_loss is not None:
            level = position.entry * (1 - rules.stop_loss if long else 1 + rules.stop_loss)
            levels.append((level, "stop loss"))
        if rules.trailing_stop is not None:
            level = position.best * (1 - rules.trailing_stop if long else 1 + rules.trailing_stop)
            levels.append((level, "trailing stop"))
        reached = None
        if levels:
            # Prices come to the nearer one first.
            level, reason = (max if long else min)(levels, key=lambda pair: pair[0])
            if (bar["low"] <= level) if long else (bar["high"] >= level):
                beyond = bar["open"] < level if long else bar["open"] > level
                price = bar["open"] if beyond else level
                price = np.fmin(price, bar["high"]) if long else np.fmax(price, bar["low"])
                reached = price, reason, True
        if reached is None and rules.take_profit is not None:
            share = rules.take_profit if long else -rules.take_profit
            level = position.entry * (1 + share)
            if (bar["high"] >= level) if long else (bar["low"] <= level):
                beyond = bar["open"] > level if long else bar["open"] < level
                reached = (bar["open"] if beyond else level), "take profit", False
        if reached:
            price, reason, slips = reached
            position.blocked = 1 if long else -1
            self.traded += abs(position.units) * price / before
            slip = rules.slippage * price + self._spread(name) if slips else 0.0
            self._trade(name, position, -position.units, price, slip, reason)

    def _trade(self, name, position, change, price, slip, reason, value=math.nan):
        """Execute; what flips a position closes one trade and opens another."""
        if change == 0:
            return
        units = position.units
        if units * (units + change) < 0:
            self._trade(name, position, -units, price, slip, reason, value)
            self._trade(name, position, units + change, price, slip, reason, value)
            return
        if units == 0:
            position.trade = {"side": np.sign(change), "entry": self.time, "value": value}
            position.trade |= {"result": 0.0, "cost": 0.0}
            position.entry = position.best = price
        elif units * change > 0:
            position.entry = (position.entry * units + price * change) / (units + change)
        fill = price + slip if change > 0 else max(price - slip, 0.0)
        self.cash -= change * price
        position.trade["result"] -= change * price
        self._pay(position, abs(change) * (abs(fill - price) + self.rules.fee * fill))
        position.units = 0.0 if change == -units else units + change
        if position.units == 0:
            made = position.trade
            position.trade = None
            self.trades.append(self._told(name, made, self.time, reason))

    def all_trades(self):
        still = [
            self._told(n, {**p.trade, "result": p.trade["result"] + p.units * p.mark}, None, "end")
            for n, p in self.assets.items()
            if p.trade
        ]
        places = list(self.assets)
        return sorted(self.trades + still, key=lambda t: (t.entry, places.index(t.asset)))

    @staticmethod
    def _told(name, made, exit_, reason):
        return NaiveTrade(
            name,
            int(made["side"]),
            made["entry"],
            exit_,
            made["result"],
            made["cost"],
            reason,
            made["value"],
        )
