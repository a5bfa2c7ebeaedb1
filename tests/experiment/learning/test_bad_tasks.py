"""One bad task is skipped and named; a run of them ends the training."""

import numpy as np
import pytest
from market import MARKET, SMALL

from maml_jax.errors import TrainingError
from maml_jax.experiment.config.loading import load_config
from maml_jax.experiment.learning.bad_tasks import SKIPPED, find_run
from maml_jax.experiment.learning.tasks import (
    training_windows,
    validation_start,
    validation_windows,
)
from maml_jax.experiment.learning.train import train_method
from maml_jax.experiment.preparation.prepare import prepare

pytestmark = pytest.mark.long


def prepared(**changes):
    return prepare(load_config(SMALL, changes), MARKET)


@pytest.mark.slow
@pytest.mark.long
def test_a_bad_task_is_skipped_counted_and_named():
    part = prepared(**{"training.steps": 12, "training.checkpoint_every": 6})
    targets = np.array(part.panel.targets)
    targets[part.panel.assets.index("A1"), 20:150] = 1e30  # whose loss overflows
    part = part._replace(panel=part.panel._replace(targets=targets))
    trained = train_method(part, "maml")
    skipped = int(trained.history["skipped"].sum())
    assert 0 < skipped < 20
    (note,) = trained.notes
    assert note.kind == SKIPPED
    assert note.text.startswith(f"maml: skipped {skipped} of 48 tasks of meta-training")
    assert ": A1 2020-" in note.text and "A0" not in note.text
    assert all(np.isfinite(leaf).all() for leaf in trained.params["layers"][0].values())


@pytest.mark.long
def test_a_run_of_bad_tasks_stops_and_names_them():
    part = prepared(**{"training.steps": 12, "training.checkpoint_every": 6})
    targets = np.full(part.panel.targets.shape, 1e30, np.float32)
    part = part._replace(panel=part.panel._replace(targets=targets))
    message = (
        r"maml: meta-training stopped at step 0: the loss of task 0, 1, 2, 3 of 4 is not finite, "
        r"and 24 of the 24 tasks of steps 0 to 5 are bad\. Try .*\[task: A\d 2020-.* to 2020-"
    )
    with pytest.raises(TrainingError, match=message):
        train_method(part, "maml")


def naive_run(skipped, tasks, ended):
    for last in range(len(skipped)):
        recent = skipped[max(0, last - 19) : last + 1]
        row = skipped[max(0, last - 4) : last + 1]
        judged = len(recent) >= 5 or (ended and last == len(skipped) - 1)
        if (judged and 2 * sum(recent) > tasks * len(recent)) or row == [tasks] * 5:
            return next(n for n in range(max(0, last - 19), last + 1) if skipped[n])
    return None


def test_runs_of_bad_tasks_are_those_that_are_counted_one_by_one():
    draw, found = np.random.default_rng(0), []
    for _ in range(300):
        share, length = draw.uniform(0, 0.8), int(draw.integers(1, 60))
        skipped = draw.binomial(3, share, length)
        for ended in (False, True):
            expected = naive_run(skipped.tolist(), 3, ended)
            assert find_run(skipped, 3, ended) == expected
            found.append(expected is None)
    assert 0.2 < np.mean(found) < 0.8
    assert find_run(np.array([1, 0, 0, 0, 0, 0]), 1, True) is None  # one bad task is none


@pytest.mark.parametrize("family", ["asset", "month"])
def test_what_is_validated_on_is_not_trained_on(family):
    part = prepared(**{"training.validation": 0.25, "task.family": family})
    border = validation_start(part)
    assert border == round(0.75 * (part.train_last + 1))
    windows, tested = training_windows(part), validation_windows(part)
    whole = training_windows(prepared(**{"task.family": family}))
    assert windows.known.max() < border  # all labels are complete before
    assert len(tested.query) > 0 and tested.known.max() <= part.train_last
    rows = tested.rows
    there = np.arange(rows.time.shape[1]) < rows.count[:, None]
    time = rows.time[there][tested.entries]
    assert time[tested.query].min() >= border
    # Windows that reach over the border are neither trained nor validated on.
    assert len(windows.query) + len(tested.query) < len(whole.query)
