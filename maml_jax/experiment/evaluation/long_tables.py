"""Tables with a row per strategy, asset and bar; names are categories, of a byte or two each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from maml_jax.experiment.evaluation.accounts import Traded
from maml_jax.experiment.evaluation.predicted import Predicted


def long_predictions(
    predicted: Mapping[str, Predicted],
    decisions: Mapping[str, pd.DataFrame],
    targets: pd.DataFrame,
) -> pd.DataFrame:
    """Return what was predicted, decided and came, at each bar with a prediction.

    Args:
        predicted: of each strategy, `[time, asset]`.
        decisions: of each strategy, likewise.
        targets: what came, likewise; NaN where it is not known.
    """
    tables = []
    for name, (mean, std) in predicted.items():
        rows = np.flatnonzero(mean.notna().to_numpy().T)
        columns = {"prediction": mean, **({} if std is None else {"std": std})}
        columns |= {"position": decisions[name], "target": targets}
        table = _rows(mean, rows, columns)
        table.insert(2, "strategy", _category(name, predicted, len(rows)))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def long_weights(traded: Traded) -> pd.DataFrame:
    """Return what every strategy held of each asset at each bar, and what it had ordered."""
    tables = []
    for name, account in traded.accounts.items():
        rows = np.arange(account.weights.size)
        columns = {"order": traded.orders[name], "weight": account.weights}
        table = _rows(account.weights, rows, columns)
        table.insert(1, "strategy", _category(name, traded.accounts, len(rows)))
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def long_trades(traded: Traded) -> pd.DataFrame:
    """Return the trades of all strategies."""
    tables = []
    for name, account in traded.accounts.items():
        made = account.trades.copy(deep=False)
        made.insert(0, "strategy", _category(name, traded.accounts, len(made)))
        tables.append(made)
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _rows(like: pd.DataFrame, rows: np.ndarray, columns: Mapping[str, pd.DataFrame]) -> Any:
    """Lay out tables `[time, asset]` asset by asset, those rows of them that are asked for."""
    times = len(like)
    values = {name: table.to_numpy(float).T.ravel()[rows] for name, table in columns.items()}
    asset = pd.Categorical.from_codes(rows // max(times, 1), like.columns)  # pyright: ignore
    return pd.DataFrame({"timestamp": like.index[rows % max(times, 1)], "asset": asset, **values})


def _category(name: str, names: Mapping[str, Any], length: int) -> Any:
    """Return a column that holds one of some names everywhere."""
    place = list(names).index(name)
    return pd.Categorical.from_codes(np.full(length, place), pd.Index(list(names)))  # pyright: ignore
