"""Runs beside each other: the bars they share, what differs, whom a page can be made of."""

import re

import numpy as np
import pandas as pd
import pytest
from market import MARKET

from maml_jax.backtest.metrics import sharpe_ratio
from maml_jax.errors import ConfigError, RunError
from maml_jax.experiment import backtest, compare, load
from maml_jax.experiment.compare.page import verdict, write_comparison

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def later(saved, tmp_path_factory):
    """The same method on one asset, a later span, at other costs."""
    out = tmp_path_factory.mktemp("compared") / "later"
    data = {"test_start": "2020-07-01", "test_assets": ["A3"]}
    backtest(saved[1], bars=MARKET, out=out, data=data, backtest={"fee": 0.0})
    return out


@pytest.fixture(scope="module")
def compared(saved, later):
    return compare([saved[1], later], samples=50)


@pytest.mark.slow
def test_figures_are_of_the_bars_that_all_share(saved, later, compared):
    other = load(later)
    assert list(compared.returns) == ["first", "later"]
    assert compared.returns.index.equals(other.returns.index)
    for name, result in (("first", saved[0]), ("later", other)):
        own = result.returns["maml"].loc[other.returns.index]
        np.testing.assert_allclose(compared.returns[name], own)
        ratio = sharpe_ratio(own, compared.bars_per_year)
        assert compared.stats.loc["Sharpe Ratio", name] == pytest.approx(ratio)
        assert compared.own_stats.loc["End", name] == result.stats.loc["End", "maml"]
    difference = compared.differences.set_index("figure").loc["Sharpe Ratio"]
    own, its = compared.stats.loc["Sharpe Ratio"]
    assert difference["value"] == pytest.approx(own - its)
    assert difference["low"] <= difference["value"] <= difference["high"]


def test_what_differs_is_told(compared):
    told = " ".join(compared.warnings)
    for text in (
        "Test spans differ",
        "assets differ",
        "A2, A3",
        "fees differ",
        "first 0.001; later 0",
    ):
        assert text in told
    assert {"data.test_assets", "data.test_start", "backtest.fee"} <= {*compared.settings.index}
    assert "training.steps" not in compared.settings.index
    assert compared.settings.loc["backtest.fee", "first"] == "0.001"


def test_equal_runs_have_no_warning_and_no_difference(saved):
    compared = compare({"one": saved[0], "two": saved[0]}, samples=20)
    assert compared.warnings == () and compared.settings.empty
    assert (compared.differences[["value", "low", "high"]] == 0).all(axis=None)
    assert "indistinguishable from chance" in verdict(compared)


def test_another_strategy_may_stand_for_runs(saved, later):
    compared = compare([saved[1], later], strategy="buy and hold", samples=20)
    np.testing.assert_allclose(
        compared.returns["later"], load(later).returns["buy and hold"].to_numpy()
    )
    with pytest.raises(ConfigError, match="run first: no strategy 'x'; there are"):
        compare([saved[1], later], strategy="x")


def test_runs_that_share_no_bar_are_shown_each_on_its_own(saved, tmp_path):
    shifted = saved[0].returns.set_axis(saved[0].returns.index + pd.Timedelta("1h"))
    far = saved[0].evaluation._replace(returns=shifted, gross=shifted)
    other = type(saved[0])(saved[0].config, saved[0].checkpoints, saved[0].history, (), far)
    compared = compare({"one": saved[0], "far": other})
    assert "share no bar" in compared.warnings[0]
    assert compared.differences.empty and len(compared.returns) == 2 * len(shifted)
    own = sharpe_ratio(saved[0].returns["maml"], compared.bars_per_year)
    assert compared.stats.loc["Sharpe Ratio", "one"] == pytest.approx(own)
    assert write_comparison(compared, tmp_path / "x.html").stat().st_size > 10_000


def test_the_page_holds_all_runs(compared, tmp_path):
    page = write_comparison(compared, tmp_path / "compared.html").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == ["Equity", "Figures", "Differences", "Settings that differ"]
    for text in (">first</th>", ">later</th>", "backtest.fee", "fees differ"):
        assert text in page
    assert "http" not in page
    with pytest.raises(RunError, match="cannot be written"):
        write_comparison(compared, tmp_path / "missing" / "x.html")


def test_one_run_or_the_same_twice_is_refused(saved):
    with pytest.raises(ConfigError, match="at least two runs"):
        compare([saved[1]])
    with pytest.raises(ConfigError, match="named twice"):
        compare([saved[1], saved[1]])
    with pytest.raises(RunError):
        compare([saved[1], saved[1] / "nowhere"])


def test_directories_of_one_name_are_told_apart(saved, tmp_path):
    import shutil

    for folder in ("a", "b"):
        shutil.copytree(saved[1], tmp_path / folder / "first")
    compared = compare([tmp_path / "a" / "first", tmp_path / "b" / "first"], samples=20)
    assert list(compared.returns) == ["a/first", "b/first"]
