"""The account against vectorbt and backtesting.py, on 200 drawn cases each.

What had to be told to the peers so that all agree, and nothing else:

vectorbt (`Portfolio.from_orders`, `targetpercent`, one group that shares its cash)
  * sizes by the equity at the prices of the fills before costs, as we do; slippage and fees alike;
  * sells before it buys (`call_seq="auto"`) and never borrows, so longs stay below 0.9 of the
    equity, where our cash is enough as well; its shorts are free to take any size, as ours are;
  * trades at every order that is a number: where we trade on changes, orders that repeat the last
    one are NaN for it;
  * values what has no bar at the price of its last fill, an open where orders are filled at opens;
    it is told to value it at its last close;
  * marks what is open at the last bar's close, and tells no result where that bar is missing;
  * has no rule for what ended and does not close a ruined account: neither occurs.

backtesting.py (orders at the next open, stop-loss, take-profit)
  * trades whole units: the capital is 10^12, and agreement is asked to 10^-8;
  * sizes its fractions of equity by what is left after costs; it is given units instead, computed
    of its own equity, position and the open that fills them;
  * looks for stops before it fills the order that closes at the open of the same bar; we fill the
    order first, so its stops are cancelled when the closing order is sent;
  * pays its spread at the entry alone: it is 0, and so is our slippage;
  * keeps stops for each enlargement of a position apart; we use the average price: positions here
    change their side and not their size;
  * has no trailing stop of its own: the strategy moves the stop at each close, as its
    `TrailingStrategy` does, by the highs until then.
"""

import numpy as np
import pandas as pd
import pytest

from maml_jax.backtest import Execution, make_market, place_orders, trade

pytestmark = pytest.mark.slow

CASES = range(200)
BARS = 150


def random_market(rng, assets, *, gaps=0.0):
    """Bars whose opens lie near the close before, so that no stop lies beyond it."""
    bars = {}
    index = pd.date_range("2021-01-01", periods=BARS, tz="UTC", name="timestamp")
    for number in range(assets):
        close = 100 * np.exp(np.cumsum(0.02 * rng.standard_t(4, BARS)))
        open_ = np.r_[100.0, close[:-1]] * np.exp(0.003 * rng.standard_normal(BARS).clip(-2, 2))
        spread = np.exp(0.01 * np.abs(rng.standard_normal((2, BARS))))
        high, low = np.maximum(open_, close) * spread[0], np.minimum(open_, close) / spread[1]
        table = {"open": open_, "high": high, "low": low, "close": close}
        there = rng.random(BARS) >= gaps
        bars[f"A{number}"] = pd.DataFrame(table, index)[there]
    return make_market(bars, index)


def wanted_weights(rng, market):
    """Long, short and flat for some bars each; all longs together below 0.9."""
    shape = market.close.shape
    weights = rng.uniform(-0.9, 0.9, shape) / shape[1]
    weights = np.where(rng.random(shape) < 0.3, 0.0, weights)
    stays = rng.integers(1, 8)
    weights = np.repeat(weights[::stays], stays, axis=0)[:BARS]
    return pd.DataFrame(weights, market.close.index, market.close.columns)


@pytest.mark.filterwarnings("ignore")  # vectorbt's own, of pandas
@pytest.mark.parametrize("case", CASES)
def test_vectorbt(case):
    vectorbt = pytest.importorskip("vectorbt", reason="needs the extra `peers`")
    rng = np.random.default_rng(case)
    market = random_market(rng, assets=4, gaps=rng.choice([0.0, 0.2]))
    fill = str(rng.choice(["close", "next_close", "next_open"]))
    orders = place_orders(wanted_weights(rng, market), market, fill)
    execution = Execution(
        fee=float(rng.choice([0.0, 0.0005, 0.003])),
        slippage=float(rng.choice([0.0, 0.001])),
        rebalance=str(rng.choice(["changes", "always"])),
    )
    ours = trade(orders, market, fill=fill, execution=execution, capital=1e4)
    size = orders
    if execution.rebalance == "changes":
        repeated = {a: orders[a].dropna().diff().fillna(orders[a].dropna()) == 0 for a in orders}
        size = orders.mask(pd.DataFrame(repeated).reindex(orders.index) == True)  # noqa: E712
    price = market.open if fill == "next_open" else market.close
    theirs = vectorbt.Portfolio.from_orders(
        close=market.close,
        price=price,
        val_price=price.fillna(market.close.ffill()),
        size=size,
        size_type="targetpercent",
        fees=execution.fee,
        slippage=execution.slippage,
        init_cash=1e4,
        cash_sharing=True,
        group_by=True,
        call_seq="auto",
        freq="1D",
    )
    np.testing.assert_allclose(ours.equity, theirs.value(), rtol=1e-9)
    np.testing.assert_allclose(ours.net, theirs.returns(), atol=1e-9)
    made = theirs.orders.records_readable
    moved = made["Size"] * (made["Price"] / (1 + execution.slippage * _sign(made)) - made["Price"])
    costs = made["Fees"].sum() + moved.abs().sum()
    assert ours.trades["cost"].sum() == pytest.approx(costs, rel=1e-8)
    positions = theirs.positions.records_readable.sort_values(
        ["Entry Timestamp", "Column"], ignore_index=True
    )
    trades = ours.trades.sort_values(["entry", "asset"], ignore_index=True)
    assert len(trades) > 20
    assert trades["asset"].tolist() == positions["Column"].tolist()
    assert trades["entry"].tolist() == positions["Entry Timestamp"].tolist()
    assert trades["open"].tolist() == (positions["Status"] == "Open").tolist()
    assert trades["side"].tolist() == positions["Direction"].map({"Long": 1, "Short": -1}).tolist()
    closed = ~trades["open"]
    told = closed | trades["asset"].map(market.close.iloc[-1].notna())
    net = trades["result"] - trades["cost"]
    np.testing.assert_allclose(net[told], positions["PnL"][told], rtol=1e-7, atol=1e-6)
    assert trades["exit"][closed].tolist() == positions["Exit Timestamp"][closed].tolist()


def _sign(made):
    return made["Side"].map({"Buy": 1.0, "Sell": -1.0})


def case_of_one_asset(case):
    """Return a market, the wanted weights and the rules of one case."""
    rng = np.random.default_rng(case)
    market = random_market(rng, assets=1)
    stays = int(rng.integers(1, 12))
    sides = np.repeat(rng.choice([-1.0, 0.0, 1.0], BARS), stays)[:BARS]
    sides[:2] = 0.0  # no strategy is asked at the first bar
    weight = float(rng.uniform(0.2, 0.95))
    wanted = pd.DataFrame({"A0": weight * sides}, market.close.index)
    some = rng.random(3) < 0.7
    execution = Execution(
        fee=float(rng.choice([0.0, 0.0005, 0.003])),
        slippage=0.0,
        stop_loss=float(rng.uniform(0.01, 0.06)) if some[0] else None,
        take_profit=float(rng.uniform(0.01, 0.08)) if some[1] else None,
        trailing_stop=float(rng.uniform(0.01, 0.06)) if some[2] else None,
    )
    return market, wanted, execution


def test_the_cases_of_backtesting_hold_every_kind_of_exit():
    reasons, same_bar = [], 0
    for case in CASES:
        market, wanted, execution = case_of_one_asset(case)
        orders = place_orders(wanted, market, "next_open")
        made = trade(orders, market, fill="next_open", execution=execution)
        reasons += made.trades["reason"].tolist()
        same_bar += (made.trades["entry"] == made.trades["exit"]).sum()
    assert min(reasons.count(each) for each in set(reasons) - {"end"}) > 300
    assert {"order", "stop loss", "take profit", "trailing stop"} < set(reasons)
    assert same_bar > 300  # entered at the open and stopped before the close


@pytest.mark.filterwarnings("ignore")  # its own, of pandas and of what stays open
@pytest.mark.parametrize("case", CASES)
def test_backtesting(case):
    backtesting = pytest.importorskip("backtesting", reason="needs the extra `peers`")
    backtesting.backtesting._tqdm = lambda rows, **_: rows
    market, wanted, execution = case_of_one_asset(case)
    capital = 1e12
    orders = place_orders(wanted, market, "next_open")
    ours = trade(orders, market, fill="next_open", execution=execution, capital=capital)
    test = backtesting.Backtest(
        pd.DataFrame({name.title(): t["A0"] for name, t in market._asdict().items()}),
        strategy_of(backtesting.Strategy, wanted["A0"].to_numpy(), market, execution),
        cash=capital,
        commission=execution.fee,
        finalize_trades=False,
    )
    theirs = test.run()
    np.testing.assert_allclose(ours.equity, theirs["_equity_curve"]["Equity"], rtol=1e-8)
    closed = ours.trades[~ours.trades["open"]]
    trades = theirs["_trades"].sort_values("EntryBar", ignore_index=True)
    index = market.close.index
    assert closed["entry"].tolist() == index[trades["EntryBar"]].tolist()
    assert closed["exit"].tolist() == index[trades["ExitBar"]].tolist()
    assert closed["side"].tolist() == np.sign(trades["Size"]).tolist()
    np.testing.assert_allclose(closed["entry_price"], trades["EntryPrice"], rtol=1e-12)
    np.testing.assert_allclose(closed["exit_price"], trades["ExitPrice"], rtol=1e-12)
    np.testing.assert_allclose(
        closed["result"] - closed["cost"], trades["PnL"], rtol=1e-7, atol=1e-8 * capital
    )
    assert len(closed) > 0


def strategy_of(base, wanted, market, execution):
    """A strategy of backtesting.py that takes a side at the next open and keeps its stops."""
    opens = np.append(market.open["A0"].to_numpy(), np.nan)
    highs, lows = market.high["A0"].to_numpy(), market.low["A0"].to_numpy()

    class Sides(base):
        def init(self):
            self.best = np.nan

        def next(self):
            bar = len(self.data) - 1
            for held in self.trades:
                extreme = np.fmax if held.is_long else np.fmin
                started = held.entry_price if held.entry_bar == bar else self.best
                self.best = extreme(started, highs[bar] if held.is_long else lows[bar])
                held.sl = levels(held.entry_price, self.best, 1 if held.is_long else -1)[0]
            if bar + 1 == BARS or wanted[bar] == wanted[bar - 1]:
                return
            price = opens[bar + 1]
            value = self.equity + self.position.size * (price - self.data.Close[-1])
            size = int(wanted[bar] * value / price) - self.position.size
            for held in self.trades:
                held.sl = held.tp = None
            side = int(np.sign(wanted[bar]))
            stop, profit = levels(price, price, side) if side else (None, None)
            if size > 0:
                self.buy(size=size, sl=stop, tp=profit)
            elif size < 0:
                self.sell(size=-size, sl=stop, tp=profit)

    def levels(entry, best, side):
        found = []
        if execution.stop_loss is not None:
            found.append(entry * (1 - side * execution.stop_loss))
        if execution.trailing_stop is not None:
            found.append(best * (1 - side * execution.trailing_stop))
        nearer = max if side > 0 else min
        profit = execution.take_profit
        return (
            nearer(found) if found else None,
            None if profit is None else entry * (1 + side * profit),
        )

    return Sides
