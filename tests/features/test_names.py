"""What names stand for, in calls and in settings; features of the user's own."""

import sys

import numpy as np
import pytest
from helpers import random_bars
from market import MARKET, SMALL

from maml_jax.errors import ConfigError
from maml_jax.experiment import load_config
from maml_jax.experiment.preparation.prepare import choose_features, prepare
from maml_jax.features import (
    compute_features,
    feature_groups,
    find_features,
    import_features,
    register_feature,
    technical_features,
)

GROUPS = feature_groups()


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch):
    monkeypatch.setattr("maml_jax.features.registry._registered", {})


def names_of(*names, **windows):
    return [feature.name for feature in find_features(names, **windows)]


def close(bars):
    return bars["close"]


def test_names_are_unique_over_all_groups():
    names = [name for group in GROUPS.values() for name in group]
    assert len({*names, *GROUPS}) == len(names) + len(GROUPS)
    assert all(name == each.name for group in GROUPS.values() for name, each in group.items())


def test_what_was_there_is_the_default():
    assert list(GROUPS["technical"]) == list(technical_features())
    bars = {"A": random_bars()}
    chosen = choose_features(load_config({}), bars)
    assert [feature.name for feature in chosen] == list(technical_features())
    closes = {"A": random_bars(columns="close")}
    chosen = choose_features(load_config({}), closes)
    assert [feature.name for feature in chosen] == list(technical_features())[:-1]


def test_names_come_in_their_order_with_aliases_lags_and_groups():
    assert names_of("rsi_lag_2", "return_1", "bop") == ["rsi_lag_2", "return_1", "bop"]
    assert names_of("rocp", "rocp_lag_10") == ["momentum", "momentum_lag_10"]
    assert names_of("calendar", "volume")[-3:] == ["month_cos", "volume_zscore", "mfi"]
    assert names_of("volume", "rsi", "mfi") == ["volume_zscore", "rsi", "mfi"]
    assert names_of("return_7_lag_1", returns=(7,)) == ["return_7_lag_1"]


@pytest.mark.parametrize(
    "name",
    [
        "rsi_lag_0",
        "rsi_lag_-1",
        "rsi_lag_01",
        "rsi_lag_",
        "lag_1",
        "rsi_lag_1_lag_2",
        "volume_lag_1",
    ]
    + ["return_7", "RSI", "", "technical_lag_1"],
)
def test_names_that_stand_for_nothing_are_told(name):
    with pytest.raises(ConfigError, match=r"unknown features .*'rsi'.* the groups \['technical'"):
        find_features(["rsi", name])


@pytest.mark.parametrize(
    "names",
    [[], ["rsi", "rsi"], ["rocp", "momentum"], ["ohlc", "ohlc"], ["rsi_lag_1", "rsi_lag_1"]],
)
def test_names_must_be_some_and_each_once(names):
    with pytest.raises(ConfigError, match="at least one feature, and none twice"):
        find_features(names)
    with pytest.raises(ConfigError, match=r"key 'features': names must hold at least one"):
        load_config({"features.names": names})


def test_settings_name_groups_and_keep_what_they_stood_for():
    config = load_config({**SMALL, "features": {"window": 5, "names": ["ohlc", "rsi_lag_3"]}})
    assert config.features.names == ("ohlc", "rsi_lag_3")
    prepared = prepare(config, MARKET)
    expected = (*GROUPS["ohlc"], "rsi_lag_3")
    assert tuple(prepared.panel.feature_names) == prepared.config.features.names == expected
    assert load_config(prepared.config) == prepared.config


def test_a_registered_feature_is_known_by_name_and_computed():
    feature = register_feature("twice", lambda bars: 2 * bars["close"], warm_up=0)
    assert find_features(["twice"]) == [feature]
    bars = random_bars(count=9)
    table = compute_features(bars, find_features(["twice", "twice_lag_1"]))
    assert table["twice"].iloc[1:].tolist() == (2 * bars["close"].iloc[1:]).tolist()
    assert table["twice_lag_1"].iloc[-1] == table["twice"].iloc[-2]
    again = register_feature("twice", close, warm_up=3, columns=["close", "volume"])
    assert find_features(["twice"]) == [again]
    assert again.columns == ("close", "volume")


REFUSED = {
    "a feature": ("rsi", {}, "built in"),
    "a group": ("ohlc", {}, "built in"),
    "an alias": ("rocp", {}, "built in"),
    "a return over another lag": ("return_99", {}, "built in"),
    "a lag": ("mine_lag_2", {}, "_lag_N"),
    "no identifier": ("my feature", {}, "identifier"),
    "no text": (5, {}, "identifier"),
    "no function": ("mine", {"compute": 3}, "function of bars"),
    "a negative warm-up": ("mine", {"warm_up": -1}, "number of bars"),
    "a warm-up that is no count": ("mine", {"warm_up": 2.0}, "number of bars"),
    "columns as text": ("mine", {"columns": "close"}, "tuple of names"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_cannot_be_registered_is_refused(fault):
    name, changes, message = REFUSED[fault]
    with pytest.raises(ConfigError, match=message):
        register_feature(name, **{"compute": close, "warm_up": 0, **changes})


SOURCE = """
from maml_jax.features import register_feature

register_feature("{name}", lambda bars: {scale} * bars["close"], warm_up=0)
"""


def test_settings_import_modules_that_register_features(tmp_path, monkeypatch):
    (tmp_path / "own_ones.py").write_text(SOURCE.format(name="by_name", scale=1))
    (tmp_path / "mine.py").write_text(SOURCE.format(name="by_path", scale=1))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = ["by_name", "by_path", "by_path_lag_1"]
    modules = ["own_ones", "mine.py"]
    config = load_config({**SMALL, "features": {"modules": modules, "names": names}})
    assert [feature.name for feature in config.features.named()] == names
    assert list(prepare(config, MARKET).panel.feature_names) == names
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "config.toml") == config
    del sys.modules["own_ones"]


def test_a_file_is_run_once_and_again_when_it_was_changed(tmp_path):
    path = tmp_path / "mine.py"

    def value():
        import_features(str(path))
        return find_features(["mine"])[0].compute(random_bars(count=1)).iloc[0]

    path.write_text(SOURCE.format(name="mine", scale=1))
    once = value()
    own = register_feature("mine", close, warm_up=0)
    value()
    assert find_features(["mine"]) == [own]
    path.write_text(SOURCE.format(name="mine", scale=2.5))
    assert np.isclose(value(), 2.5 * once)


BAD_MODULES = {
    "no such module": ("no_such_module", None, r"'no_such_module' .*ModuleNotFoundError.*\.py"),
    "no such file": ("{}/none.py", None, r"none\.py' .*FileNotFoundError"),
    "no Python": ("{}/bad.py", "x ==", r"bad\.py' .*SyntaxError"),
    "an error of its own": ("{}/bad.py", "1 / 0", r"bad\.py' .*ZeroDivisionError"),
    "a wrong name": ("{}/bad.py", SOURCE.format(name="rsi", scale=1), r"bad\.py' .*built in"),
}


@pytest.mark.parametrize("fault", BAD_MODULES)
def test_a_module_that_cannot_be_imported_is_named(fault, tmp_path):
    module, text, message = BAD_MODULES[fault]
    if text is not None:
        (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ConfigError, match=f"key 'features.modules': module .*{message}"):
        load_config({"features.modules": [module.format(tmp_path)]})


def test_a_feature_that_was_not_registered_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"unknown features \['mine'\].*register your own first"):
        load_config({"features.names": ["mine"]})
