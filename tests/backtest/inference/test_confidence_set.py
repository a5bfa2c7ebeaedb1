"""The model confidence set: what is known to be in it, and the library's own."""

import numpy as np
import pandas as pd
import pytest
from arch.bootstrap import MCS

from maml_jax.backtest.inference import model_confidence_set


def losses(times=1500, *, seed=0):
    """Two equal models, a slightly worse one and a bad one, with errors in common."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((times, 1))
    table = common + 0.5 * rng.standard_normal((times, 4)) + [0.0, 0.0, 0.2, 1.0]
    return pd.DataFrame(table, columns=["a", "b", "worse", "bad"])


def test_the_best_stay_and_the_worse_leave():
    found = model_confidence_set(losses(), block=5, draws=300)
    assert found.index.tolist() == ["a", "b", "worse", "bad"]
    assert found["included"].tolist() == [True, True, False, False]
    assert found["p_value"].max() == 1.0 and (found.loc[["worse", "bad"], "p_value"] < 0.1).all()


def test_it_is_the_librarys_on_times_with_all_losses():
    table = losses(400)
    table.iloc[3, 1] = np.nan
    found = model_confidence_set(table, block=20, draws=200, seed=3, size=0.25)
    library = MCS(table.dropna(), 0.25, reps=200, block_size=20, seed=3)
    library.compute()
    assert set(found.index[found["included"]]) == set(library.included)
    expected = library.pvalues["Pvalue"].reindex(table.columns)
    np.testing.assert_array_equal(found["p_value"], expected)
    np.testing.assert_allclose(found["loss"], table.dropna().mean())


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (losses()[["a"]], {}, "needs 2 models"),
        (losses(100), {}, "126 times"),
        (losses().assign(bad=np.inf), {}, "loss of bad at 0 is infinite"),
        (losses().assign(c=losses()["a"]), {}, "c: the losses are those of another"),
        (losses(), {"size": 0.0}, "between 0 and 1"),
    ],
)
def test_impossible_losses_are_refused(table, settings, message):
    with pytest.raises(ValueError, match=message):
        model_confidence_set(table, **settings)
