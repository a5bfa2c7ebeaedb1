"""Weights: trained, written, read again to the byte; damage is refused."""

import numpy as np
import pandas as pd
import pytest
from risk_markets import SMALL, make_market, small_model

from maml_jax.errors import ConfigError, RunError
from maml_jax.risk import training
from maml_jax.risk.forecast import forecast_volatility
from maml_jax.risk.histories import make_histories
from maml_jax.risk.model import CARD, WEIGHTS, load_model, pretrained_names, save_model
from maml_jax.risk.training import train_risk

DAY = pd.Timedelta("1D")


@pytest.mark.slow
def test_the_same_histories_and_seed_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        model = train_risk(
            make_histories(make_market()),
            name="small",
            interval=DAY,
            assets=[0, 1, 2],
            last=[699] * 3,
            settings=SMALL._replace(folds=3),
        )
        save_model(model, tmp_path / name)
    for file in (CARD, WEIGHTS):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    histories = make_histories(make_market(seed=1, count=300))
    [before], [after] = (
        forecast_volatility(each, histories, horizon=5, assets=[2])
        for each in (model, load_model(tmp_path / "a"))
    )
    np.testing.assert_allclose(after.mean, before.mean, rtol=1e-5)


def test_what_is_left_over_of_an_asset_is_measured_without_it(monkeypatch):
    measured = []

    def fit(model, seen, *_):
        return model._replace(card={"assets": seen.assets})

    def left_over(model, seen, place, horizon):
        measured.append((horizon, seen.assets[place]))
        assert seen.assets[place] not in model.card["assets"]
        return (np.ones(1),) * 5

    monkeypatch.setattr(training, "_fit_members", fit)
    monkeypatch.setattr(training, "_left_over", left_over)
    monkeypatch.setattr(training, "measure_residuals", lambda *_, horizon: horizon)
    assets = [5, 0, 3, 1]
    settings = SMALL._replace(folds=3)
    histories = make_histories(make_market(count=5))
    training.train_risk(
        histories, name="", interval=DAY, assets=assets, last=[4] * 4, settings=settings
    )
    assert sorted(measured) == sorted((h, asset) for h in SMALL.horizons for asset in assets)


@pytest.mark.long
def test_damage_is_refused(tmp_path):
    save_model(small_model(), tmp_path / "w")
    content = bytearray((tmp_path / "w" / WEIGHTS).read_bytes())
    content[-7] ^= 4
    (tmp_path / "w" / WEIGHTS).write_bytes(bytes(content))
    with pytest.raises(RunError, match="damaged"):
        load_model(tmp_path / "w")
    (tmp_path / "w" / CARD).write_text("{}")
    with pytest.raises(RunError, match="no model of risk"):
        load_model(tmp_path / "w")
    with pytest.raises(ConfigError, match="stocks-daily"):
        load_model("no-such-weights")


def test_weights_ship_for_days_and_hours_and_are_small():
    names = pretrained_names()
    assert names == ["crypto-hourly", "stocks-daily"]
    models = [load_model(name) for name in names]
    assert [model.interval for model in models] == [pd.Timedelta("1h"), pd.Timedelta("1D")]
    sizes = [len(array.tobytes()) for m in models for each in m.members for array in each.values()]
    assert sum(sizes) < 1_000_000
