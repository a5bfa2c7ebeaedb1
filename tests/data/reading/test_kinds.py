"""An asset is all of a file's name but its ending."""

import pytest
from helpers import random_bars

from maml_jax.data import read_bars
from maml_jax.data.reading.kinds import COMPRESSED, ENDINGS, split_name
from maml_jax.errors import DataError


@pytest.mark.parametrize(
    "asset", ["AAPL", "BRK.A", "7203.T", "BTC-USDT_1h", "^GSPC", "a b.c d", "日経"]
)
def test_every_known_ending_is_taken_off_and_nothing_else(asset):
    for kind, endings in ENDINGS.items():
        for ending in endings:
            assert split_name(f"x/{asset}{ending}") == (asset, kind)
            assert split_name(f"{asset}{ending.upper()}") == (asset, kind)
            for packed in COMPRESSED if kind in ("text", "json") else ():
                assert split_name(f"{asset}{ending}{packed}") == (asset, kind)
    assert split_name(f"{asset}.zip") == (asset, None)


@pytest.mark.parametrize("name", ["a", "a.doc", "a.gz", "a.parquet.gz", "a.xls", "a.csv.7z"])
def test_unknown_endings_are_refused(name):
    with pytest.raises(DataError, match=r"unknown kind of file.*\.csv.*\.parquet"):
        split_name(name)


def test_shares_of_one_company_are_two_assets(tmp_path):
    for name in ("BRK.A", "BRK.B"):
        random_bars(count=5).to_csv(tmp_path / f"{name}.csv")
    paths = sorted(tmp_path.iterdir())
    assert list(read_bars(paths)) == ["BRK.A", "BRK.B"]
    assert list(read_bars(paths[0], symbol="BRK")) == ["BRK"]
    with pytest.raises(DataError, match="symbol names the asset of one file"):
        read_bars(paths, symbol="BRK")
    with pytest.raises(DataError, match="skip_lines=True: must be the number of lines"):
        read_bars(paths, skip_lines=True)
