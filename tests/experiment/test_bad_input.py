"""Bad input and interrupted work: one clear error, nothing half-written."""

import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars
from market import MARKET, SMALL

from maml_jax.errors import ConfigError, DataError, MamlJaxError, RunError, TrainingError
from maml_jax.experiment import backtest, load, run, train

pytestmark = pytest.mark.long

# Three bars ahead, so that even two bars ago it knows the next one.
PEEKING = """
from maml_jax.features import register_feature
register_feature("peek", lambda bars: bars["close"].shift(-3) / bars["close"] - 1, warm_up=0)
"""


def in_year(bars, year):
    start = f"{year:04d}-01-01"
    return bars.set_axis(pd.date_range(start, periods=len(bars), unit="us", tz="UTC"))


BAD = {
    "too few bars": (
        {"data": {"train_end": "2020-01-20", "test_start": "2020-02-01"}},
        MARKET,
        DataError,
        r"A0: meta-training needs at least 36 bars up to 2020-01-20.*\(warm-up 14 \+ support 10 \+ "
        r"gap 3 \+ query 5 \+ label delay 4\), and there are 20",
    ),
    "constant price": (
        {},
        MARKET | {"A1": MARKET["A1"].assign(close=3.0)},
        DataError,
        r"A1: the close is 3 at every one",
    ),
    "different intervals": (
        {},
        MARKET | {"A1": random_bars(count=5000, step="h")},
        DataError,
        r"different bar intervals: A1 .* A0",
    ),
    "overlapping spans": (
        {"data": {"test_start": "2020-06-01"}},
        MARKET,
        ConfigError,
        r"'data.train_end' and 'data.test_start'.*overlaps",
    ),
    "no opens": (
        {"target": {"fill": "next_open"}},
        {a: b[["close"]] for a, b in MARKET.items()},
        DataError,
        r"A0: fill 'next_open' needs column 'open'",
    ),
    "unknown asset": (
        {"data": {"test_assets": ["ZZ"]}},
        MARKET,
        ConfigError,
        r"'data.test_assets': no bars of \['ZZ'\]",
    ),
    "a feature that the bars do not allow": (
        {"features": {"names": ["volume_ratio"]}},
        {a: b[["close"]] for a, b in MARKET.items()},
        DataError,
        r"needs column 'volume'",
    ),
    "a test span after the last bar": (
        {"data": {"test_start": "2031-01-01"}},
        MARKET,
        ConfigError,
        r"'data.test_start': 2031-01-01 is after the last bar",
    ),
    "a training span before the first bar": (
        {"data": {"train_end": "1999-01-01"}},
        MARKET,
        ConfigError,
        r"'data.train_end': 1999-01-01 is before the first bar",
    ),
    "a price that rests throughout training": (
        {},
        MARKET | {"A1": MARKET["A1"].assign(close=np.r_[np.full(200, 9.0), np.arange(60) + 9.0])},
        DataError,
        r"A1: only 0 of its 160 bars .* its closes run from 9 to 9",
    ),
    "a price out of all measure": (
        {},
        MARKET | {"A1": MARKET["A1"].assign(close=np.r_[1e300, MARKET["A1"]["close"].iloc[1:]])},
        DataError,
        r"A1: only \d+ of its 160 bars .* to 1e\+300",
    ),
    "a feature of the user's own that looks ahead": (
        {"features": {"modules": ["peeking.py"], "names": ["rsi", "peek_lag_2"]}},
        MARKET,
        DataError,
        r"A\d: feature 'peek_lag_2' looks ahead: its value at 2020-",
    ),
    "a comparison of one asset alone": (
        {
            "features": {"names": ["rsi", "beta"]},
            "data": {"train_assets": ["A1"], "test_assets": ["A1"]},
        },
        MARKET,
        ConfigError,
        r"'features.names': \['beta'\] compare several assets, and there is only A1",
    ),
    "a policy that there is not": (
        {"data": {"policies": "remove"}},
        MARKET,
        ConfigError,
        r"key 'data.policies': policy 'remove' of bad_tick: expected one of",
    ),
    "a policy for what nobody may touch": (
        {"data": {"policies": {"jump": "drop"}}},
        MARKET,
        ConfigError,
        r"key 'data.policies': 'jump' cannot have a policy",
    ),
    "a zone that there is not": (
        {"data": {"timezone": "Mars/Crater"}},
        MARKET,
        ConfigError,
        r"key 'data.timezone': 'Mars/Crater' is not a time zone",
    ),
    "bars in the year 1": (
        {},
        {name: in_year(bars, 1) for name, bars in MARKET.items()},
        DataError,
        r"bars\['A0'\].*not within the years 1900 to 2100: .*0001-01-01",
    ),
    "bars at the end of days": (
        {},
        {name: in_year(bars, 9990) for name, bars in MARKET.items()},
        DataError,
        r"bars\['A0'\].*not within the years 1900 to 2100: .*9990-01-01",
    ),
    "no assets": ({"data": {"assets": []}}, MARKET, ConfigError, r"'data.assets': must name"),
    "a loss that is not finite": (
        {"learner": {"inner_learning_rate": 1e30}},
        MARKET,
        TrainingError,
        r"maml: meta-training stopped at step 0: the loss of task 0.*Try a smaller inner learning "
        r"rate.*\[task: A\d 2020-.* to 2020-",
    ),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_clear_error_and_leaves_nothing_behind(tmp_path, fault, monkeypatch):
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path / "code")
    (tmp_path / "code" / "peeking.py").write_text(PEEKING)
    changes, bars, kind, message = BAD[fault]
    settings = {k: {**v, **changes.get(k, {})} for k, v in SMALL.items()}
    with pytest.raises(kind, match=message) as caught:
        run(settings, bars=bars, out=tmp_path / "out")
    assert isinstance(caught.value, MamlJaxError)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "code"]


def test_an_output_directory_that_exists_is_refused_before_any_work(tmp_path):
    with pytest.raises(RunError, match="exists already"):
        run(SMALL, bars=MARKET, out=tmp_path)


@pytest.mark.slow
@pytest.mark.long
def test_a_failure_while_writing_leaves_nothing_behind(saved, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fail)
    with pytest.raises(RunError, match="No space left"):
        saved[0].save(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_directory_is_named(tmp_path, saved):
    with pytest.raises(RunError, match="no run directory"):
        load(tmp_path)
    (tmp_path / "checkpoints" / "maml").mkdir(parents=True)
    with pytest.raises(RunError, match="holds no checkpoint"):
        load(tmp_path)
    (tmp_path / "checkpoints" / "maml" / "about.json").write_text("{")
    with pytest.raises(RunError, match="not a readable checkpoint"):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["metrics.json", "returns.parquet", "config.toml", "params"])
def test_a_damaged_run_directory_is_named(saved, tmp_path, damage):
    copy = shutil.copytree(saved[1], tmp_path / "copy")
    if damage == "params":
        for file in (copy / "checkpoints" / "maml" / "params").rglob("*"):
            if file.is_file():
                file.write_bytes(file.read_bytes()[:10])
    else:
        (copy / damage).write_text("{}" if damage.endswith("json") else "= junk")
    with pytest.raises(MamlJaxError, match=str(tmp_path)):
        load(copy)


def test_a_backtest_that_was_cut_off_can_be_repeated(tmp_path, no_page):
    train(SMALL, bars=MARKET, out=tmp_path / "run")
    (tmp_path / "run" / ".backtest").mkdir()
    (tmp_path / "run" / ".backtest" / "junk").write_text("x")
    backtest(tmp_path / "run", bars=MARKET)
    assert load(tmp_path / "run").evaluation is not None


@pytest.mark.long
def test_nothing_is_left_of_a_report_that_could_not_be_written(saved, tmp_path):
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        saved[0].report(tmp_path / "folder.html")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.html"]
