"""Tables of other models' forecasts are laid out, or refused by row and column."""

import numpy as np
import pandas as pd
import pytest

from maml_jax.backtest.baselines.young import forecaster
from maml_jax.errors import DataError

TIMES = pd.date_range("2024-01-01", periods=4, tz="UTC", name="timestamp")
ASSETS = ["B", "A"]


def table(**columns):
    rows = [(asset, time) for asset in "AB" for time in TIMES[:3]]
    frame = pd.DataFrame(rows, columns=["asset", "time"])
    frame["volatility"] = np.arange(1, 7) / 100
    frame["var_2.5"], frame["es_2.5"] = -frame.volatility, -2 * frame.volatility
    frame["var_1"], frame["es_1"] = -2 * frame.volatility, -3 * frame.volatility
    return frame.assign(**columns)


def test_forecasts_are_laid_out_by_asset_and_bar(tmp_path):
    frame = table()
    frame.loc[1, "volatility"] = np.nan
    frame["time"] = frame["time"].dt.tz_convert("America/New_York")
    mixed = frame.sample(frac=1, random_state=0)
    mixed.to_parquet(tmp_path / "forecasts.parquet")
    for given in (mixed, tmp_path / "forecasts.parquet", str(tmp_path / "forecasts.parquet")):
        found = forecaster(given, assets=ASSETS, times=TIMES)
        expected = [[0.04, 0.05, 0.06, np.nan], [0.01, np.nan, 0.03, np.nan]]
        np.testing.assert_allclose(np.exp(found.volatility), expected)
        assert found.levels == (0.01, 0.025)
        np.testing.assert_allclose(found.var[1, 0, :3], [-0.04, -0.05, -0.06])
        np.testing.assert_allclose(found.es[0, 1, :3], [-0.03, -0.06, -0.09])
        assert np.isnan(found.es[..., 3]).all()


def test_per_cent_a_year_become_logs_per_bar():
    frame = table(volatility=20.0)[["asset", "time", "volatility"]].astype({"time": str})
    found = forecaster(
        frame, assets=ASSETS, times=TIMES, unit="percent_per_year", bars_per_year=256
    )
    np.testing.assert_allclose(found.volatility[:, :3], np.log(0.2 / 16))
    assert found.levels == () and found.var.shape == (0, 2, 4)


def spoil(row, column, value):
    frame = table().astype({"asset": object})
    if column not in frame:
        frame[column] = frame["time"]
    if isinstance(value, str):
        frame[column] = frame[column].astype(object)
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (spoil(2, "asset", "Z"), r"row 3 \(Z, 2024-01-03.*\), column 'asset': Z .* one of.*B, A"),
        (spoil(4, "time", TIMES[0]), r"row 5 \(B, .*column 'time': .* this is the second"),
        (spoil(1, "time", TIMES[3] + pd.Timedelta("1D")), r"row 2 .*'time': 2024-01-05.*last"),
        (spoil(1, "time", TIMES[0] + pd.Timedelta("1h")), r"row 2 .*column 'time'.* time of a bar"),
        (spoil(1, "time", pd.NaT), r"row 2 .*column 'time'.*not a time"),
        (spoil(3, "made_at", TIMES[1]), r"row 4 .*column 'made_at': 2024-01-02.*at the latest"),
        (spoil(5, "volatility", -0.01), r"row 6 .*'volatility': -0.01 is not a vol.*above 0"),
        (spoil(5, "volatility", 0.0), r"row 6 .*above 0"),
        (spoil(0, "volatility", np.inf), r"row 1 .*'volatility': inf is not a finite number"),
        (spoil(0, "volatility", "n/a"), r"row 1 .*'volatility': n/a is not a finite number"),
        (spoil(3, "var_1", -np.inf), r"row 4 .*column 'var_1': -inf is not a finite number"),
        (spoil(3, "es_1", 0.3), r"row 4 .*column 'es_1': 0.3 is not at most var_1"),
        (table().drop(columns="time"), r"lack the columns \['time'\]"),
        (table().drop(columns="es_1"), r"'var_1' needs a column 'es_1'"),
        (table(var_x=0.0, es_x=0.0), "level in per cent"),
    ],
)  # fmt: skip
def test_what_is_impossible_is_refused_by_row_and_column(frame, message):
    with pytest.raises(DataError, match=message):
        forecaster(frame, assets=ASSETS, times=TIMES)


def test_files_and_units_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        forecaster(tmp_path / "none.parquet", assets=ASSETS, times=TIMES)
    (tmp_path / "text.parquet").write_text("asset,time")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        forecaster(tmp_path / "text.parquet", assets=ASSETS, times=TIMES)
    with pytest.raises(ValueError, match="needs bars_per_year"):
        forecaster(table(), assets=ASSETS, times=TIMES, unit="percent_per_year")
    with pytest.raises(ValueError, match="unit is"):
        forecaster(table(), assets=ASSETS, times=TIMES, unit="per_hour")  # type: ignore[arg-type]
