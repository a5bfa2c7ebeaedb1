"""Every difference between a paper account and its backtest gets its cause, and all add up."""

import sqlite3
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from live.small import START, bars_to, result
from market import MARKET

from maml_jax.live.book import Book
from maml_jax.live.latest import go_on, open_paper
from maml_jax.live.page import describe, reconcile_page
from maml_jax.live.reconcile import CAUSES, reconcile
from maml_jax.live.state import advance, begin
from maml_jax.live.strategy import strategy_of
from maml_jax.report.tear_sheet import render

pytestmark = pytest.mark.long

END = 40
DAYS = {name: START + pd.Timedelta(days=place) for name, place in
        {"revised": 11, "late": 17}.items()}  # fmt: skip


def live(tmp_path, *faults):
    """Trade on paper with planted faults; return the run as it is afterwards, book and bars."""
    run, book, market = result(), Book(tmp_path / "book"), dict(MARKET)
    if "revised data" in faults:
        market["A2"] = market["A2"].copy()
        market["A2"].loc[DAYS["revised"], "close"] *= 1.03
    if "late bar" in faults:
        market["A3"] = market["A3"].drop(DAYS["late"])
    for place in range(END + 1):
        if "missed bar" in faults and 20 < place < 25:
            continue
        bars = bars_to(place, market)
        strategy, state = open_paper(run, book, bars, since=START)
        go_on(strategy, state, book, bars)
    if "fill price" in faults:
        with sqlite3.connect(book.path) as connection:
            connection.execute("UPDATE fills SET price = price * 1.01 WHERE number = 3")
            connection.execute("UPDATE steps SET equity = equity - 7.25 WHERE time > ?",
                               (str(DAYS["late"]).replace(" ", "T"),))  # fmt: skip
    if "settings" in faults:
        config = run.config.changed(backtest={"fee": 0.004})
        run = replace(run, config=config)
    return run, book, bars_to(END)


def backtested(run, bars):
    strategy = strategy_of(run, bars, since=START)
    _, step = advance(strategy, begin(strategy, run.config.backtest.capital), bars, every=True)
    return step.traded.equity


@pytest.mark.parametrize(
    "faults", [(), CAUSES, *(pytest.param((each,), marks=pytest.mark.slow) for each in CAUSES)]
)
def test_causes_are_found_and_add_up(tmp_path, faults):
    run, book, bars = live(tmp_path, *faults)
    found = reconcile(run, book, bars)
    expected = backtested(run, bars)
    assert found.backtest.iloc[-1] == pytest.approx(expected.iloc[-1], abs=1e-9)
    assert found.gap == pytest.approx(book.equity().iloc[-1] - expected.iloc[-1], abs=1e-9)
    assert found.causes["amount"].sum() == pytest.approx(found.gap, abs=1e-9)
    assert list(found.causes.index) == list(CAUSES)
    for cause, row in found.causes.iterrows():
        assert (row["count"] > 0) == (cause in faults), cause
        if cause not in faults:
            assert row["amount"] == pytest.approx(0, abs=1e-9), cause
        elif cause not in ("late bar",):  # one bar of one asset may change no position
            assert abs(row["amount"]) > 1e-6, cause
    if not faults:
        np.testing.assert_allclose(found.paper, found.backtest, atol=1e-9)
        assert describe(found) == "The account is its backtest, to the cent."
    if faults == ("fill price",):
        assert found.gap == pytest.approx(-7.25, abs=1e-9)
    if len(faults) == 1:
        assert faults[0] in describe(found) or abs(found.gap) < 0.005
    page = render(reconcile_page(found, "run"))
    assert all(cause in page for cause in CAUSES)
