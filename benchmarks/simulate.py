"""Accounts of a thousand strategies at once, against vectorbt's numba engine.

1,000 strategies trade 20 assets over 5,000 bars: at every close each brings every asset to a weight
of its own, with a fee and slippage, 100 million orders in all. Every strategy is one account that
its assets share. Ours is timed as users call it, `trade_many`: from orders as they lie in memory to
returns, costs, turnover and exposure. vectorbt's is timed twice: its simulation function alone,
which ends at order records, on arrays that lie as it reads them best; and `Portfolio.from_orders`
up to returns. Its records of all orders would fill the memory, so it takes chunks of strategies.
Equality of the equity is checked first.

    python -m benchmarks.simulate [--peers] [--quick]
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import harness

SHARE = 0.2
"""Of the strategies, what vectorbt is timed on up to returns; each costs it the same."""

SIZES = {"strategies": 1_000, "bars": 5_000, "assets": 20}
QUICK = {"strategies": 250, "bars": 1_000, "assets": 20}
CHUNK = 50
"""Strategies of which vectorbt keeps the order records at a time; more make it no faster."""

FEE, SLIPPAGE, CAPITAL = 0.001, 0.0005, 10_000.0
OURS, ONE_CORE = "maml_jax trade_many", "maml_jax trade_many, one core"
ALL_RULES = "maml_jax trade_many, stops and limits"
RAW, RETURNS = "vectorbt simulate_from_orders_nb", "vectorbt from_orders to returns"


def closes(bars: int, assets: int) -> pd.DataFrame:
    """Return a market of random walks."""
    steps = 0.01 * np.random.default_rng(0).standard_normal((bars, assets))
    index = pd.date_range("2000-01-03", periods=bars, freq="D", tz="UTC")
    names = [f"A{number:02d}" for number in range(assets)]
    return pd.DataFrame(100 * np.exp(np.cumsum(steps, axis=0)), index, names)


def weights(strategies: int, bars: int, assets: int) -> np.ndarray:
    """Return wanted weights, `[strategy, time, asset]`, of which no account borrows."""
    drawn = np.random.default_rng(1).random((strategies, bars, assets))
    drawn -= 0.5
    drawn /= 0.5 * assets
    return drawn


def ours(
    strategies: int, bars: int, assets: int, devices: int | None, equity_of: int
) -> dict[str, Callable[[], Any]]:
    """Hold `trade_many`, spread over all cores or on one."""
    harness.use_devices(devices)
    from maml_jax.backtest import Execution, Market, trade_many

    close = closes(bars, assets)
    before = close.shift().fillna(100.0)
    high, low = np.maximum(before, close) * 1.002, np.minimum(before, close) / 1.002
    market = Market(before, high, low, close)
    wanted = weights(strategies, bars, assets)
    plain = Execution(fee=FEE, slippage=SLIPPAGE, rebalance="always")
    stops = {"stop_loss": 0.03, "take_profit": 0.05, "trailing_stop": 0.04}
    limits = {"band": 0.2, "max_turnover": 0.3, "max_gross": 0.4, "borrow": 0.02}

    def run(execution: Execution) -> Any:
        return trade_many(
            wanted,
            market,
            fill="close",
            execution=execution,
            capital=CAPITAL,
        )

    def equity() -> np.ndarray:
        return CAPITAL * np.cumprod(1 + run(plain).net[:equity_of], axis=1)

    contestants = {OURS if devices is None else ONE_CORE: lambda: run(plain)}
    if devices is None:
        contestants[ALL_RULES] = lambda: run(plain._replace(**stops, **limits))
    for name, contestant in contestants.items():
        contestants[name] = with_compile_seconds(contestant, contestant)
    return {**contestants, "_equity": equity}


def with_compile_seconds(
    contestant: Callable[[], Any], part: Callable[[], Any], settings: str | None = None
) -> Callable[[], Any]:
    """Run a part of the work from nothing and again: the difference is what compiling took."""
    times = []
    for _ in range(4):
        begun = time.perf_counter()
        part()
        times.append(time.perf_counter() - begun)

    def run() -> Any:
        contestant()

    run.compile_seconds = times[0] - statistics.median(times[1:])  # type: ignore[attr-defined]
    run.settings = settings  # type: ignore[attr-defined]
    return run


def vectorbt(strategies: int, bars: int, assets: int) -> dict[str, Callable[[], Any]]:
    """Hold vectorbt's freshly compiled simulation and its portfolio."""
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()
    import vectorbt as vbt
    from vectorbt.portfolio import nb
    from vectorbt.portfolio.enums import SizeType

    close = closes(bars, assets)
    wanted = weights(strategies, bars, assets)
    columns = CHUNK * assets
    prices = np.asfortranarray(np.tile(close.to_numpy(), (1, CHUNK)))
    # Column by column, as its loops go. Room is made for just the orders that there are.
    parts = [
        np.asfortranarray(wanted[first : first + CHUNK].transpose(1, 0, 2).reshape(bars, columns))
        for first in range(0, strategies, CHUNK)
    ]
    del wanted
    names = pd.MultiIndex.from_product([range(CHUNK), close.columns], names=["strategy", "asset"])
    frame = pd.DataFrame(prices, close.index, names)
    sequence = np.tile(np.arange(assets), (bars, CHUNK))
    fixed = {
        "group_lens": np.full(CHUNK, assets),
        "init_cash": np.full(CHUNK, CAPITAL),
        "call_seq": sequence,
        "price": prices,
        "close": prices,
        "size_type": np.asarray(SizeType.TargetPercent),
        "fees": np.asarray(FEE),
        "slippage": np.asarray(SLIPPAGE),
        "max_orders": bars * columns,
    }

    def simulate(part: np.ndarray) -> int:
        records, _ = nb.simulate_from_orders_nb((bars, columns), size=part, **fixed)
        return len(records)

    def portfolio(part: np.ndarray) -> Any:
        return vbt.Portfolio.from_orders(
            frame,
            size=part,
            size_type="targetpercent",
            fees=FEE,
            slippage=SLIPPAGE,
            init_cash=CAPITAL,
            cash_sharing=True,
            group_by="strategy",
            freq="1D",
            engine="numba",
        )

    def all_orders() -> None:
        if sum(simulate(part) for part in parts) != strategies * bars * assets:
            raise RuntimeError("vectorbt did not fill every order")

    def some_returns() -> None:
        for part in parts[: round(SHARE * len(parts))]:
            portfolio(part).returns()

    chunks = f"{CHUNK} strategies at a time"
    scaled = f"{chunks}, {SHARE:.0%} of them timed"
    alone = with_compile_seconds(all_orders, lambda: simulate(parts[0]), chunks)
    returns = with_compile_seconds(some_returns, lambda: portfolio(parts[0]).returns(), scaled)
    returns.steps = SHARE  # type: ignore[attr-defined]
    return {
        RAW: alone,
        RETURNS: returns,
        "_equity": lambda: portfolio(parts[0]).value().to_numpy().T,
    }


def main() -> None:
    """Check that all agree, then time them in turn."""
    asked = harness.arguments(__doc__ or "")
    sizes = QUICK if asked.quick else SIZES
    orders = sizes["strategies"] * sizes["bars"] * sizes["assets"]
    workers = [
        harness.Worker(ours, **sizes, devices=devices, equity_of=CHUNK) for devices in (None, 1)
    ]
    record: dict[str, Any] = {"sizes": {**sizes, "orders": orders}}
    if asked.peers:
        workers.append(harness.Worker(vectorbt, **sizes))
        equity = workers[0].value("_equity"), workers[-1].value("_equity")
        record["largest difference of equity"] = harness.require_equal(
            [equity[0]], [equity[1]], what="equity", tolerance=1e-9
        )
    times = harness.in_turn(workers, rounds=5, longest=200.0)
    for worker in workers:
        worker.close()
    own = times[OURS]["median"]
    record["simulations"] = [
        {
            "": name,
            "seconds": entry["median"],
            "best": entry["best"],
            "ns/order": 1e9 * entry["median"] / orders,
            "times ours": entry["median"] / own,
            "compiling, s": entry.get("compile_seconds"),
            "settings": entry.get("settings"),
        }
        for name, entry in times.items()
    ]
    title = "{strategies:,} strategies x {bars:,} bars x {assets} assets".format(**sizes)
    harness.show(title, record["simulations"])
    if asked.peers:
        reached = times[RAW]["median"] / own
        target = {"what": f"{title}, against vectorbt's simulation alone", "target": 1.0}
        record["targets"] = [{**target, "measured": reached, "met": reached >= 1}]
        harness.show("targets", record["targets"])
    if not asked.quick:
        harness.write("simulate", record)


if __name__ == "__main__":
    main()
