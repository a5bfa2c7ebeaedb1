"""Scaling: standardised by what it was fitted on."""

import numpy as np
import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.errors import DataError
from maml_jax.features import compute_features, fit_scaler, technical_features
from maml_jax.features.scaling import scaler_from_dict, scaler_to_dict

CATALOGUE = technical_features()


def test_scaling_standardises_what_it_was_fitted_on_and_clips():
    table = compute_features(random_bars(count=500), list(CATALOGUE.values()))
    scaler = fit_scaler([table], clip=None)
    scaled = scaler.transform(table).dropna()
    np.testing.assert_allclose(scaled.mean(), 0, atol=1e-9)
    np.testing.assert_allclose(scaled.std(ddof=0), 1, rtol=1e-9)
    assert scaler._replace(clip=2.0).transform(table).abs().max(axis=None) == 2.0
    restored = scaler_from_dict(scaler_to_dict(scaler))
    pd.testing.assert_frame_equal(restored.transform(table), scaler.transform(table))


def test_scaling_refuses_other_features_and_passes_constants():
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 3.0]})
    scaler = fit_scaler([table])
    assert scaler.transform(table)["b"].tolist() == [0, 0]
    with pytest.raises(DataError, match=r"fitted on features \['a', 'b'\]"):
        scaler.transform(table[["b", "a"]])
