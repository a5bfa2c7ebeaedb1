"""The book of a paper account: a file of SQLite, to which each bar is added whole or not at all."""

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maml_jax.backtest.account.state import Held
from maml_jax.errors import RunError
from maml_jax.live.state import NOTHING, State, Step
from maml_jax.live.strategy import Decisions, Strategy

FORMAT = 1
_PRICES = ("open", "high", "low", "close", "volume")
_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE bars (time TEXT, asset TEXT, open REAL, high REAL, low REAL, close REAL, volume REAL,
                   PRIMARY KEY (time, asset)) WITHOUT ROWID;
CREATE TABLE decisions (time TEXT, asset TEXT, weight REAL, mean REAL, std REAL,
                        PRIMARY KEY (time, asset)) WITHOUT ROWID;
CREATE TABLE steps (time TEXT PRIMARY KEY, missed INTEGER NOT NULL, equity REAL NOT NULL,
                    held TEXT) WITHOUT ROWID;
CREATE TABLE fills (number INTEGER PRIMARY KEY, time TEXT, asset TEXT, units REAL, price REAL,
                    cost REAL, reason TEXT);
"""


class Book:
    """The bars seen, decisions, fills and equity of a paper account, and what it holds."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        """Open the file; what is written is there once the block ends, or not at all."""
        try:
            connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: cannot be opened: {error}") from error
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise RunError(f"{self.path}: {error}; is it the book of a paper account?") from error
        finally:
            connection.close()

    def exists(self) -> bool:
        """Say whether there is an account."""
        return self.path.exists()

    def create(self, strategy: Strategy, capital: float, run: str) -> None:
        """Begin an account.

        Args:
            strategy: that it follows.
            capital: money.
            run: digest of the run.

        Raises:
            RunError: if there is one already, or the file cannot be written.
        """
        about = {
            "format": FORMAT,
            "run": run,
            "method": strategy.method,
            "assets": list(strategy.assets),
            "since": strategy.since.isoformat(),
            "yearly": None if strategy.yearly is None else dict(strategy.yearly),
            "capital": capital,
            "settings": strategy.config.model_dump(mode="json"),
        }
        with self._connect() as connection:
            found = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if found:
                raise RunError(f"{self.path}: holds an account already; go on with it")
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            rows = [(key, json.dumps(value)) for key, value in about.items()]
            connection.executemany("INSERT INTO about VALUES (?, ?)", rows)

    def about(self) -> dict[str, Any]:
        """Return what the account was begun with.

        Raises:
            RunError: if it is no book, or one of a later version.
        """
        if not self.exists():
            raise RunError(f"{self.path}: no such book of a paper account")
        with self._connect() as connection:
            rows = connection.execute("SELECT key, value FROM about").fetchall()
        found = {key: json.loads(value) for key, value in rows}
        if found.get("format") != FORMAT:
            raise RunError(f"{self.path}: of another version ({found.get('format')})")
        return found

    def strategy(self, strategy: Strategy) -> Strategy:
        """Return a strategy as the account was begun with it: its assets, and since when."""
        about = self.about()
        return strategy._replace(
            assets=tuple(about["assets"]),
            since=pd.Timestamp(about["since"]),
            yearly=about["yearly"],
        )

    def add(self, state: State, step: Step) -> None:
        """Write a step: all of it, or nothing.

        Raises:
            RunError: if it cannot be written, or another process was there first.
        """
        texts = {time: time.isoformat() for time in step.times}
        decisions = step.decisions
        decided = set(decisions.weights.index)
        with self._connect() as connection:
            bars = [
                (texts[time], asset, *(_number(row.get(key)) for key in _PRICES))
                for asset, frame in state.seen.items()
                for time, row in _rows(frame.loc[step.times[0] :])
            ]
            connection.executemany("INSERT INTO bars VALUES (?, ?, ?, ?, ?, ?, ?)", bars)
            wanted = [
                (texts[time], *row)
                for time in step.times
                if time in decided
                for row in _decisions(decisions, time)
            ]
            connection.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", wanted)
            held: list[str | None] = [None] * len(step.times)
            held[-1] = _to_json(state.held)
            steps = [
                (texts[time], int(time not in decided), equity, now)
                for time, equity, now in zip(
                    step.times, step.traded.equity.to_numpy().tolist(), held, strict=True
                )
            ]
            connection.executemany("INSERT INTO steps VALUES (?, ?, ?, ?)", steps)
            fills = [
                (texts[time], asset, float(units), float(price), float(cost), reason)
                for time, asset, units, price, cost, reason in step.traded.fills.itertuples(
                    index=False
                )
            ]
            connection.executemany(
                "INSERT INTO fills (time, asset, units, price, cost, reason) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                fills,
            )

    def read(self, table: str) -> pd.DataFrame:
        """Return a table: `bars`, `decisions`, `steps` or `fills`, in the order of time."""
        with self._connect() as connection:
            cursor = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
            names = [column[0] for column in cursor.description]
            found = pd.DataFrame(cursor.fetchall(), columns=names)
        found["time"] = pd.to_datetime(found["time"], utc=True, format="ISO8601")
        return found

    def equity(self) -> pd.Series:
        """Return the money at each close, `[time]`."""
        return self.read("steps").set_index("time")["equity"]

    def state(self, strategy: Strategy, empty: State) -> State:
        """Return what the strategy carried after the last bar; `empty` before the first."""
        steps = self.read("steps")
        if steps.empty:
            return empty
        times = pd.DatetimeIndex(steps["time"], name=None)
        bars = self.read("bars")
        seen = {
            str(asset): frame.drop(columns="asset").set_index("time").dropna(axis=1, how="all")
            for asset, frame in bars.groupby("asset", sort=False)
        }
        made = self.read("decisions")
        columns = {
            asset: own.set_index("time")["weight"].reindex(times)
            for asset, own in made.groupby("asset")
        }
        nothing = pd.Series(np.nan, times)
        decided = pd.DataFrame({a: columns.get(a, nothing) for a in strategy.assets}, times)
        decided.index.name = None
        missed = times[steps["missed"].to_numpy(bool)]
        held = _from_json(steps["held"].iloc[-1])
        return State(seen, decided, missed if len(missed) else NOTHING, held)


def _rows(frame: pd.DataFrame) -> Iterator[tuple[pd.Timestamp, dict]]:
    yield from zip(frame.index, frame.to_dict("records"), strict=True)


def _decisions(decisions: Decisions, time: pd.Timestamp) -> list[tuple]:
    """Return asset, weight, mean and deviation of what was decided at a time."""
    weights = decisions.weights.loc[time].to_numpy(float)
    mean = decisions.mean.loc[time].to_numpy(float)
    std = np.full(len(mean), np.nan)
    if decisions.std is not None:
        std = decisions.std.loc[time].to_numpy(float)
    rows = zip(decisions.weights.columns, weights, mean, std, strict=True)
    return [(a, w, _number(m), _number(d)) for a, w, m, d in rows if w == w]


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _to_json(held: Held) -> str:
    """Write what is held; numbers come back as they were, to the last bit."""

    def plain(values: Any) -> Any:
        return None if values is None else np.asarray(values).tolist()

    return json.dumps({name: plain(values) for name, values in held._asdict().items()})


def _from_json(text: str) -> Held:
    record: Mapping[str, Any] = json.loads(text)
    return Held(**{name: None if v is None else np.asarray(v) for name, v in record.items()})
