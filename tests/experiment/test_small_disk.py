"""Disks that are full, and folders that cannot be written: one line, and nothing lost."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
from folded import MARKET
from survival import SETTINGS, digest, left

from maml_jax.cli import main as cli
from maml_jax.errors import RunError
from maml_jax.experiment import resume, train
from maml_jax.meta import checkpoints

pytestmark = pytest.mark.long

ONE = {**SETTINGS, "folds": {}, "learner": {"methods": ["maml"], "inner_steps": 2}}


def mount(*arguments):
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


@contextmanager
def mounted(folder, size):
    """Mount a file system in memory, where that is possible."""
    folder.mkdir()
    if sys.platform != "linux" or not mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder):
        pytest.skip("mounting needs Linux and root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    """Take all the room that is left."""
    with (folder / "filler").open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def call(monkeypatch, capsys, *arguments):
    """Run the command line in this process; return exit code, standard output and error."""
    monkeypatch.setattr(sys, "argv", ["maml-jax", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "run"
    train(ONE, bars=MARKET, out=path)
    return digest(path)


def test_a_disk_that_becomes_full_loses_neither_checkpoints_nor_the_result(
    tmp_path, monkeypatch, whole, caplog
):
    original = checkpoints._write_arrays
    with mounted(tmp_path / "disk", "4m") as disk:
        out = disk / "run"
        steps = disk / "run.partial" / "training" / "00" / "maml" / "checkpoints"

        def fills(*arguments):
            if [*steps.glob("step-*")] and not (disk / "filler").exists():
                fill(disk)
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "_write_arrays", fills)
            with pytest.raises(RunError, match="disk/.*cannot be written: No space left") as caught:
                train(ONE, bars=MARKET, out=out)
        kept = [path.name for path in steps.glob("step-*")]
        assert kept == ["step-0000000002"] and not out.exists()
        said = [r.message for r in caplog.records if r.levelname == "WARNING"]
        assert any("no checkpoint of step 4, training goes on" in text for text in said)
        caught.value.result.save(tmp_path / "elsewhere")
        with pytest.raises(RunError, match="No space left"):
            resume(out, bars=MARKET)
        assert [path.name for path in steps.glob("step-*")] == kept
        (disk / "filler").unlink()
        resume(out, bars=MARKET)
        assert digest(out) == digest(tmp_path / "elsewhere") == whole
        assert left(disk) == []


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_trained(
    tmp_path, monkeypatch, capsys
):
    with mounted(tmp_path / "disk", "1m") as disk:
        assert mount("-o", "remount,ro", disk)
        for command in ("run", "train"):
            code, out, error = call(monkeypatch, capsys, command, "--out", disk / "run")
            assert code == 2 and out == ""
            assert error.count("\n") == 1 and "name another with --out" in error
            assert str(disk) in error and "not a writable folder" in error


def test_a_result_that_finds_no_room_is_printed(tmp_path, monkeypatch, capsys):
    import pandas as pd
    import tomli_w

    market = tmp_path / "market.parquet"
    pd.concat(MARKET, names=["symbol"]).reset_index().to_parquet(market)
    settings = ONE | {"data": ONE["data"] | {"path": str(market)}}
    (tmp_path / "config.toml").write_text(tomli_w.dumps(settings))
    original = checkpoints._write_arrays
    with mounted(tmp_path / "disk", "4m") as disk:

        def fills(*arguments):
            fill(disk)
            return original(*arguments)

        monkeypatch.setattr(checkpoints, "_write_arrays", fills)
        code, out, error = call(
            monkeypatch, capsys, "run", tmp_path / "config.toml", "--out", disk / "run"
        )
        last = error.splitlines()[-1]
        assert code == 2 and "Traceback" not in error and "Sharpe" in out
        assert last.startswith("error: ") and "No space left on device" in last
        assert last.endswith("nothing was saved") and left(disk) == []
        monkeypatch.setattr(checkpoints, "_write_arrays", original)
        train(settings, out=tmp_path / "trained")
        # Of a walk-forward too that is added to what was trained before.
        code, out, error = call(
            monkeypatch, capsys, "backtest", tmp_path / "trained", "--out", disk / "new"
        )
        assert code == 2 and "Sharpe" in out and "No space left on device" in error
