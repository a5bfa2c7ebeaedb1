"""Code that a run directory names is run only where the user says so."""

import sys

import pandas as pd
import pytest
from market import MARKET
from small_run import SETTINGS, small_result

from maml_jax.cli import main as cli
from maml_jax.errors import ConfigError, RunError
from maml_jax.experiment import backtest, compare, load, write_comparison
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.learning.adapt import load_adapted
from maml_jax.features import registry

pytestmark = pytest.mark.long

PLANTED = """
from pathlib import Path
from maml_jax.features import register_feature

Path({marker!r}).touch()
register_feature("planted", lambda bars: bars["close"].pct_change(), warm_up=1)
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A run whose settings name a module by its path and one by its name, and their markers."""
    folder = tmp_path_factory.mktemp("planted")
    markers = [folder / "by_path_ran", folder / "by_name_ran"]
    for name, marker in zip(("by_path", "by_name"), markers, strict=True):
        (folder / f"{name}.py").write_text(PLANTED.format(marker=str(marker)))
    modules = [str(folder / "by_path.py"), "by_name"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maml_jax.experiment.tear_sheet.tear_sheet", lambda *_: None)
        patch.setattr("maml_jax.experiment.tear_sheet.render", lambda _: "<html></html>")
        patch.syspath_prepend(folder)
        patch.setattr(registry, "_registered", {})
        patch.setattr(registry, "_imported", {})
        result = small_result(**{"features.modules": modules, "features.names": ["planted", "rsi"]})
        assert all(marker.exists() for marker in markers), "the settings that a user names"
        checkpoint = result.checkpoints["maml"]
        names = ["planted", "rsi"]
        scaler = checkpoint.scaler._replace(
            mean=checkpoint.scaler.mean.set_axis(names), std=checkpoint.scaler.std.set_axis(names)
        )
        result.checkpoints["maml"] = checkpoint._replace(scaler=scaler)
        path = result.save(folder / "run")
        adapted = result.adapt(MARKET["A3"]).save(folder / "adapted")
        sys.modules.pop("by_name")
    for marker in markers:
        marker.unlink()
    return path, adapted, markers


@pytest.fixture
def forgotten(planted, monkeypatch):
    """As in another process, where nothing was imported."""
    path, adapted, markers = planted
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_imported", {})
    yield path, adapted, lambda: [marker.exists() for marker in markers]
    sys.modules.pop("by_name", None)
    for marker in markers:
        marker.unlink(missing_ok=True)


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["maml-jax", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
        raise SystemExit(0)
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


@pytest.mark.long
def test_reading_a_run_runs_no_code(forgotten, no_page, tmp_path, monkeypatch, capsys):
    path, adapted, ran = forgotten
    result = load(path)
    result.report(tmp_path / "page.html")
    other = small_result().save(tmp_path / "other")
    write_comparison(compare([path, other], samples=20), tmp_path / "compare.html")
    load_adapted(adapted)
    for arguments in (
        ("report", path, "--out", tmp_path / "again.html"),
        ("compare", path, other, "--samples", 20, "--out", tmp_path / "both.html"),
    ):
        code, _, err = call(monkeypatch, capsys, *arguments)
        assert (code, err) == (0, "")
    assert result.save(tmp_path / "copy") and load(tmp_path / "copy").config == result.config
    assert ran() == [False, False]


@pytest.mark.slow
def test_what_computes_features_names_the_option(forgotten, tmp_path, monkeypatch, capsys):
    path, adapted, ran = forgotten
    message = "key 'features.modules': the features need .*by_path.py, by_name, .*--trust"
    for work in (
        lambda: load(path).adapt(MARKET["A3"]),
        lambda: load_adapted(adapted).predict(MARKET["A3"]),
        lambda: backtest(path, bars=MARKET, out=tmp_path / "out"),
        lambda: load(path).config.features.named(),
    ):
        with pytest.raises(ConfigError, match=message):
            work()
    bars = pd.concat(MARKET, names=["symbol"]).reset_index()
    bars.to_csv(tmp_path / "bars.csv", index=False)
    given = ("--bars", tmp_path / "bars.csv")
    for command in (("adapt", path, "--symbol", "A3"), ("check-lookahead", path)):
        code, _, err = call(monkeypatch, capsys, *command, *given)
        assert (code, err.count("\n"), "--trust" in err) == (2, 1, True), err
    assert ran() == [False, False]
    assert not (tmp_path / "out").exists() and not (path / "adapted").exists()


def test_who_trusts_a_run_gets_its_features(forgotten, monkeypatch, capsys, tmp_path):
    path, adapted, ran = forgotten
    found = load(path, trust=True)
    assert ran() == [True, True]
    predicted = found.adapt(MARKET["A3"]).predict(MARKET["A3"])
    pd.testing.assert_series_equal(load_adapted(adapted).predict(MARKET["A3"]), predicted)
    registry._registered.clear()
    registry._imported.clear()
    pd.testing.assert_series_equal(
        load_adapted(adapted, trust=True).predict(MARKET["A3"]), predicted
    )
    bars = pd.concat({"A3": MARKET["A3"]}, names=["symbol"]).reset_index()
    bars.to_csv(tmp_path / "bars.csv", index=False)
    registry._registered.clear()
    registry._imported.clear()
    out = ("--out", tmp_path / "kept", "--trust")
    code, _, err = call(monkeypatch, capsys, "adapt", path, "--bars", tmp_path / "bars.csv", *out)
    assert (code, err) == (0, "") and load_adapted(tmp_path / "kept").asset == "A3"


def test_an_edited_run_cannot_name_code(tmp_path, no_page, monkeypatch):
    """Not in the settings, nor in what its checkpoint or its record say of them."""
    marker, module = tmp_path / "ran", tmp_path / "evil.py"
    module.write_text(PLANTED.format(marker=str(marker)))
    path = small_result().save(tmp_path / "run")
    text = (path / "config.toml").read_text()
    (path / "config.toml").write_text(text.replace("modules = []", f'modules = ["{module}"]'))
    for trust in (False, True):
        with pytest.raises(RunError, match=r"features.modules is \['.*evil.py'\] and was \[\]"):
            load(path, trust=trust)
    assert not marker.exists()
    with pytest.raises(ConfigError, match="no_such"):  # what a user names is imported at once
        load_config({**SETTINGS, "features": {"modules": ["no_such"]}})
