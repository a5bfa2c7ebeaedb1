"""What leaves the house is read by the tools it is made for; each is skipped where it is absent."""

import numpy as np
import pandas as pd
import pytest
from market import MARKET, SMALL

from maml_jax.experiment import run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

FREE = {"fee": 0.0, "slippage": 0.0, "max_weight": 0.4}


@pytest.fixture(scope="module")
def small():
    return run(SMALL, bars=MARKET, backtest=FREE)


def test_quantstats_reads_returns(saved, tmp_path):
    quantstats = pytest.importorskip("quantstats")
    result, path = saved
    returns = pd.read_parquet(path / "returns.parquet").tz_localize(None)
    year = result.stats.loc["Bars per Year", "maml"]
    ratio = quantstats.stats.sharpe(returns["maml"], periods=year)
    assert ratio == pytest.approx(result.stats.loc["Sharpe Ratio", "maml"])
    depth = 100 * quantstats.stats.max_drawdown(returns["maml"])
    assert depth == pytest.approx(result.stats.loc["Max. Drawdown [%]", "maml"])
    page = tmp_path / "quantstats.html"
    quantstats.reports.html(
        returns["maml"], benchmark=returns["buy and hold"], output=str(page), periods_per_year=year
    )
    assert page.stat().st_size > 10_000


def test_empyrical_reads_returns_with_their_time_zone(saved):
    empyrical = pytest.importorskip("empyrical")
    result, path = saved
    returns = pd.read_parquet(path / "returns.parquet")["maml"]
    year = result.stats.loc["Bars per Year", "maml"]
    ratio = empyrical.sharpe_ratio(returns, annualization=year)
    assert ratio == pytest.approx(result.stats.loc["Sharpe Ratio", "maml"])


def test_vectorbt_trades_orders_to_the_same_equity(small):
    vectorbt = pytest.importorskip("vectorbt")
    closes = pd.DataFrame({asset: MARKET[asset]["close"] for asset in ("A2", "A3")})
    for strategy in ("maml", "buy and hold", "no adaptation"):
        orders = small.orders(strategy)
        portfolio = vectorbt.Portfolio.from_orders(
            closes.reindex(orders.index)[list(orders)],
            size=orders, size_type="targetpercent", group_by=True, cash_sharing=True,
            call_seq="auto", init_cash=10_000.0, freq="D",
        )  # fmt: skip
        ours = 10_000.0 * (1 + small.returns[strategy]).cumprod()
        np.testing.assert_allclose(portfolio.value().to_numpy(), ours, rtol=1e-9)


def test_backtesting_follows_orders_and_reads_our_stats():
    backtesting = pytest.importorskip("backtesting")
    from backtesting.lib import compute_stats

    result = run(
        SMALL,
        bars=MARKET,
        data={"test_assets": ["A3"]},
        target={"fill": "next_open"},
        backtest={"fee": 0.0, "slippage": 0.0, "max_weight": 0.5},
    )
    orders = result.orders()

    class Follow(backtesting.Strategy):
        def init(self):
            pass

        def next(self):
            wanted = self.data.Wanted[-1]
            if wanted == wanted:
                self.position.close()
                if wanted:
                    (self.buy if wanted > 0 else self.sell)(size=min(abs(wanted), 0.9999))

    bars = MARKET["A3"]
    before = bars.index.get_loc(orders.index[0]) - 1  # it does not ask at its first bar
    data = bars.iloc[before : before + 1 + len(orders)].rename(columns=str.capitalize)
    data["Wanted"] = orders["A3"].reindex(data.index).shift(-1)
    theirs = backtesting.Backtest(data, Follow, cash=1e10).run()
    ours = result.to_stats()
    assert theirs["Return [%]"] == pytest.approx(ours["Return [%]"], rel=1e-4)
    assert theirs["# Trades"] == (~result.trades.query("strategy == 'maml'")["open"]).sum()
    read = compute_stats(stats=ours, data=data.iloc[1:])
    for name in ("Return [%]", "Equity Final [$]", "# Trades", "Max. Drawdown [%]"):
        assert read[name] == pytest.approx(ours[name])
    assert read["Start"] == ours["Start"]
