"""Today's risk as a trader sees it: from two bars, in per cent, or one clear sentence."""

import json

import numpy as np
import pandas as pd
import pytest
from risk_markets import make_market
from typer.testing import CliRunner

import maml_jax
from maml_jax.cli.main import app
from maml_jax.errors import ConfigError, DataError


def two_bars(first=100.0, second=102.0, days=1):
    times = pd.to_datetime(["2024-05-03", "2024-05-03"], utc=True) + pd.to_timedelta([0, days], "D")
    return pd.DataFrame({"close": [first, second]}, times)


@pytest.mark.parametrize("days", [1, 3])
def test_two_daily_bars_are_enough(days):
    table = maml_jax.risk(two_bars(days=days))
    row = table.iloc[0]
    assert row["age"] == 2 and row["model"] == "stocks-daily"
    assert 5 < row["volatility_low"] < row["volatility"] < row["volatility_high"] < 400
    assert 0 < row["var_5"] < row["es_5"] < row["es_1"] and row["var_5"] < row["var_1"] < 100
    assert row["weight"] == pytest.approx(15 / row["volatility"])
    per_year = 365 if days == 1 else 252  # the second bar is a Saturday, or a Monday
    np.testing.assert_allclose(row["volatility_horizon"], row["volatility"] * np.sqrt(5 / per_year))


def test_forty_assets_of_all_ages_hourly():
    frames = make_market(assets=40, count=300, freq="h")
    frames = {name: frame.iloc[-(2 + 7 * i) :] for i, (name, frame) in enumerate(frames.items())}
    table = maml_jax.risk(frames, horizon=24, capital=1000.0)
    assert (table["model"] == "crypto-hourly").all() and len(table) == 40
    assert list(table["age"]) == [2 + 7 * i for i in range(40)]
    assert np.isfinite(table.drop(columns=["model", "as_of"]).to_numpy(float)).all()
    np.testing.assert_allclose(table["position"], 1000 * table["weight"])


def test_a_wilder_asset_is_given_more_risk_and_less_weight():
    frames = make_market(assets=2, count=200, seed=4)
    calm, wild = frames["A0"], frames["A0"]["close"].pow(3).to_frame()
    table = maml_jax.risk({"calm": calm, "wild": wild / wild.iloc[0]})
    assert 1.7 < table.loc["wild", "volatility"] / table.loc["calm", "volatility"] < 4
    assert table.loc["wild", "weight"] < table.loc["calm", "weight"]


def test_the_other_side_looks_at_the_other_tail():
    frames = make_market(assets=1, count=200)
    long, short = (maml_jax.risk(frames, side=side).iloc[0] for side in ("long", "short"))
    assert long["volatility"] == short["volatility"] and long["var_5"] != short["var_5"]


def test_what_cannot_be_known_is_refused_in_one_line():
    with pytest.raises(DataError, match="never moved in 2 bars"):
        maml_jax.risk(two_bars(100, 100))
    weekly = make_market(assets=1, count=60, freq="7D")
    with pytest.raises(ConfigError, match="bars of 7 days.*1 day.*resample"):
        maml_jax.risk(weekly)
    with pytest.raises(ConfigError, match="know 1 to 22 bars"):
        maml_jax.risk(two_bars(), horizon=300)
    with pytest.raises(ConfigError, match="for 15 % write 0.15"):
        maml_jax.risk(two_bars(), target_volatility=15)
    with pytest.raises(DataError, match="1 bar with a close, and at least 2"):
        maml_jax.risk(two_bars().iloc[:1])
    with pytest.raises(ConfigError, match="0.05 is 5 %"):
        maml_jax.risk(two_bars(), levels=(5,))
    table = maml_jax.risk({"flat": two_bars(100, 100), "moves": two_bars()})
    assert list(table.index) == ["moves"] and "flat" in table.detail.notes[0]


def ask(*arguments):
    result = CliRunner().invoke(app, ["risk", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_the_command_answers_in_every_form(tmp_path):
    path = tmp_path / "bars.csv"
    make_market(assets=1, count=40)["A0"].rename_axis("date").to_csv(path)
    page = tmp_path / "page.html"
    text = ask(path, "--html", page)
    assert "volatility, % a year" in text and "stocks-daily" in text
    assert "data:image" in page.read_text()
    [row] = json.loads(ask(path, "--format", "json"))
    assert row["age"] == 40 and row["volatility"] > 0
    assert "var_2.5" in ask(path, "--format", "csv", "--level", "0.025")


def test_a_table_draws_itself_and_shows_itself():
    table = maml_jax.risk(make_market(assets=2, count=60))
    assert "volatility" in table._repr_html_()
    figure = table.plot("A1")
    assert len(figure.axes) == 2
    with pytest.raises(ConfigError, match="A0, A1"):
        table.plot("no")


def test_missing_bars_are_said_and_weekends_are_none():
    whole = make_market(assets=1, count=60)["A0"]
    assert not maml_jax.risk(whole).detail.notes[1:]  # the first is of weekends
    holes = whole.drop(whole.index[[20, 21, 40]])
    [_, note] = maml_jax.risk(holes).detail.notes
    assert "2 in total, the longest of 2 bars from 2010-01-21" in note
    weekdays = whole[whole.index.day_of_week < 5]
    assert maml_jax.risk(weekdays).detail.notes == ()


def test_every_column_of_the_text_is_explained(tmp_path):
    frames = [f.assign(symbol=n) for n, f in make_market(assets=3, count=40).items()]
    path = tmp_path / "bars.csv"
    pd.concat(frames).rename_axis("date").to_csv(path)
    text = ask(path, "--level", "0.02", "--capital", "1000", "--horizon", "7")
    assert "Risk over the next 7 days" in text
    header = next(line for line in text.splitlines() if "vol22" in line)
    legend = text[text.index("vol: volatility") :]
    for name in ("vol", "9 in 10", "VaR2", "ES2", "weight", "position", "stop", "vol22"):
        assert name in header and f"{name}:" in legend
    assert "passed 1 time in 50" in legend and "1 time in 20 in 7 days" in legend
