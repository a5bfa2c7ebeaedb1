"""Bars of any kind, for a forecast of risk."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from maml_jax.data import as_bars, read_bars


def read_frames(
    bars: pd.DataFrame | Mapping[str, pd.DataFrame] | str | Path,
) -> dict[str, pd.DataFrame]:
    """Return bars in normal form, by asset; missing closes are left as they are.

    Raises:
        DataError: as the readers.
        StoreError: if the store lacks what is named.
    """
    if isinstance(bars, str | Path):
        if Path(bars).exists():
            return read_bars(bars)
        from maml_jax.experiment import load_config
        from maml_jax.experiment.preparation.bars import load_bars

        return load_bars(load_config({"data": {"path": str(bars)}}))
    return as_bars(bars)
