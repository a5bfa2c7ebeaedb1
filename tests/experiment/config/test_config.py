from datetime import date

import pytest

from maml_jax.errors import ConfigError
from maml_jax.experiment import Config, load_config
from maml_jax.experiment.config.loading import parse_override


def test_the_built_in_example_is_the_default():
    config = load_config()
    assert config.data.test_assets == ("SP500", "NASDAQ", "WTI")
    assert config.data.train_end == "2009-12-31"


def test_written_settings_read_back_the_same(tmp_path):
    config = load_config(None, {"training.steps": 7, "features.names": ["rsi", "macd"]})
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert load_config(path) == config


def test_a_bound_that_is_off_stays_off(tmp_path):
    for off in (None, "none"):
        config = load_config({"target.clip": off, "training.max_grad_norm": off})
        assert config.target.clip is None
        assert load_config(config) == config
        (tmp_path / "config.toml").write_text(config.to_toml())
        assert load_config(tmp_path / "config.toml") == config


def test_other_bars_leave_the_built_in_example_behind():
    config = load_config(None, {"data.path": "prices.csv"})
    assert config.data.train_assets is None
    assert config.data.train_end is None


def test_overrides_may_be_dotted_or_nested():
    nested = load_config({}, {"training": {"steps": 5}, "seed": 3})
    dotted = load_config({}, {"training.steps": 5, "seed": 3})
    assert nested == dotted
    assert (nested.training.steps, nested.seed) == (5, 3)


@pytest.mark.parametrize("value", ["2009-12-31", date(2009, 12, 31)])
def test_dates_may_be_text_or_toml(value):
    assert load_config({"data.train_end": value}).data.train_end == "2009-12-31"


FAULTS = {
    "unknown section": ({"trainning.steps": 5}, r"unknown key 'trainning'; there are .*'training'"),
    "unknown key": ({"training.step": 5}, r"unknown key 'training.step'; there are .*'steps'"),
    "wrong type": ({"training.steps": "many"}, r"key 'training.steps': .*integer.*'many'"),
    "fraction of a step": ({"training.steps": 1.5}, r"key 'training.steps'"),
    "too small": ({"task.support": 0}, r"key 'task.support': .*greater than or equal to 1.*got 0"),
    "negative cost": ({"backtest.fee": -0.1}, r"key 'backtest.fee'"),
    "not finite": ({"learner.inner_learning_rate": float("inf")}, r"inner_learning_rate.*finite"),
    "unknown choice": ({"target.fill": "next_week"}, r"key 'target.fill'.*'next_open'"),
    "unknown method": ({"learner.methods": ["mamml"]}, r"key 'learner.methods.0'"),
    "renamed method": (
        {"learner.methods": ["maml", "prototypes"]},
        r"'learner.methods': .*\"prototypes\" was renamed \"prototypical_networks\"",
    ),
    "method twice": ({"learner.methods": ["maml", "maml"]}, r"none twice"),
    "unknown feature": ({"features.names": ["rsi", "zzz"]}, r"unknown features \['zzz'\]"),
    "no features": ({"features.names": []}, r"at least one feature"),
    "spans reversed": ({"features.fast": 30}, r"key 'features': fast \(30\) must be shorter"),
    "seed out of range": ({"seed": 2**40}, r"key 'seed'"),
    "cost in per cent": ({"backtest.fee": 2}, r"key 'backtest.fee': .*less than 1"),
    "truth as number": ({"training.steps": True}, r"key 'training.steps'"),
    "text as number": ({"training.steps": "20"}, r"key 'training.steps'"),
    "date in another form": ({"data.test_start": "05/06/2019"}, r"not a date such as 2009-12-31"),
    "no moment": ({"data.train_end": "NaT"}, r"key 'data.train_end'"),
    "text for a list": ({"learner.methods": "maml"}, r"valid list"),
    "no date": ({"data.train_end": "yesterdayish"}, r"key 'data.train_end'.*not a date"),
    "section as value": ({"training": 5}, r"key 'training'"),
    "stop beyond the price": ({"backtest.stop_loss": 1.0}, r"'backtest.stop_loss': .*less than 1"),
    "trailing beyond": ({"backtest.trailing_stop": 2.0}, r"'backtest.trailing_stop': .*less than"),
    "no gross": ({"backtest.max_gross": 0}, r"'backtest.max_gross': .*greater than 0"),
    "bound in words": ({"backtest.max_turnover": "off"}, r"'backtest.max_turnover': .*number"),
    "unknown sides": ({"backtest.sides": "short"}, r"'backtest.sides': .*'market_neutral'"),
    "unknown baseline": ({"backtest.baselines": ["rigde"]}, r"'backtest.baselines.0': .*'ridge'"),
    "baseline twice": ({"backtest.baselines": ["ridge", "ridge"]}, r"without repeats"),
    "levels in no order": (
        {"backtest.threshold": 0.2, "backtest.strong_threshold": 0.2},
        r"strong_threshold \(0.2\) must exceed threshold \(0.2\)",
    ),
    "misspelled key": ({"backtest.slipage": 0}, r"Did you mean `slippage`\?"),
    "misspelled section": ({"bactest.fee": 0}, r"unknown key 'bactest'.*Did you mean `backtest`\?"),
    "key of another section": ({"training.fee": 0}, r"Did you mean `backtest\.fee`\?"),
    "key without its section": ({"fee": 0}, r"unknown key 'fee'.*Did you mean `backtest\.fee`\?"),
    "misspelled choice": ({"learner.methods": ["reptil"]}, r"Did you mean `reptile`\?"),
    "misspelled family": ({"task.family": {"asets": 1}}, r"Did you mean `asset`\?"),
    "misspelled policy": ({"data.policies": {"bad_tik": "drop"}}, r"Did you mean `bad_tick`\?"),
    "misspelled feature": ({"features.names": ["rsi", "macdd"]}, r"Did you mean `macd`\?"),
    "misspelled rule": ({"task.strategies": ["momentm"]}, r"Did you mean `momentum`\?"),
    "one name for a list": ({"data.assets": "A"}, r"for a single one write \[\"A\"\] \(got 'A'\)"),
    "one number for a list": ({"model.hidden": 64}, r"write \[64\]"),
    "rate in per cent": ({"backtest.fee": 5}, r"'backtest.fee': .*a share: 0\.05 is 5 %"),
    "part in per cent": ({"backtest.kelly_fraction": 50}, r"a share: 0\.5 is 50 %"),
    "volatility in per cent": ({"backtest.target_volatility": 15}, r"a share: 0\.15 is 15 %"),
    "a section that is none": ({"training": 5}, r"'training': .*section of settings"),
    "endless steps": ({"training.steps": 10**22}, r"'training.steps': .*equal to 10000000 \(got 1"),
    "a layer out of all measure": (
        {"model.hidden": [10**12]},
        r"'model.hidden.0': .*equal to 16384",
    ),
    "layers out of all measure": ({"model.hidden": [16_000] * 3}, r"at most 100,000,000 fit into"),
    "endless samples": ({"backtest.samples": 10**9}, r"'backtest.samples': .*equal to 1000000"),
    "an endless window": ({"features.window": 10**9}, r"'features.window': .*equal to 1000000"),
    "an endless batch": ({"training.meta_batch": 10**7}, r"'training.meta_batch': .*equal to"),
    "a batch that no memory holds": (
        {"training.meta_batch": 10**6, "task.support": 10**6},
        r"key 'training.meta_batch': a meta-step would read 1,000,010,000,000 bars.*100,000,000",
    ),
    "many folds": (
        {"folds": {"kind": "combinatorial", "groups": 20, "test_groups": 10}},
        r"make 184,756 folds.* at most 1,000",
    ),
    "an endless lag": ({"features.names": ["rsi_lag_99999999"]}, r"at most 1,000,000 bars"),
    "the end of days": ({"data.test_end": "9999-12-31"}, r"'data.test_end': .*1678 and 2261"),
    "the first day": ({"data.train_start": date(1, 1, 1)}, r"'data.train_start': .*1678 and 2261"),
    "few samples": ({"backtest.samples": 5}, r"'backtest.samples': .*20"),
}


def test_bounds_of_the_backtest_can_be_switched_off_and_stay_off(tmp_path):
    assert load_config({}).backtest.max_gross == 1.0
    off = {"backtest.max_gross": "none", "backtest.stop_loss": "none", "backtest.max_weight": 0.1}
    config = load_config({}, off)
    assert (config.backtest.max_gross, config.backtest.stop_loss) == (None, None)
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "config.toml") == config


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_names_its_key(fault):
    values, message = FAULTS[fault]
    with pytest.raises(ConfigError, match=message):
        load_config(values)


def test_several_faults_are_told_at_once():
    with pytest.raises(ConfigError, match=r"training.steps.*backtest.fee"):
        load_config({"training.steps": 0, "backtest.fee": -1})


def test_overrides_are_blamed_for_what_they_do_and_files_for_the_rest(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[backtest]\nfee = 0.1\n")
    for source, change in ((None, "backtest.fe"), (path, "backtest.fe"), (path, "fee")):
        with pytest.raises(ConfigError, match=rf"^unknown key '{change}'.*Did you mean `.*fee`"):
            load_config(source, {change: 0.0})
    path.write_text("[backtest]\nfe = 0.1\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: unknown key 'backtest\.fe'"):
        load_config(path, {"training.steps": 5})


def test_files_that_are_missing_or_no_toml_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: no such config file"):
        load_config(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(ConfigError, match=r"bad\.toml: cannot be read as TOML.*line 1"):
        load_config(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"bad\.toml: cannot be read"):
        load_config(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training.steps=5", ("training.steps", 5)),
        ("data.path=a b.csv", ("data.path", "a b.csv")),
        ('data.path="a.csv"', ("data.path", "a.csv")),
        ("learner.methods=['maml']", ("learner.methods", ["maml"])),
        ("data.train_end=2009-12-31", ("data.train_end", date(2009, 12, 31))),
        ("backtest.fee = 1e-3", ("backtest.fee", 1e-3)),
    ],
)
def test_overrides_of_the_command_line(text, expected):
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["training.steps", "=5", ""])
def test_overrides_without_key_or_value_are_refused(text):
    with pytest.raises(ConfigError, match="expected key=value"):
        parse_override(text)


def test_settings_can_be_hashed_and_compared():
    assert hash(Config()) == hash(Config())


def test_changed_settings_are_checked_like_those_of_a_file():
    config = load_config({}, {"folds": {"kind": "rolling"}})
    changed = config.changed(seed=3, data={"assets": ("A",)}, folds=config.folds)
    assert changed == load_config(config, {"seed": 3, "data.assets": ["A"]})
    for changes in ({"seed": -1}, {"data": {"asset": ()}}, {"data": {"train_end": "2020-01-01"}}):
        with pytest.raises(ValueError, match="seed|asset|train_end"):
            config.changed(**changes)
