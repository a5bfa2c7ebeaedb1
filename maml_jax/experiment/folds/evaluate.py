"""What the folds of a run predict, joined and judged as one."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from maml_jax.backtest.metrics import sharpe_ratio
from maml_jax.experiment.evaluation.evaluate import (
    Evaluation,
    evaluate,
    evaluate_forecasts,
    net_returns,
)
from maml_jax.experiment.evaluation.forecasts import Forecasts, predict_all
from maml_jax.experiment.evaluation.predicted import Predicted
from maml_jax.experiment.folds.prepare import Folds, merge_notes
from maml_jax.experiment.learning.step_errors import adaptation_errors
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.experiment.timing import stage
from maml_jax.meta.types import Params
from maml_jax.notes import Note


def evaluate_folds(
    folds: Folds, trained: Sequence[Mapping[str, Params]], *, ledger: Path | None = None
) -> Evaluation:
    """Walk forward with every fold's meta-parameters, and judge all test spans as one.

    Positions are held on from one fold to the next. Of combinatorial folds the tables are those of
    the first path, and `overfitting["paths"]` holds every strategy's Sharpe ratio on each path.

    Args:
        folds: as they were prepared.
        trained: meta-parameters of each part, by method, the headline first.
        ledger: as for `evaluate`.
    """
    if folds.joined is folds.parts[0]:
        return evaluate(folds.joined, trained[0], ledger=ledger)
    pieces = [
        [
            predict_all(piece, params)
            for piece in (_restrict_test(part, *stretch) for stretch in part.spans.testing())
        ]
        for part, params in zip(folds.parts, trained, strict=True)
    ]
    paths = [join_forecasts(folds, chosen) for chosen in _along_paths(folds, pieces)]
    with stage("errors after each step"):
        adaptation = _average_adaptation(folds, trained)
    found = evaluate_forecasts(folds.joined, paths[0], ledger=ledger)
    found = found._replace(adaptation=adaptation)
    if len(paths) == 1:
        return found
    with stage("trading on other paths"):
        net = [found.returns, *(net_returns(folds.joined, path) for path in paths[1:])]
    return _with_paths(found, net, folds.joined.bars_per_year)


def _restrict_test(part: Prepared, first: pd.Timestamp, last: pd.Timestamp) -> Prepared:
    """Return a fold with one of the stretches that it tests as its test span."""
    times = part.panel.timestamps
    return part._replace(
        test_first=int(times.searchsorted(first)),
        test_last=int(times.searchsorted(last, side="right")) - 1,
    )


def _along_paths(folds: Folds, pieces: list[list[Forecasts]]) -> list[list[Forecasts]]:
    """List the forecasts that make up each path, in the order of time."""
    if folds.paths is None:
        return [[each for part in pieces for each in part]]
    # The groups that a fold tests, in order; its pieces stand in the same one.
    tested = [np.flatnonzero((folds.paths == n).any(axis=0)).tolist() for n in folds.numbers]
    return [
        [pieces[number][tested[number].index(group)] for group, number in enumerate(path)]
        for path in folds.paths
    ]


def join_forecasts(folds: Folds, pieces: Sequence[Forecasts]) -> Forecasts:
    """Join forecasts over test spans that follow each other.

    A strategy has none in a fold, and an asset has none in a fold that had no room for it.

    Args:
        folds: with the span and the assets to lay them out on.
        pieces: forecasts of each test span.

    Raises:
        ValueError: if a bar is tested twice.
    """
    joined = folds.joined
    span = slice(joined.test_first, joined.test_last + 1)
    index, assets = joined.panel.timestamps[span], joined.test_assets

    def lay_out(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
        table = pd.concat(tables)
        if not table.index.is_unique:
            raise ValueError(f"tested twice: {table.index[table.index.duplicated()][0]}")
        return table.reindex(index=index, columns=assets)

    predicted = {}
    for name in dict.fromkeys(name for piece in pieces for name in piece.predicted):
        found = [piece.predicted[name] for piece in pieces if name in piece.predicted]
        deviations = [each.std for each in found if each.std is not None]
        predicted[name] = Predicted(
            lay_out([each.mean for each in found]), lay_out(deviations) if deviations else None
        )
    notes = [each.notes for each in pieces]
    if folds.paths is None:
        return Forecasts(predicted, merge_notes(notes, folds.numbers))
    return Forecasts(predicted, merge_notes(notes, range(len(pieces)), of="Group"))


def _average_adaptation(folds: Folds, trained: Sequence[Mapping[str, Params]]) -> pd.DataFrame:
    """Average the errors of tasks of all test spans, each task counting the same."""
    every = [
        adaptation_errors(_restrict_test(part, *stretch), params)
        for part, params in zip(folds.parts, trained, strict=True)
        for stretch in part.spans.testing()
    ]
    found = [errors for errors in every if errors.tasks]
    if not found:
        return every[0].table
    tasks = np.array([errors.tasks for errors in found], float)
    total = sum(errors.table * count for errors, count in zip(found, tasks, strict=True))
    return pd.DataFrame(total / tasks.sum())


def _with_paths(found: Evaluation, net: Sequence[pd.DataFrame], bars_per_year: float) -> Evaluation:
    """Add how results differ from path to path."""
    sharpe = {
        name: [float(sharpe_ratio(each[name], bars_per_year)) for each in net]
        for name in net[0].columns
    }
    headline = next(iter(sharpe))
    ratios = np.array(sharpe[headline])
    text = (
        f"Combinatorial folds: {headline} had Sharpe ratios from {ratios.min():.2f} to "
        f"{ratios.max():.2f} on {len(ratios)} paths, {np.median(ratios):.2f} in the middle; the "
        "tables are of the first path. Folds are trained on what came later too: no walk-forward."
    )
    return found._replace(
        overfitting={**found.overfitting, "paths": sharpe},
        notes=(Note("paths", text), *found.notes),
    )
