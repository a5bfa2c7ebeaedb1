"""Tasks of meta-training that were skipped since their loss or gradient is not finite."""

from typing import Any

import numpy as np
import pandas as pd

from maml_jax.errors import TrainingError
from maml_jax.experiment.preparation.prepare import Prepared
from maml_jax.listing import join_names
from maml_jax.meta import MetaInfo
from maml_jax.meta.scan import step_key
from maml_jax.notes import Note
from maml_jax.tasks import MarketSampler, Windows

RECENT = 20
"""Steps of which no more than half of the tasks may be skipped."""

IN_A_ROW = 5
"""Steps in a row of which all tasks were skipped that end a training."""

SKIPPED = "skipped tasks"
"""The kind of the note on tasks that were skipped."""

_NAMED = 3
"""Tasks that are named at a time."""


class TaskPlaces:
    """Says which assets and dates the tasks of a meta-step were cut from."""

    def __init__(self, prepared: Prepared, windows: Windows, sampler: MarketSampler, key: Any):
        """Name the tasks.

        Args:
            prepared: settings and panel.
            windows: of the tasks.
            sampler: draws from them.
            key: of the training.
        """
        self._panel, self._windows = prepared.panel, windows
        self._sampler, self._key = sampler, key

    def describe(self, step: int, tasks: list[int]) -> str:
        """Name the first few tasks of a meta-step, as in `A1 2020-01-02 to 2020-03-04`."""
        drawn = self._sampler.draw(step_key(self._key, step)).tolist()
        panel, rows, places = self._panel, self._windows.rows, []
        for task in tasks[:_NAMED]:
            window = drawn[task]
            number = np.append(self._windows.support_rows(window), self._windows.query_rows(window))
            asset = np.searchsorted(rows.first, number, side="right") - 1
            time = rows.time[asset, number - rows.first[asset]]
            names = join_names(panel.assets[each] for each in np.unique(asset))
            first, last = panel.timestamps[time.min()], panel.timestamps[time.max()]
            places.append(f"{names} {first} to {last}")
        return "; ".join(places)


def describe_skipped(history: MetaInfo, places: TaskPlaces, first_step: int) -> list[str]:
    """Return, for each step of a history, which of its tasks were skipped; "" for none.

    Args:
        history: of the steps, on the host.
        places: of their tasks.
        first_step: the number of the first of them.
    """
    texts = []
    for row, skipped in enumerate(np.asarray(history.skipped)):
        bad = np.flatnonzero(~np.isfinite(history.task_loss[row])).tolist()
        text = places.describe(first_step + row, bad) if skipped and bad else ""
        texts.append(text or ("tasks whose gradient is not finite" if skipped else ""))
    return texts


def find_run(skipped: np.ndarray, tasks: int, ended: bool) -> int | None:
    """Return the first step of a run of bad tasks that ends a training; None where there is none.

    Args:
        skipped: how many tasks of each step so far were skipped, `[step]`.
        tasks: of a step.
        ended: whether the training is over.
    """
    steps = np.arange(len(skipped))
    before = np.append(0, np.cumsum(skipped))
    begin = np.maximum(steps - RECENT + 1, 0)
    many = 2 * (before[1:] - before[begin]) > tasks * (steps - begin + 1)
    many &= (steps >= IN_A_ROW - 1) | (ended & (steps == len(steps) - 1))
    full = np.append(0, np.cumsum(skipped == tasks))
    many |= full[1:] - full[np.maximum(steps - IN_A_ROW + 1, 0)] >= IN_A_ROW
    if not many.any():
        return None
    last = int(many.argmax())
    return int(begin[last] + np.flatnonzero(skipped[begin[last] : last + 1])[0])


def require_few(
    table: pd.DataFrame, tasks: int, method: str, history: MetaInfo, ended: bool
) -> None:
    """Refuse to go on with a training most of whose latest tasks are bad.

    Args:
        table: one row per step so far: `skipped`, and `bad`, their names.
        tasks: of a step.
        method: what is trained.
        history: of the latest steps.
        ended: whether there are no more.

    Raises:
        TrainingError: naming the step, the asset and the dates.
    """
    skipped = table["skipped"].to_numpy()
    step = find_run(skipped, tasks, ended)
    if step is None:
        return
    row = step - (len(table) - len(history.loss))
    bad = np.flatnonzero(~np.isfinite(history.task_loss[row])).tolist() if row >= 0 else []
    until = min(step + RECENT, len(table))
    what = f"the loss of task {join_names(bad)} of {tasks}" if bad else f"{skipped[step]} gradients"
    total, every = int(skipped[step:until].sum()), (until - step) * tasks
    raise TrainingError(
        f"{method}: meta-training stopped at step {step}: {what} "
        f"{'is' if bad else 'are'} not finite, and {total:,} of the {every:,} tasks "
        f"of steps {step} to {until - 1} are bad. Try a smaller inner learning rate, fewer "
        "inner steps, a smaller outer learning rate or a smaller max_grad_norm, and look for "
        f"extreme values in the bars of that task [task: {table['bad'].iloc[step]}]",
        step=step,
        tasks=bad,
    )


def note_skipped(table: pd.DataFrame, tasks: int, method: str) -> list[Note]:
    """Return the note on the tasks that a training skipped, if there were any."""
    bad = table[table["skipped"] > 0]
    if not len(bad):
        return []
    places = join_names(dict.fromkeys("; ".join(bad["bad"]).split("; ")), _NAMED)
    total, every = int(bad["skipped"].sum()), len(table) * tasks
    return [
        Note(
            SKIPPED,
            f"{method}: skipped {total:,} of {every:,} tasks of meta-training, whose loss or "
            f"gradient is not finite: {places}; look for extreme values there.",
        )
    ]
