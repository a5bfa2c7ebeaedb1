"""The tables and figures of a run directory: written, read, and checked for their form."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas.api import types

from maml_jax.errors import RunError
from maml_jax.experiment.evaluation.evaluate import Evaluation
from maml_jax.notes import Note

HISTORY, METRICS, NOTES, CHOSEN = (
    "history.parquet",
    "metrics.json",
    "notes.json",
    "overfitting.json",
)

_NAME, _NUMBER, _WHOLE, _TIME, _FLAG = "name", "number", "whole number", "time", "yes or no"
_REST = ""
"""Stands for all columns of other names."""


class _Form(NamedTuple):
    """What a table must look like.

    Attributes:
        columns: what each holds.
        optional: columns that may be missing, likewise; under `_REST` what all others hold.
        index: what the index holds; "" where it does not matter.
        since: whether directories of earlier versions lack the table; then it may be empty too.
    """

    columns: dict[str, str]
    optional: dict[str, str] = {}
    index: str = ""
    since: bool = True


_BY_STRATEGY = _Form({}, {_REST: _NUMBER}, _TIME)
_BOUNDS = {"figure": _NAME, "value": _NUMBER, "low": _NUMBER, "high": _NUMBER}
_OWN = {"strategy": _NAME, "asset": _NAME}
_HISTORY = _Form({"method": _NAME, "step": _WHOLE, "loss": _NUMBER}, {_REST: _NUMBER}, since=False)
_TABLES = {
    "predictions": _Form(
        {"timestamp": _TIME, **_OWN, "prediction": _NUMBER, "position": _NUMBER, "target": _NUMBER},
        {_REST: _NUMBER},
        since=False,
    ),
    "returns": _BY_STRATEGY._replace(since=False),
    "gross": _BY_STRATEGY._replace(since=False),
    "trades": _Form(
        {**_OWN, "side": _NUMBER, "entry": _TIME, "exit": _TIME, "bars": _NUMBER, "gross": _NUMBER}
        | {"net": _NUMBER},
        {"reason": _NAME, "open": _FLAG, _REST: _NUMBER},
        since=False,
    ),
    "assets": _Form(_OWN, {"Start": _TIME, "End": _TIME, _REST: _NUMBER}, since=False),
    "regimes": _Form({"strategy": _NAME, "regime": _NAME, "bars": _WHOLE}, {_REST: _NUMBER}),
    "turnover": _BY_STRATEGY,
    "exposure": _BY_STRATEGY,
    "weights": _Form({"timestamp": _TIME, **_OWN, "order": _NUMBER, "weight": _NUMBER}),
    "adaptation": _Form({}, {_REST: _NUMBER}, _WHOLE),
    "intervals": _Form({"strategy": _NAME, **_BOUNDS}),
    "differences": _Form({"other": _NAME, **_BOUNDS}),
    "significance": _Form({}, {_REST: _NUMBER}, _NAME),
}


def write_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write the tables and figures of a walk-forward."""
    for name in _TABLES:
        getattr(evaluation, name).to_parquet(folder / f"{name}.parquet")
    chosen = json.dumps(_without_nan(dict(evaluation.overfitting)), indent=2, allow_nan=False)
    (folder / CHOSEN).write_text(chosen, encoding="utf-8")
    (folder / METRICS).write_text(_stats_to_json(evaluation.stats), encoding="utf-8")


def read_evaluation(folder: Path) -> Evaluation | None:
    """Read the tables and figures of a walk-forward; None where there was none.

    Raises:
        RunError: naming the file that is missing, cannot be read, or has another form.
    """
    if not (folder / METRICS).exists():
        return None
    tables: dict[str, Any] = {"regimes": pd.DataFrame()}  # of a run without any
    for name, form in _TABLES.items():
        file = folder / f"{name}.parquet"
        if file.exists() or not form.since:
            tables[name] = _read_table(file, form)
    if (folder / CHOSEN).exists():
        with _reading(folder / CHOSEN):
            tables["overfitting"] = _read_chosen(folder / CHOSEN)
    with _reading(folder / METRICS):
        stats = _stats_from_json((folder / METRICS).read_text(encoding="utf-8"))
    strategies = list(stats.columns)
    for name in ("returns", "gross", "turnover", "exposure"):
        table = tables.get(name, pd.DataFrame())
        if len(table.columns) and {*table.columns} != {*strategies}:
            raise RunError(
                f"{folder / name}.parquet: is of the strategies {list(table.columns)}, and "
                f"{METRICS} of {strategies}"
            )
    return Evaluation(stats=stats, **tables)


def read_history(folder: Path) -> pd.DataFrame:
    """Read the history of meta-training.

    Raises:
        RunError: if it is missing, cannot be read, or has another form.
    """
    return _read_table(folder / HISTORY, _HISTORY)


def read_notes(folder: Path) -> tuple[Note, ...]:
    """Read the notes of a run.

    Raises:
        RunError: if they are missing, cannot be read, or have another form.
    """
    with _reading(folder / NOTES):
        entries = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        _require(isinstance(entries, list), "not a list of notes")
        # Earlier versions wrote texts alone.
        notes = tuple(Note("", e) if isinstance(e, str) else Note(**e) for e in entries)
        whole = all(isinstance(text, str) for note in notes for text in note)
        _require(whole, "not a list of notes")
        return notes


def notes_to_json(notes: tuple[Note, ...]) -> str:
    """Write notes as JSON."""
    return json.dumps([note._asdict() for note in notes], indent=2)


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Raise as RunErrors, with the name of the file, whatever reading it raises."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # parsers have many ways to fail on a damaged file
        text = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        reason = text or type(error).__name__
        raise RunError(f"{file}: cannot be read: {reason}") from error


def _read_table(file: Path, form: _Form) -> pd.DataFrame:
    with _reading(file):
        table = pd.read_parquet(file)
        _require_form(table, form)
        return table


def _require_form(table: pd.DataFrame, form: _Form) -> None:
    """Refuse a table whose columns are not what they should be."""
    if form.since and not len(table.columns):
        return
    _require(all(isinstance(name, str) for name in table.columns), "its columns have no names")
    _require(table.columns.is_unique, "two of its columns have the same name")
    missing = [name for name in form.columns if name not in table.columns]
    _require(not missing, f"column {', '.join(map(repr, missing))} is missing")
    kinds = {**form.optional, **form.columns}
    for name in table.columns:
        kind = kinds.get(name, kinds.get(_REST))
        if kind is not None and len(table):  # what is empty has no type
            holds = _HOLDS[kind](table[name])
            _require(holds, f"column {name!r} holds {table[name].dtype}, and not {kind}s")
    if form.index and len(table):
        index = table.index
        holds = _HOLDS[form.index](index.to_series()) and index.is_unique
        _require(holds, f"its index holds {index.dtype}, and not different {form.index}s")
    if form.index == _TIME:
        _require(table.index.is_monotonic_increasing, "its times are not in order")


def _holds_names(column: pd.Series) -> bool:
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.categories.to_series()
    return types.is_string_dtype(column)


def _holds_numbers(column: pd.Series) -> bool:
    return types.is_numeric_dtype(column) or types.is_timedelta64_dtype(column)


_HOLDS: dict[str, Callable[[pd.Series], bool]] = {
    _NAME: _holds_names,
    _NUMBER: _holds_numbers,
    _WHOLE: types.is_integer_dtype,
    _TIME: types.is_datetime64_any_dtype,
    _FLAG: types.is_bool_dtype,
}


def _require(true: bool, otherwise: str) -> None:
    if not true:
        raise ValueError(otherwise)


def _without_nan(value: Any) -> Any:
    """Return what JSON can hold: None where a number is not finite."""
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_chosen(file: Path) -> dict[str, Any]:
    """Read what choosing the best method is worth: numbers by name, methods, paths by strategy."""
    record = json.loads(file.read_text(encoding="utf-8"))
    _require(isinstance(record, dict), "not an object")
    for key, value in record.items():
        if key == "methods":
            whole = isinstance(value, list) and all(isinstance(each, str) for each in value)
        elif key == "paths":
            whole = isinstance(value, dict) and all(
                isinstance(each, list) and all(map(_is_figure, each)) for each in value.values()
            )
        else:
            whole = _is_figure(value)
        _require(whole, f"{key!r} is not what it should be")
    return record


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _stats_to_json(stats: pd.DataFrame) -> str:
    def plain(value):
        if value is pd.NaT:  # such as how long trades lasted, where there are none
            return None
        if isinstance(value, pd.Timestamp | pd.Timedelta):
            return value.isoformat()
        value = value.item() if hasattr(value, "item") else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    record = {name: {k: plain(v) for k, v in stats[name].items()} for name in stats.columns}
    return json.dumps(record, indent=2, allow_nan=False)


def _stats_from_json(text: str) -> pd.DataFrame:
    def rich(key: str, value: Any) -> Any:
        if key in ("Start", "End") or key.endswith("Duration"):
            if value is None and key.endswith("Duration"):  # of no trade, or no fall
                return pd.NaT
            _require(isinstance(value, str), f"{key!r} is {value!r}, not a time")
            text = str(value)
            return pd.Timestamp(text) if key in ("Start", "End") else pd.Timedelta(text)
        _require(_is_figure(value), f"{key!r} is {value!r}, not a number")
        return float("nan") if value is None else value

    record = json.loads(text)
    _require(isinstance(record, dict) and len(record) > 0, "not the figures of strategies")
    columns = {}
    for name, figures in record.items():
        _require(isinstance(figures, dict), f"{name!r} has no figures")
        _require(_is_positive(figures.get("Bars per Year")), f"{name!r} has no 'Bars per Year'")
        columns[name] = pd.Series({k: rich(k, v) for k, v in figures.items()}, dtype=object)
    return pd.DataFrame(columns)


def _is_positive(value: Any) -> bool:
    return _is_figure(value) and value is not None and 0 < value < math.inf
