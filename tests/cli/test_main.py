import csv
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from helpers import random_market
from typer.main import get_command
from typer.testing import CliRunner

from maml_jax import watchdog
from maml_jax.cli import main as cli
from maml_jax.experiment import load

pytestmark = pytest.mark.long

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
    stages = next(line for line in out.splitlines() if line.startswith("total "))
    for text in ("meta-training maml", "walk-forward from scratch", "(compilation "):
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
def test_a_run_is_logged_in_its_directory_for_people_or_programs(folder, monkeypatch, capsys):
    style = ["--log-format", "json"]
    assert call(monkeypatch, capsys, "train", "config.toml", "--out", "a", *style)[0] == 0
    lines = [json.loads(line) for line in (folder / "a" / "log.jsonl").read_text().splitlines()]
    assert {"time", "level", "message"} <= {*lines[0]}
    (step,) = (line for line in lines if "step" in line)
    assert (step["method"], step["step"], step["skipped"]) == ("maml", 4.0, 0.0)
    (row,) = csv.DictReader((folder / "a" / "logs" / "maml.csv").open())
    assert float(row["loss"]) == step["loss"]
    code, out, _ = call(monkeypatch, capsys, "export", "a", "--out", "a.safetensors")
    assert (code, "parameters: a.safetensors" in out) == (0, True)


@pytest.mark.long
def test_train_backtest_and_report_go_together(folder, monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "train", "config.toml", "--out", "a")
    assert (code, "query loss" in out) == (0, True)
    code, out, _ = call(monkeypatch, capsys, "backtest", "a", "--set", "backtest.fee=0.002")
    assert (code, "Sharpe Ratio" in out) == (0, True)
    code, out, _ = call(monkeypatch, capsys, "report", "a", "--out", "x.html")
    assert (code, (folder / "x.html").is_file()) == (0, True)


def test_adapting_to_a_new_asset_is_judged_and_kept(folder, monkeypatch, capsys):
    from maml_jax.experiment.learning.adapt import load_adapted

    assert call(monkeypatch, capsys, "train", "config.toml", "--out", "a")[0] == 0
    new = ["adapt", "a", "--bars", "market.csv"]
    code, _, err = call(monkeypatch, capsys, *new)
    assert (code, "holds 2 assets, A0, A1; choose one with --symbol" in err) == (2, True)
    new += ["--symbol", "A1"]
    code, out, err = call(monkeypatch, capsys, *new, "--steps", "3", "--out", "kept")
    assert code == 0, err
    for text in ("maml on A1", "from scratch", "support: 10 rows", "query: 5 rows", "saved: kept"):
        assert text in out
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("│")]
    assert rows == ["0", "1", "2", "3"]
    assert load_adapted("kept").asset == "A1"
    for more, message in (
        (["--out", "kept"], "kept: exists already"),
        (["--method", "anil"], "--method anil: no such method in a; it has maml"),
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
    "nothing to go on with": (["run", "--resume", "nowhere"], "nowhere: no unfinished run"),
    "other settings": (
        ["run", "config.toml", "--resume", "a"],
        "--resume: goes on in a with the settings that are kept there",
    ),
    "no common name": (["train", "config.toml", "--distributed"], "name one run directory"),
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


@pytest.mark.slow
def test_bars_of_ones_own_need_no_config(folder, monkeypatch, capsys):
    settings = ["data.path=market.csv", "training.steps=2", "training.meta_batch=2"]
    arguments = [part for each in settings for part in ("--set", each)]
    code, out, err = call(monkeypatch, capsys, "run", *arguments, "--out", "own")
    assert (code, "A0" in (folder / "own" / "config.toml").read_text()) == (0, True), err


TELLING = """
import sys
from maml_jax.cli.main import main
from maml_jax.meta import retry as learn
fit = learn.take_steps
def telling(*arguments, **options):
    print("training", flush=True)
    return fit(*arguments, **options)
learn.take_steps = telling
main()
"""


@pytest.mark.long
def test_an_interrupt_ends_after_a_checkpoint_and_says_how_to_go_on(folder):
    arguments = ["run", "config.toml", "--set", "training.steps=100000", "--out", "long"]
    process = subprocess.Popen(
        [sys.executable, "-c", TELLING, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    for _ in range(2):  # the second call begins once the first has been compiled and has run
        assert process.stdout.readline() == b"training\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.fullmatch(
        rb"stopped by SIGINT; meta-training maml up to step \d+00 is kept, go on with "
        rb"`maml-jax run --resume long`\n",
        err,
    ), err
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.toml", "long.partial", "market.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("option", "variable", "expected"),
    [([], None, None), ([], "0", 0), (["--patience", "1.5"], "7", 1.5)],
)
def test_patience_is_set_by_option_or_environment(
    monkeypatch, capsys, tmp_path, option, variable, expected
):
    asked = []

    @contextmanager
    def watch(patience):
        asked.append(patience)
        yield

    monkeypatch.setattr(watchdog, "watch", watch)
    if variable is not None:
        monkeypatch.setenv("MAML_JAX_PATIENCE", variable)
    arguments = [*option, "data", "list", "--store", str(tmp_path)]
    assert call(monkeypatch, capsys, *arguments)[0] == 0
    assert asked == [expected]


LOCKS = """
import sys, threading
import maml_jax.experiment.run
module = sys.modules["maml_jax.experiment.run"]  # the package's attribute is the function

def wait_for_each_other(*_, **__):
    first, second, both = threading.Lock(), threading.Lock(), threading.Barrier(2)
    def take(one, other):
        with one:
            both.wait()
            with other:
                pass
    thread = threading.Thread(target=take, args=(first, second))
    thread.start()
    take(second, first)

module.evaluate_folds = wait_for_each_other
"""

CALLBACK = """
import threading
import sys
import jax, jax.numpy as jnp
from maml_jax.meta import retry as learn

def never_returns(x):
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def fit(*_, **__):
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.jit(lambda x: jax.pure_callback(never_returns, shape, x))(1.0).block_until_ready()

learn.take_steps = fit
"""

FETCH = """
import threading
import maml_jax.data

def fetch(*_, **__):
    threading.Event().wait()

maml_jax.data.fetch = fetch
"""


def call_with(folder, planted, *arguments):
    code = f"{planted}\nfrom maml_jax.cli.main import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, "--patience", "0.05", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.slow
def test_a_deadlock_after_training_leaves_what_was_trained(folder):
    done = call_with(folder, LOCKS, "run", "config.toml", "--out", "runs/a")
    assert done.returncode == watchdog.EXIT_CODE == 4, done.stderr
    assert done.stderr == (
        "error: no progress for 3 seconds (see --patience); the trained model is kept, go on with "
        "`maml-jax run --resume runs/a`; stacks of all threads: runs/a.partial/watchdog.log\n"
    )
    log = (folder / "runs" / "a.partial" / "watchdog.log").read_text()
    assert log.count("in take\n") == 2
    assert "in wait_for_each_other" in log
    assert "maml-jax --patience" in log and "jaxlib" in log
    assert [*load(folder / "runs" / "a").checkpoints] == ["maml"]


@pytest.mark.slow
def test_a_callback_that_never_returns_leaves_nothing_half_written(folder):
    done = call_with(folder, CALLBACK, "train", "config.toml", "--out", "a")
    assert done.returncode == 4, done.stderr
    assert done.stderr == (
        "error: no progress for 3 seconds (see --patience) during meta-training maml; "
        "nothing was saved; stacks of all threads: a.watchdog.log\n"
    )
    log = (folder / "a.watchdog.log").read_text()
    assert "in never_returns" in log
    assert "Stage: meta-training maml\n" in log
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["a.watchdog.log", "config.toml", "market.csv"]


@pytest.mark.long
def test_a_fetch_that_hangs_names_the_store(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    arguments = ["fetch", "bybit", "X", "--start", "2024-01-01", "--store", str(store)]
    done = call_with(tmp_path, FETCH, *arguments)
    assert done.returncode == 4, done.stderr
    assert f"so far are in {store}; the same command continues from there" in done.stderr
    assert "in fetch\n" in (store / "watchdog.log").read_text()


def _commands(command, *names):
    yield names
    for name, each in getattr(command, "commands", {}).items():
        yield from _commands(each, *names, name)


COMMANDS = [*_commands(get_command(cli.app))]
assert ("data", "show") in COMMANDS


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_every_command_has_a_help(names):
    shown = CliRunner().invoke(cli.app, [*names, "--help"])
    assert shown.exit_code == 0, shown.exception
    assert "Usage: " in shown.output


def test_the_version_is_shown(monkeypatch, capsys):
    code, out, _ = call(monkeypatch, capsys, "--version")
    assert (code, out.startswith("maml-jax 0.")) == (0, True)


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "maml_jax", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("run", "train", "backtest", "report", "adapt"):
        assert command in done.stdout
