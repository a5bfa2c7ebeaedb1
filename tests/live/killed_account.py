"""Go on with a paper account in processes that are killed at random moments.

    python killed_account.py FOLDER KILLS

Each process takes the bars one by one, as they would come. Another account is never killed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest  # noqa: F401 (environment variables)
from live.small import START, bars_to, result

from maml_jax.live.book import Book
from maml_jax.live.latest import go_on, open_paper

LAST = 24
"""The last of the bars that are traded, in days from the start."""


def trade(path: Path) -> None:
    """Take all bars that the account lacks."""
    run, book = result(), Book(path)
    for place in range(LAST + 1):
        if book.exists() and _last(book) >= place:
            continue
        strategy, state = open_paper(run, book, bars_to(place), since=START)
        go_on(strategy, state, book, bars_to(place))


def _last(book: Book) -> int:
    equity = book.equity()
    return -1 if equity.empty else (equity.index[-1] - START).days


def start(path: Path) -> int:
    """Fork a process that trades."""
    process = os.fork()
    if process:
        return process
    try:
        trade(path)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def main(folder: Path, kills: int) -> None:
    """Kill so often, beginning with another account where one has come to its end."""
    began = time.perf_counter()
    process = start(folder / "undisturbed")
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    lasts, draw, done = time.perf_counter() - began, random.Random(0), 0
    path = folder / "killed"
    while True:
        process = start(path)
        if done < kills:
            time.sleep(lasts * draw.uniform(0.05, 0.9) * (1 if kills < 10 else 0.3))
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        assert code in (0, -signal.SIGKILL), code
        done += code != 0
        if code == 0 and done >= kills:
            return
        if code == 0:  # the end came before the kill
            for each in folder.glob("killed*"):
                each.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
