"""The book of a paper account: whole after any end of the process, and never written twice."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from live.small import START, bars_to, result, same_held, strategy

from maml_jax.errors import ConfigError, RunError
from maml_jax.live.book import Book
from maml_jax.live.latest import go_on, open_paper
from maml_jax.live.state import advance, begin

pytestmark = pytest.mark.long

RULES = {"backtest": {"samples": 50, "stop_loss": 0.03, "band": 0.05, "max_turnover": 0.4}}


def test_a_state_comes_back_to_the_last_bit(tmp_path):
    own, book = strategy(result(**RULES)), Book(tmp_path / "book.sqlite")
    book.create(own, 10_000.0, "run")
    state, step = advance(own, begin(own, 10_000.0), bars_to(20), every=True)
    book.add(state, step)
    state, step = advance(own, state, bars_to(24))  # three bars were missed
    book.add(state, step)
    again = book.state(own, begin(own, 10_000.0))
    assert same_held(state.held, again.held)
    pd.testing.assert_frame_equal(again.decided, state.decided, check_freq=False)
    assert list(again.missed) == list(state.missed)
    for old, new in ((state, bars_to(40)), (again, bars_to(40))):
        _, step = advance(own, old, new, every=True)
        if old is state:
            expected = step.traded.equity
    np.testing.assert_array_equal(step.traded.equity, expected)


def test_bars_that_nobody_looked_at_place_no_order(tmp_path):
    own = strategy()
    state, _ = advance(own, begin(own, 10_000.0), bars_to(10), every=True)
    slept, step = advance(own, state, bars_to(15))
    # What was decided before is filled at the next bar, and then stands until somebody looks.
    assert set(step.traded.fills["time"]) <= {START + pd.Timedelta(days=11)}
    assert list(slept.missed) == [START + pd.Timedelta(days=each) for each in (11, 12, 13, 14)]
    assert slept.decided.loc[list(slept.missed)].isna().all(axis=None)
    assert slept.decided.iloc[-1].notna().all()


def test_a_bar_is_written_once(tmp_path):
    run, book = result(), Book(tmp_path / "book.sqlite")
    own, state = open_paper(run, book, bars_to(5), since=START)
    after, _ = go_on(own, state, book, bars_to(5), every=True)
    with pytest.raises(RunError, match="UNIQUE"):
        go_on(own, state, book, bars_to(5), every=True)  # another process, a moment too late
    assert len(book.equity()) == 6
    assert go_on(own, after, book, bars_to(5))[1] is None


def test_a_book_of_another_run_is_refused(tmp_path):
    book = Book(tmp_path / "book.sqlite")
    open_paper(result(), book, bars_to(5), since=START)
    other = result()
    checkpoint = other.checkpoints["maml"]
    changed = [np.asarray(leaf) + 1 for leaf in _leaves(checkpoint.params)]
    params = _unflatten(checkpoint.params, changed)
    object.__setattr__(other, "checkpoints", {"maml": checkpoint._replace(params=params)})
    with pytest.raises(ConfigError, match="name another book"):
        open_paper(other, book, bars_to(5))
    (tmp_path / "no book").write_text("hello")
    with pytest.raises(RunError, match="no book"):
        Book(tmp_path / "no book").about()
    with pytest.raises(RunError, match="no such book"):
        Book(tmp_path / "none").about()
    assert not (tmp_path / "none").exists()


def _leaves(params):
    import jax

    return jax.tree.leaves(params)


def _unflatten(params, leaves):
    import jax

    return jax.tree.unflatten(jax.tree.structure(params), leaves)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 100])
def test_an_account_that_is_killed_goes_on_as_if_it_was_not(tmp_path, kills):
    script = Path(__file__).with_name("killed_account.py")
    subprocess.run([sys.executable, str(script), str(tmp_path), str(kills)], check=True)
    found, expected = (Book(tmp_path / name) for name in ("killed", "undisturbed"))
    for table in ("bars", "decisions", "steps", "fills"):
        pd.testing.assert_frame_equal(found.read(table), expected.read(table))
    with sqlite3.connect(tmp_path / "killed") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(found.equity()) == 25
