"""What is held, from files as people have them."""

import numpy as np
import pytest

from maml_jax.errors import DataError
from maml_jax.live.holdings import read_holdings


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "asset,units,entry\nA,10,5.5\nBRK.B,-2,\n"),
        ("a.csv", "Symbol;Qty;Avg Price\nA;10;5.5\nBRK.B;-2;\n"),
        ("a.tsv", "entry_price\tticker\tshares\n5.5\tA\t10\n\tBRK.B\t-2\n"),
        ("a.json", '[{"symbol": "A", "quantity": 10, "entry": 5.5}, {"symbol": "BRK.B", '
         '"quantity": -2}]'),
    ],
)  # fmt: skip
def test_columns_are_found_by_their_usual_names(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = read_holdings(tmp_path / name)
    assert found.units == {"A": 10.0, "BRK.B": -2.0}
    assert found.entry["A"] == 5.5
    assert np.isnan(found.entry["BRK.B"])


def test_json_of_units_alone(tmp_path):
    (tmp_path / "a.json").write_text('{"A": 3, "B": -1.5}')
    assert read_holdings(tmp_path / "a.json").units == {"A": 3.0, "B": -1.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("asset,weight\nA,1\n", "no column 'units'"),
        ("units\n1\n", "no column 'asset'"),
        ("asset,units\nA,1\nA,2\n", "A stands in two rows"),
        ("asset,units\nA,many\n", "row 1, column 'units': 'many'"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_holdings(tmp_path / "a.csv")
