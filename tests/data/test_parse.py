"""Numbers as people write them, in one reading for the whole table."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_jax.data.options import Reading
from maml_jax.data.parse import glance, parse_numbers
from maml_jax.errors import DataError

READING = Reading("the table", lambda row: f"line {row + 2}")


def parse(cells, reading=READING, **others):
    columns = {"close": cells, **others}
    series = {name: pd.Series(list(each), name=name) for name, each in columns.items()}
    return parse_numbers(series, reading)["close"].to_numpy()


def write(value, mark, gap, decimals):
    text = f"{value:,.{decimals}f}"
    return text.replace(",", "\0").replace(".", mark).replace("\0", gap)


@given(
    st.lists(st.floats(0.01, 5e6), min_size=1, max_size=8),
    st.sampled_from([(".", ","), (",", "."), (".", ""), (",", ""), (",", "\N{NO-BREAK SPACE}"),
                     (".", "'"), (",", " ")]),
    st.sampled_from([2, 4]),
    st.sampled_from(["{}", "${}", "\N{EURO SIGN} {}", "{} \N{EURO SIGN}", "USD {}", "{} EUR", "-{}",
                     "({})", "\N{MINUS SIGN}{}"]),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_numbers_are_read_in_every_style(values, style, decimals, around):
    mark, gap = style
    values = [round(value, decimals) for value in values]
    cells = [around.format(write(value, mark, gap, decimals)) for value in values]
    sign = -1 if around[0] in "-(\N{MINUS SIGN}" else 1
    np.testing.assert_allclose(parse(cells), sign * np.array(values))
    np.testing.assert_allclose(
        parse(cells, READING._replace(decimal=mark)), sign * np.array(values)
    )
    np.testing.assert_allclose(glance(pd.Series(cells)), sign * np.array(values))


def test_one_clear_cell_of_a_table_decides_for_all():
    doubtful = ["1,234", "5,678"]
    np.testing.assert_allclose(parse(doubtful, other=["1.5", "2.5"]), [1234, 5678])
    np.testing.assert_allclose(parse(doubtful, other=["1,5", "2,5"]), [1.234, 5.678])
    np.testing.assert_allclose(parse(["947.625", "1.2"]), [947.625, 1.2])
    np.testing.assert_allclose(parse(["947.625"], other=["100,32"]), [947_625])
    np.testing.assert_allclose(parse(["12,34,567.5", "1,00,000"]), [1_234_567.5, 100_000])
    with pytest.raises(DataError, match=r"'1,234' may be thousands or a fraction.*data\.decimal"):
        parse(doubtful)
    np.testing.assert_allclose(parse(doubtful, READING._replace(decimal=",")), [1.234, 5.678])
    np.testing.assert_allclose(parse(doubtful, READING._replace(decimal=".")), [1234, 5678])
    with pytest.raises(DataError, match=r"'1,5' is written otherwise elsewhere.*data\.decimal"):
        parse(["1,5"], other=["1.5"])


@given(st.floats(0.001, 999), st.sampled_from("KMBTkmbt"), st.sampled_from(["", "n", " "]))
@settings(max_examples=40, deadline=None)
def test_letters_scale(value, letter, tail):
    cell = f"{value:.4f}{tail if tail == ' ' else ''}{letter}{tail if tail == 'n' else ''}"
    scale = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}[letter.lower()]
    np.testing.assert_allclose(parse([cell, "1.5"]), [float(f"{value:.4f}") * scale, 1.5])


def test_missing_cells_and_percentages():
    cells = ["1.5", "", ".", "-", "N/A", "nan", "#N/A N/A", "null", None, "\N{EM DASH}", "2"]
    read = parse(cells)
    assert np.isnan(read[1:-1]).all() and read[-1] == 2
    np.testing.assert_allclose(parse(["12.3%", "-1%", ""]), [12.3, -1, np.nan])


@pytest.mark.parametrize(
    ("cell", "said"),
    [("oops", "not a number"), ("1.2.3", "not a number"), ("1,2,3", "'1,2,3'"), ("12:30", "not a"),
     ("inf", "not a finite number"), ("5%", "not a number"), ("12 34", "not a number")],
)  # fmt: skip
def test_what_is_no_number_is_named_with_its_place(cell, said):
    with pytest.raises(DataError, match=f"line 3, column 'close'.*{said}|column 'close': {said}"):
        parse(["1.5", cell, "2.5"])
