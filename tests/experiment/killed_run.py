"""Run `maml-jax run` in processes that are killed at random moments, and compare what they write.

    python killed_run.py FOLDER KILLS TERMS

KILLS processes get SIGKILL, which nothing can handle, and TERMS of them SIGTERM, SIGHUP or SIGINT,
which must end them with a line that says how to go on. Processes are forked before JAX has begun to
compute, so that they start at once, and share a cache of compiled programs.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest  # noqa: F401 (environment variables)
import orbax.checkpoint  # noqa: F401
import pandas as pd
import tomli_w
from folded import MARKET
from survival import SETTINGS, digest

import maml_jax.experiment.run
import maml_jax.experiment.tear_sheet
from maml_jax.cli.main import main as command_line

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


def start(arguments: list[str], output: Path) -> int:
    """Fork a process that runs the command line, whose output is appended to a file."""
    process = os.fork()
    if process:
        return process
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    maml_jax.experiment.tear_sheet.tear_sheet = lambda *_: None
    maml_jax.experiment.tear_sheet.render = lambda _: "<html></html>"
    sys.argv = ["maml-jax", *arguments]
    code = 0
    try:
        command_line()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def digest_alone(run: Path) -> dict[str, str]:
    """Return the digest of a run, found by a process of its own: JAX must not begin in this one."""
    found = run.parent / "digest"
    process = os.fork()
    if not process:
        found.write_text(json.dumps(digest(run)))
        os._exit(0)
    assert wait(process) == 0
    return json.loads(found.read_text())


def wait(process: int) -> int:
    """Return the exit code of a process; of one that a signal ended, less than 0."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class Home:
    """A folder in which one run is made, by as many processes as it takes."""

    def __init__(self, folder: Path, config: Path):
        folder.mkdir()
        self.out, self.config, self.output = folder / "run", config, folder / "output"

    def start(self) -> int:
        """Begin the run, or go on with it where there is something to go on with."""
        begun = self.out.exists() or self.out.with_name("run.partial").exists()
        ask = ["--resume", str(self.out)] if begun else [str(self.config), "--out", str(self.out)]
        self.output.unlink(missing_ok=True)
        return start(["run", *ask], self.output)

    def said(self) -> list[str]:
        """Return the lines that the last process printed."""
        return self.output.read_text().splitlines() if self.output.exists() else []


def judge_end(home: Home, number: int, code: int) -> list[str]:
    """Return what is wrong with how a process ended that was sent a signal it handles."""
    last = home.said()[-1:] or [""]
    name = signal.Signals(number).name
    if code != 128 + number or not last[0].startswith(f"stopped by {name}; "):
        return [f"{name}: exit code {code}, {home.said()}"]
    kept = home.out.exists() or home.out.with_name("run.partial").exists()
    if kept and f"--resume {home.out}" not in last[0] and "is kept in" not in last[0]:
        return [f"{name}: does not say how to go on: {last[0]}"]
    return [] if kept or "nothing was saved" in last[0] else [f"{name}: nothing kept: {last[0]}"]


def main(folder: Path, kills: int, terms: int) -> None:
    """Kill so often, beginning again where a run has come to its end."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever it was started with, such as nohup
    market, config = folder / "market.parquet", folder / "config.toml"
    pd.concat(MARKET, names=["symbol"]).reset_index().to_parquet(market)
    settings = SETTINGS | {"data": SETTINGS["data"] | {"path": str(market)}}
    config.write_text(tomli_w.dumps(settings))
    warm = Home(folder / "warm", config)  # its programs are in the cache from here on
    assert wait(warm.start()) == 0, warm.said()
    began = time.perf_counter()
    undisturbed = Home(folder / "undisturbed", config)
    assert wait(undisturbed.start()) == 0, undisturbed.said()
    lasts = time.perf_counter() - began
    expected = digest_alone(undisturbed.out)
    differences: list = (
        [] if digest_alone(warm.out) == expected else ["two undisturbed runs differ"]
    )
    draw, wanted = random.Random(0), [0] * kills + [1] * terms
    draw.shuffle(wanted)
    killed, termed, runs, home = 0, 0, 0, None
    while wanted or home is not None:
        home = home or Home(folder / str(runs), config)
        process = home.start()
        number = 0
        if wanted:
            number = draw.choice(SIGNALS) if wanted[-1] else signal.SIGKILL
            time.sleep(lasts * draw.uniform(0.05, 1.0))
            os.kill(process, number)
        code = wait(process)
        if wanted and code != 0:
            wanted.pop()
            if number == signal.SIGKILL:
                killed += 1
                differences += [] if code == -number else [f"{code}: {home.said()}"]
            else:
                termed += 1
                differences += judge_end(home, number, code)
        if code == 0:
            differences += [] if digest_alone(home.out) == expected else [f"run {runs} differs"]
            leftover = [each.name for each in home.out.parent.glob("*partial*")]
            differences += [f"run {runs}: {leftover}"] if leftover else []
            runs, home = runs + 1, None
        elif not wanted and not number:
            differences.append(f"exit code {code}: {home.said()}")
            break
    found = {"kills": killed, "terms": termed, "runs": runs, "seconds": round(lasts, 1)}
    print(json.dumps(found | {"differences": differences}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
