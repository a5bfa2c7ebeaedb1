"""The ledger of trials: what was tried on which bars, to judge the best of many as such."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from maml_jax.errors import RunError
from maml_jax.experiment.config.config import Config

LEDGER = "trials.jsonl"

_LOCK = ".trials.lock"
_PATIENCE = 60.0
"""Seconds to wait for another process to write its line."""

_INDIFFERENT = {
    "data": ("path", "store"),
    "learner": ("methods",),
    "training": ("chunk", "devices", "tensorboard"),
    "backtest": ("chunk", "devices", "samples", "baselines", "capital"),
}
"""Settings that do not decide what a method earns per bar."""

_OF_VALIDATION = ("validation", "patience", "checkpoint_every")
"""Settings of `training` that decide nothing without validation."""


class Trial(NamedTuple):
    """One method with its settings, tried on some bars.

    Attributes:
        data: digest of the bars that it was judged on, from `data_digest`.
        settings: digest of its settings, from `settings_digest`.
        method: its name.
        sharpe: net Sharpe ratio per bar; None where there is none, as without a trade.
        bars: on how many.
    """

    data: str
    settings: str
    method: str
    sharpe: float | None
    bars: int


class Trials(NamedTuple):
    """What was tried on the same bars.

    Attributes:
        number: distinct trials: the same method with the same settings counts once.
        variance: of their Sharpe ratios per bar (ddof 1), 0 for fewer than two.
        damaged: lines of the ledger that cannot be read and do not count.
    """

    number: int
    variance: float
    damaged: int = 0


def data_digest(closes: pd.DataFrame) -> str:
    """Return a digest of test bars.

    Args:
        closes: `[time, asset]`, NaN where an asset has no bar; in any order of assets.
    """
    closes = closes.sort_index(axis="columns")
    seen = hashlib.sha256(json.dumps([str(name) for name in closes.columns]).encode())
    seen.update(pd.DatetimeIndex(closes.index).as_unit("ns").asi8.tobytes())
    # One pattern of bits for each value, NaN and 0 among them.
    values = np.where(closes.isna(), np.nan, closes.to_numpy(np.float64)) + 0.0
    seen.update(np.ascontiguousarray(values).tobytes())
    return seen.hexdigest()[:16]


def settings_digest(config: Config) -> str:
    """Return a digest of the settings that decide the returns of a method.

    The seed counts: to choose among seeds is to choose.
    """
    settings = config.model_dump(mode="json")
    for section, names in _INDIFFERENT.items():
        for name in names:
            settings[section].pop(name, None)
    if not config.training.validation:
        for name in _OF_VALIDATION:
            settings["training"].pop(name)
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def trials_of(
    config: Config, net: pd.DataFrame, methods: Sequence[str], closes: pd.DataFrame
) -> list[Trial]:
    """Return the trials that a run makes.

    Args:
        config: its settings, with what was left open filled in.
        net: net returns per bar, `[time, strategy]`.
        methods: which of the columns were tried; baselines are not.
        closes: of the test bars, `[time, asset]`.
    """
    data, settings = data_digest(closes), settings_digest(config)
    return [Trial(data, settings, name, _sharpe(net[name]), len(net)) for name in methods]


def record(folder: str | Path, trials: Sequence[Trial]) -> None:
    """Add trials to the ledger of a folder; those that it holds stay as they are.

    Lines are added whole, one process at a time. A line that a killed process left unfinished is
    closed first, so that it spoils no other.

    Raises:
        RunError: if the ledger cannot be written, or another process holds it for a minute.
    """
    path = Path(folder) / LEDGER
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / _LOCK, timeout=_PATIENCE):
            known, _ = _read(path)
            added = {_key(each): each for each in trials if _key(each) not in known}
            if not added:
                return
            with path.open("ab+") as file:
                file.seek(0, os.SEEK_END)
                if file.tell():
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
                lines = (json.dumps(each._asdict(), allow_nan=False) for each in added.values())
                file.write("".join(f"{line}\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())
    except Timeout:
        raise RunError(
            f"{path}: another process has been writing it for {_PATIENCE:g} s; delete "
            f"{path.parent / _LOCK} if there is none"
        ) from None
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


def count(folder: str | Path, data: str, own: Sequence[Trial] = ()) -> Trials:
    """Count what the ledger of a folder says was tried on the same bars.

    Args:
        folder: what holds the ledger; without one nothing was tried.
        data: from `data_digest`.
        own: trials that count although the ledger may lack them.

    Raises:
        RunError: if the ledger is there and cannot be read.
    """
    path = Path(folder) / LEDGER
    known, damaged = _read(path)
    known = {_key(each): each for each in own} | known
    return _summarise([each for each in known.values() if each.data == data], damaged)


def count_alone(trials: Sequence[Trial]) -> Trials:
    """Count trials without a ledger, all on the same bars."""
    return _summarise(list({_key(each): each for each in trials}.values()), 0)


def _summarise(trials: list[Trial], damaged: int) -> Trials:
    sharpes = [each.sharpe for each in trials if each.sharpe is not None]
    variance = float(np.var(sharpes, ddof=1)) if len(sharpes) > 1 else 0.0
    return Trials(len(trials), variance, damaged)


def _read(path: Path) -> tuple[dict[tuple[str, str, str], Trial], int]:
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}, 0
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error
    found, damaged = {}, 0
    for line in text.split(b"\n"):
        if not line.strip():
            continue
        trial = _parse(line)
        if trial is None:
            damaged += 1
        else:
            found.setdefault(_key(trial), trial)
    return found, damaged


def _parse(line: bytes) -> Trial | None:
    try:
        entry: Any = json.loads(line)
        trial = Trial(**{name: entry[name] for name in Trial._fields})
    except (ValueError, KeyError, TypeError):
        return None
    words = (trial.data, trial.settings, trial.method)
    sharpe = trial.sharpe
    if not all(isinstance(word, str) for word in words):
        return None
    if sharpe is not None and not (isinstance(sharpe, int | float) and np.isfinite(sharpe)):
        return None
    return trial


def _key(trial: Trial) -> tuple[str, str, str]:
    return trial.data, trial.settings, trial.method


def _sharpe(net: pd.Series) -> float | None:
    values = net.to_numpy(float)
    if len(values) < 2 or not np.isfinite(values).all() or np.ptp(values) == 0:
        return None
    return float(values.mean() / values.std(ddof=1))
