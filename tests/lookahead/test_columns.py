"""Features that look ahead, remember too long or know from elsewhere, each caught and named."""

import numpy as np
import pandas as pd
import pytest
from helpers import random_market

from maml_jax.features import add_cross_section, find_features, register_feature
from maml_jax.features import registry as own_features
from maml_jax.lookahead.beginnings import check_beginnings
from maml_jax.lookahead.columns import Quantity, check_columns, study_columns
from maml_jax.lookahead.findings import findings_table

DAILY = random_market(count=400, assets=1)
HOURLY = random_market(count=500, assets=1, step="h")
DATES = DAILY["A0"].index


def close(bars):
    return bars["close"]


def returns(bars):
    return bars["close"].pct_change().fillna(0.0)


def only(when, leak):
    """Look ahead on some dates alone."""

    def compute(bars):
        return returns(bars).where(~when(bars.index), leak(bars))

    return compute


def tomorrow(bars, days=1):
    return returns(bars).shift(-days).fillna(0.0)


def low_pass(bars):
    waves = np.fft.rfft(close(bars).to_numpy())
    waves[20:] = 0
    return np.fft.irfft(waves, len(bars)) / close(bars)


def last_month(bars):
    month = bars.index.tz_localize(None).to_period("M")
    closes = close(bars).groupby(month).last().shift(1)
    return closes.reindex(month).to_numpy()


LEAKS = {
    "the target": (lambda b: close(b).shift(-5) / close(b) - 1, 0),
    "a centred mean": (lambda b: close(b).rolling(11, center=True).mean() / close(b), 6),
    "a centred mean, filled": (
        lambda b: close(b).rolling(5, center=True, min_periods=1).mean() / close(b),
        4,
    ),
    "scaled by the whole series": (lambda b: returns(b) / returns(b).std(), 1),
    "ranked in the whole series": (lambda b: returns(b).rank(pct=True), 1),
    "filled backwards": (
        lambda b: close(b).where(np.arange(len(b)) % 7 == 0).bfill().ffill() / close(b),
        0,
    ),
    "smoothed backwards": (lambda b: close(b)[::-1].ewm(span=5).mean()[::-1] / close(b), 0),
    "between least and greatest": (lambda b: close(b) / close(b).max(), 0),
    "without its trend": (
        lambda b: close(b) / np.polyval(np.polyfit(range(len(b)), close(b), 1), range(len(b))),
        0,
    ),
    "without high frequencies": (low_pass, 0),
    "the week's close": (
        lambda b: (
            close(b) / close(b).groupby(b.index.tz_localize(None).to_period("W")).transform("last")
        ),
        0,
    ),
    "shuffled": (
        lambda b: pd.Series(
            np.random.default_rng(0).permutation(returns(b).to_numpy()), index=b.index
        ),
        1,
    ),
    "a ten-thousandth of a deviation": (
        lambda b: returns(b) + 1e-6 * np.sign(tomorrow(b)),
        1,
    ),
    "on one date": (only(lambda index: index == DATES[323], tomorrow), 1),
    "after a date": (only(lambda index: index >= DATES[310], tomorrow), 1),
    "at beginnings of months": (only(lambda i: i.is_month_start, lambda b: tomorrow(b, 2)), 1),
    "sixty bars ahead": (lambda b: returns(b) + 0.1 * tomorrow(b, 60), 1),
    "a date that may not be there": (lambda b: close(b) / close(b).loc[DATES[-20]], 0),
}
HONEST = {
    "momentum": (lambda b: close(b).pct_change(10), 10),
    "a mean of pandas": (lambda b: returns(b).rolling(20).mean(), 21),
    "a deviation of pandas": (lambda b: returns(b).rolling(20).std(), 21),
    "a constant": (lambda b: np.ones(len(b)), 0),
    "the day of the week": (lambda b: b.index.day_of_week.to_numpy() / 7, 0),
    "the last month's close": (lambda b: close(b) / last_month(b), 62),
}
RECURSIVE = {
    "an average of all of the past": (lambda b: close(b) / close(b).ewm(span=20).mean(), 20),
    "since the first bar": (lambda b: close(b) / close(b).iloc[0], 0),
    "an expanding mean": (lambda b: close(b) / close(b).expanding().mean(), 1),
    "the number of bars": (lambda b: np.arange(len(b)) * 1.0, 0),
}


@pytest.fixture
def mine(monkeypatch):
    """Register a feature for one test."""
    monkeypatch.setattr(own_features, "_registered", {})

    def register(compute, warm_up, columns=("close",)):
        options = {"warm_up": warm_up, "columns": columns}
        return Quantity("feature", register_feature("mine", compute, **options))

    return register


def looks_ahead(quantities, frames, market=dict):
    study = study_columns(quantities, frames, market)
    return findings_table(check_columns(study, cuts=6, horizon=5, seed=0)[0])


@pytest.mark.parametrize(("compute", "warm_up"), LEAKS.values(), ids=LEAKS)
def test_a_feature_that_looks_ahead_is_named(mine, compute, warm_up):
    table = looks_ahead([mine(compute, warm_up)], DAILY)
    assert list(table["name"]) == ["mine"]
    assert table["cut"].notna().all() and table["size"].item() > 1e-5
    assert (table["bar"] <= table["cut"]).all()


@pytest.mark.parametrize(("compute", "warm_up"), HONEST.values(), ids=HONEST)
def test_an_honest_feature_passes(mine, compute, warm_up):
    study = study_columns([mine(compute, warm_up)], DAILY, dict)
    assert check_columns(study, cuts=6, horizon=5, seed=0)[0] == []
    findings, effect = check_beginnings(study)
    assert findings == []
    assert (effect.iloc[:, 1:] < 1e-6).all(axis=None)


@pytest.mark.parametrize(("compute", "warm_up"), RECURSIVE.values(), ids=RECURSIVE)
def test_a_feature_that_remembers_its_beginning_is_named(mine, compute, warm_up):
    study = study_columns([mine(compute, warm_up)], DAILY, dict)
    assert check_columns(study, cuts=6, horizon=5, seed=0)[0] == []  # the past is no future
    findings, effect = check_beginnings(study)
    assert {each.name for each in findings} == {"mine"}
    assert "depends on where its bars begin" in findings[0].how
    assert effect.loc["mine", "warm-up"] > 1


def test_the_effect_of_the_beginning_fades_as_the_average_forgets(mine):
    """A share of (1 - 2 / (span + 1))^n of the first price is left after n bars."""
    study = study_columns([mine(*RECURSIVE["an average of all of the past"])], DAILY, dict)
    effect = check_beginnings(study)[1].loc["mine"]
    forgotten = effect["warm-up"] / effect["4 x warm-up"]
    assert 0.2 < forgotten / (19 / 21) ** -60 < 5


def test_the_close_of_the_day_on_hourly_bars_is_named(mine):
    def compute(bars):
        daily = close(bars).resample("D").last()
        return close(bars) / daily.reindex(bars.index.floor("D")).to_numpy()

    table = looks_ahead([mine(compute, 0)], HOURLY)
    assert list(table["name"]) == ["mine"]

    def of_the_day_before(bars):
        daily = close(bars).resample("D").last().shift(1)
        return close(bars) / daily.reindex(bars.index.floor("D")).to_numpy()

    assert looks_ahead([mine(of_the_day_before, 47)], HOURLY).empty


def test_the_shape_of_the_next_bar_is_named(mine):
    feature = mine(lambda b: (b["high"] / close(b)).shift(-1).fillna(1.0), 0, ("high", "close"))
    assert list(looks_ahead([feature], DAILY)["name"]) == ["mine"]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_a_feature_that_reads_tables_of_its_own_is_named(mine, share):
    known = tomorrow(DAILY["A0"])

    def compute(bars):
        return share * known.reindex(bars.index).fillna(0.0) + (1 - share) * returns(bars)

    table = looks_ahead([mine(compute, 1)], DAILY)
    assert "agrees with what the next 1 bars brought" in table["how"].item()
    assert table["unit"].item() == "correlation"


def test_a_market_column_that_looks_ahead_is_named():
    market = random_market(count=120, assets=3)
    features = find_features(["return_rank", "market_return"])
    quantities = [Quantity("feature", each) for each in features]
    assert looks_ahead(quantities, market, add_cross_section).empty

    def by_tomorrow(frames):
        moves = pd.DataFrame({a: b["close"].pct_change().shift(-1) for a, b in frames.items()})
        ranks = moves.rank(axis="columns").fillna(0.0)
        seen = add_cross_section(frames)
        return {a: b.assign(return_rank=ranks[a].reindex(b.index)) for a, b in seen.items()}

    table = looks_ahead(quantities, market, by_tomorrow)
    assert list(table["name"]) == ["return_rank"]
    assert table["assets"].item() == 3


@pytest.mark.slow
def test_gaps_and_masked_bars_are_no_reason_for_findings():
    rng = np.random.default_rng(3)
    market = random_market(count=300, assets=3)
    ragged = {
        "A0": market["A0"].iloc[40:],
        "A1": market["A1"][rng.random(300) > 0.2],
        "A2": market["A2"].copy(),
    }
    ragged["A2"].iloc[120:125] = np.nan
    names = ["technical", "ohlc", "volume", "calendar", "cross_section", "market_volatility"]
    features = find_features(names, window=10, slow=8, fast=4)
    quantities = [Quantity("feature", each) for each in features]
    study = study_columns(quantities, ragged, add_cross_section)
    assert check_columns(study, cuts=2, horizon=5, seed=1)[0] == []
    assert check_beginnings(study)[0] == []
