import os
import signal
import subprocess
import sys

import pytest
from helpers import random_market

from maml_jax import cli

CONFIG = """
[data]
path = "market.csv"
train_end = 2020-06-08
test_start = 2020-06-09
[features]
window = 5
fast = 3
slow = 5
[target]
horizon = 3
volatility_window = 5
[task]
support = 10
query = 5
[model]
hidden = [8]
[learner]
methods = ["maml"]
inner_steps = 2
[training]
steps = 4
meta_batch = 4
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    import pandas as pd

    market = pd.concat(random_market(count=260, assets=2), names=["symbol"])
    market.reset_index().to_csv(tmp_path / "market.csv", index=False)
    (tmp_path / "config.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch, capsys, *arguments):
    """Run the command line in this process; return exit code, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["maml-jax", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
        raise SystemExit(0)
    captured = capsys.readouterr()
    return end.value.code or 0, captured.out, captured.err


def test_run_prints_a_table_and_writes_a_report(folder, monkeypatch, capsys):
    code, out, err = call(monkeypatch, capsys, "run", "config.toml", "--out", "runs/a")
    assert code == 0, err
    for text in ("Sharpe Ratio", "maml", "buy and hold", "from scratch", "runs/a/report.html"):
        assert text in out
    stages = next(line for line in out.splitlines() if line.startswith("seconds: "))
    for text in ("meta-training maml", "walk-forward from scratch", "of which compiling"):
        assert text in stages
    assert (folder / "runs" / "a" / "report.html").is_file()
    assert err == ""


@pytest.mark.slow
def test_a_second_run_finds_the_programs_of_the_first(folder):
    cache = folder / "cache" / "compiled"
    environment = os.environ | {
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "XDG_CACHE_HOME": str(folder),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
    }
    kept = []
    for name in ("a", "b"):
        process = subprocess.run(
            [sys.executable, "-m", "maml_jax", "-v", "train", "config.toml", "--out", name],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stderr
        assert "4 tasks of" in process.stderr
        kept.append({path.name for path in cache.iterdir() if path.name.endswith("-cache")})
    assert kept[0]
    assert kept[0] == kept[1]


@pytest.mark.long
def test_train_backtest_and_report_go_together(folder, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "train", "config.toml", "--out", "a")
    assert (code, "query loss" in out) == (0, True)
    code, out, _ = call(monkeypatch, capsys, "backtest", "a", "--set", "backtest.fee=0.002")
    assert (code, "Sharpe Ratio" in out) == (0, True)
    code, out, _ = call(monkeypatch, capsys, "report", "a", "--out", "x.html")
    assert (code, (folder / "x.html").is_file()) == (0, True)


def test_adapting_to_a_new_asset_is_judged_and_kept(folder, monkeypatch, capsys):
    from maml_jax.experiment.adapt import load_adapted

    assert call(monkeypatch, capsys, "train", "config.toml", "--out", "a")[0] == 0
    new = ["adapt", "a", "--bars", "market.csv"]
    code, _, err = call(monkeypatch, capsys, *new)
    assert (code, "holds 2 assets, A0, A1; choose one with --symbol" in err) == (2, True)
    new += ["--symbol", "A1"]
    code, out, err = call(monkeypatch, capsys, *new, "--steps", "3", "--out", "kept")
    assert code == 0, err
    for text in ("maml on A1", "from scratch", "support: 10 rows", "query: 5 rows", ": kept"):
        assert text in out
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert rows == ["0", "1", "2", "3"]
    assert load_adapted("kept").asset == "A1"
    for more, message in (
        (["--out", "kept"], "kept: exists already"),
        (["--method", "anil"], "--method anil: there is no such method in a; there are maml"),
        (["--symbol", "B"], "--symbol B: market.csv holds A0, A1"),
        (["--steps", "-1"], "--steps: must not be negative"),
    ):
        code, out, err = call(monkeypatch, capsys, *new, *more)
        assert (code, message in err, err.count("\n")) == (2, True, 1), err
    assert call(monkeypatch, capsys, *new)[0] == 0
    assert len(list((folder / "a" / "adapted").iterdir())) == 1


FAULTS = {
    "unknown key": (["run", "config.toml", "--set", "training.stepz=5"], "training.stepz"),
    "no value": (["run", "config.toml", "--set", "training.steps"], "expected key=value"),
    "missing config": (["run", "none.toml"], "none.toml: no such config file"),
    "missing bars": (["run", "config.toml", "--set", "data.path=no.csv"], "no.csv: no such file"),
    "existing output": (["run", "config.toml", "--out", "."], "exists already"),
    "too many devices": (
        ["run", "config.toml", "--set", "training.devices=99", "--out", "b"],
        "key 'training.devices': 99 devices are asked for",
    ),
    "no common name": (["train", "config.toml", "--distributed"], "name the run directory with"),
    "no run": (["backtest", "nowhere"], "no run directory"),
    "no run to report": (["report", "nowhere"], "no run directory"),
    "no run to adapt": (["adapt", "nowhere", "--bars", "market.csv"], "no run directory"),
    "diverging": (
        ["run", "config.toml", "--set", "learner.inner_learning_rate=1e30", "--out", "b"],
        "stopped at step 0",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_input_is_exit_code_2_and_one_line(folder, monkeypatch, capsys, fault):
    arguments, message = FAULTS[fault]
    before = sorted(p.name for p in folder.iterdir())
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.long
def test_bars_of_ones_own_need_no_config(folder, monkeypatch, capsys):
    settings = ["data.path=market.csv", "training.steps=2", "training.meta_batch=2"]
    arguments = [part for each in settings for part in ("--set", each)]
    code, out, err = call(monkeypatch, capsys, "run", *arguments, "--out", "own")
    assert (code, "A0" in (folder / "own" / "config.toml").read_text()) == (0, True), err


TELLING = """
import maml_jax.experiment.learn as learn
from maml_jax.cli import main
fit = learn.fit
def telling(*arguments, **options):
    print("training", flush=True)
    return fit(*arguments, **options)
learn.fit = telling
main()
"""


@pytest.mark.long
def test_an_interrupt_ends_at_once_and_leaves_nothing(folder):
    arguments = ["run", "config.toml", "--set", "training.steps=100000", "--out", "long"]
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in range(2):  # the second call begins once the first has been compiled and has run
        assert process.stdout.readline() == b"training\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"aborted" in err
    assert b"Traceback" not in err
    assert sorted(p.name for p in folder.iterdir()) == ["config.toml", "market.csv"]


def test_the_version_is_shown(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "--version")
    assert (code, out.startswith("maml-jax 0.")) == (0, True)


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "maml_jax", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("run", "train", "backtest", "report", "adapt"):
        assert command in done.stdout
