"""Forecasts of risk know no later bar; one that does is caught and named."""

import numpy as np
import pytest
from risk_markets import make_market
from typer.testing import CliRunner

import maml_jax.risk.forecast as forecasting
import maml_jax.risk.histories as histories
from maml_jax.cli.main import app
from maml_jax.errors import ConfigError, DataError
from maml_jax.lookahead import check_risk

MARKET = make_market(assets=3, count=330, seed=2)
MARKET["A2"] = MARKET["A2"].iloc[240:]


def test_nothing_of_later_bars():
    report = check_risk(MARKET, cuts=2)
    assert report.clean, report.findings
    assert "of 3 assets at every bar up to" in report.checked[0]


def test_a_feature_that_looks_ahead_is_named(monkeypatch):
    honest = forecasting.own_columns

    def leaks(returns, xp=np):
        own = honest(returns, xp)
        own[..., :-1, 1] = own[..., 1:, 1]
        return own

    for module in (forecasting, histories):
        monkeypatch.setattr(module, "own_columns", leaks)
    report = check_risk(MARKET, cuts=1)
    first = report.findings.iloc[0]
    assert (first["what"], first["name"]) == ("feature", "young_volatility_5")
    assert first["bar"] == first["cut"] and "young_volatility_5" in report.verdict()
    assert {"volatility", "VaR 5 %", "ES 1 %", "weight"} <= {*report.findings["name"]}


def test_outcomes_that_are_not_complete_are_caught(monkeypatch):
    honest = forecasting.forecast_rows
    monkeypatch.setattr(
        forecasting,
        "forecast_rows",
        lambda members, rows, horizon, last=None: honest(members, rows, horizon - 2, last=last),
    )
    report = check_risk(MARKET, cuts=1)
    assert "volatility" in set(report.findings["name"])
    assert "feature" not in set(report.findings["what"])


def test_the_command_checks_bars(tmp_path):
    path = tmp_path / "bars.csv"
    MARKET["A0"].rename_axis("date").to_csv(path)
    result = CliRunner().invoke(app, ["check-lookahead", "--risk", str(path), "--cuts", "1"])
    assert result.exit_code == 0 and "No look-ahead found" in result.stdout
    for wrong in ([], [str(tmp_path), "--risk", str(path)]):
        with pytest.raises(ConfigError, match="not both"):
            CliRunner().invoke(app, ["check-lookahead", *wrong], catch_exceptions=False)
    with pytest.raises(DataError, match="3 bars"):
        check_risk({"A": MARKET["A0"].iloc[:3]})
