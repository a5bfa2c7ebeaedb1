"""Bars of any kind, for a forecast of risk."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from maml_jax.data import as_bars, read_bars


def read_frames(
    bars: pd.DataFrame | Mapping[str, pd.DataFrame] | str | Path,
    **options,
) -> dict[str, pd.DataFrame]:
    """Return bars in normal form, by asset; missing closes are left as they are.

    Args:
        bars: a table, `{asset: table}`, or the path of a file or of the store.
        **options: of `read_bars`, for a file.

    Raises:
        DataError: as the readers.
        StoreError: if the store lacks what is named.
    """
    if isinstance(bars, str | Path):
        if Path(bars).exists():
            return read_bars(bars, **options)
        from maml_jax.experiment import load_config
        from maml_jax.experiment.preparation.bars import load_bars

        return load_bars(load_config({"data": {"path": str(bars)}}))
    if isinstance(bars, Mapping):
        rest = {name: frame for name, frame in bars.items() if not _is_normal(frame)}
        read = as_bars(rest) if rest else {}
        return {str(name): frame for name, frame in bars.items() if name not in rest} | read
    return as_bars(bars)


def _is_normal(frame: object) -> bool:
    """Say whether a frame can be taken as it is: checking hundreds of them takes seconds."""
    return (
        isinstance(frame, pd.DataFrame)
        and isinstance(frame.index, pd.DatetimeIndex)
        and str(frame.index.tz) == "UTC"
        and frame.index.is_unique
        and frame.index.is_monotonic_increasing
        and {"close"} <= {*frame.columns} <= {"open", "high", "low", "close", "volume"}
        and all(kind == "float64" for kind in frame.dtypes)
    )
