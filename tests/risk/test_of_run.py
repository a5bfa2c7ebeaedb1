"""Risk by a run's own learner: the numbers of its forecasts, or one line that says why not."""

import numpy as np
import pandas as pd
import pytest
from market import MARKET, SMALL

import maml_jax
from maml_jax.errors import ConfigError, DataError
from maml_jax.experiment import load, run, train

pytestmark = pytest.mark.long

NEW = MARKET["A1"].iloc[:150]


def settings_of(path, **target):
    return {
        **SMALL,
        "data": {**SMALL["data"], "path": str(path)},
        "features": {"names": ["log_volatility_5"]},
        "target": {**SMALL["target"], **target},
        "task": {"support": 10, "query": 5},
        "learner": {"methods": ["alpaca"]},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs that predict a volatility and a return, and bars that they were made of."""
    folder = tmp_path_factory.mktemp("of_run")
    frames = [frame.assign(symbol=name) for name, frame in MARKET.items()]
    pd.concat(frames).rename_axis("time").reset_index().to_csv(folder / "bars.csv", index=False)
    volatility = settings_of(folder / "bars.csv", kind="volatility")
    run(volatility, out=folder / "run")
    train(volatility, out=folder / "trained")
    train(settings_of(folder / "bars.csv"), out=folder / "return")
    return folder


def test_a_table_is_what_the_run_forecasts_and_left_over(folder):
    table = maml_jax.risk({"new": NEW, "short": NEW.iloc[:10]}, model=folder / "run")
    assert list(table.index) == ["new"] and "short" in table.detail.notes[-1]
    result, row = load(folder / "run"), table.loc["new"]
    predicted = result.adapt({"new": NEW}).predict({"new": NEW})
    mean = predicted["mean"].iloc[-1]
    own = result.predictions
    own = own[own["strategy"] == "alpaca"].set_index(["asset", "timestamp"])["prediction"]
    error, z = [], []
    for asset, each in own.groupby(level="asset"):
        r = np.log(MARKET[asset]["close"]).diff()
        ahead = (0.5 * np.log((r**2).rolling(3).mean())).shift(-3)
        total = r.rolling(3).sum().shift(-3)
        each = each.droplevel("asset")
        error.append(ahead.reindex(each.index) - each)
        z.append(total.reindex(each.index) / (np.sqrt(3) * np.exp(each)))
    error, z = (pd.concat(each).dropna() for each in (error, z))
    assert f"{len(z)} forecasts" in table.detail.notes[0]
    quantile = np.quantile(np.concatenate([z, -z]), 0.05)  # both sides are taken together
    expected = -100 * np.expm1(np.sqrt(3) * np.exp(mean) * quantile)
    np.testing.assert_allclose(row["var_5"], expected, rtol=1e-4)
    shift = 0.5 * np.log(np.exp(2 * error).mean())
    np.testing.assert_allclose(
        row["volatility_horizon"], 100 * np.sqrt(3) * np.exp(mean + shift), rtol=0.01
    )
    page = table.to_page(folder / "page.html").read_text()
    assert "alpaca of run" in page


def test_what_a_run_cannot_say_is_refused_in_one_line(folder):
    with pytest.raises(ConfigError, match="predicts a return; risk needs.*leave --model out"):
        maml_jax.risk(NEW, model=folder / "return")
    with pytest.raises(ConfigError, match="not tested.*maml-jax backtest"):
        maml_jax.risk(NEW, model=folder / "trained")
    with pytest.raises(ConfigError, match="horizon 5: this run forecasts the next 3 bars"):
        maml_jax.risk(NEW, model=folder / "run", horizon=5)
    with pytest.raises(DataError, match="at least [0-9]+ bars"):
        maml_jax.risk(NEW.iloc[:8], model=folder / "run")
    hourly = NEW.set_axis(pd.date_range("2024-01-01", periods=len(NEW), freq="h", tz="UTC"))
    with pytest.raises(DataError, match="day"):
        maml_jax.risk(hourly, model=folder / "run")
    (folder / "bars.csv").rename(folder / "moved.csv")
    with pytest.raises(ConfigError, match="the bars that it was tested on.*bars.csv"):
        maml_jax.risk(NEW, model=folder / "run")
