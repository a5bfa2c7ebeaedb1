"""Columns that spaces separate."""

import pandas as pd
import pytest
from helpers import random_bars

from maml_jax.data import read_bars
from maml_jax.data.reading.spaces import split_spaces
from maml_jax.errors import DataError

BARS = random_bars(count=40, start="2024-01-01T00:00", step="h").round(3)
NAIVE = BARS.tz_localize(None)
LINES = [f"{t:%Y-%m-%d %H:%M} {' '.join(map(str, row))}" for t, *row in NAIVE.itertuples()]
FORMS = {
    "one space": "Date Time Open High Low Close Volume\n" + "\n".join(LINES),
    "one name for both": "Date Open High Low Close Volume\n" + "\n".join(LINES),
    "halves of days": "Date Time Open High Low Close Volume\n" + "\n".join(
        f"{t:%d-%b-%Y %I:%M %p} {' '.join(map(str, row))}" for t, *row in NAIVE.itertuples()
    ),
    "aligned": NAIVE.reset_index().to_string(index=False),
    "numbered": NAIVE.reset_index().to_string(),
    "unnamed index": BARS.rename_axis(None).to_string(),
    "named index": NAIVE.rename_axis("Date").to_string(),
    "names of two words": NAIVE.reset_index().rename(
        columns={"close": "Last Price", "open": "Open Price"}
    ).to_string(index=False, col_space=14),
    "blank lines": "\n\n" + NAIVE.reset_index().to_string() + "\n\n",
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_tables_aligned_with_spaces_are_read(tmp_path, form):
    path = tmp_path / "X.txt"
    path.write_text(FORMS[form])
    pd.testing.assert_frame_equal(read_bars(path)["X"], BARS, check_freq=False)


def test_a_line_keeps_its_number(tmp_path):
    path = tmp_path / "X.txt"
    lines = FORMS["named index"].splitlines()
    path.write_text(
        "\n".join([*lines[:9], lines[9].replace(lines[9].split()[2], "oops"), *lines[10:]])
    )
    with pytest.raises(DataError, match=r"line 10, column 'open': not a number: 'oops'"):
        read_bars(path)


@pytest.mark.parametrize(
    "text",
    [
        "Date Open\n2024-01-01 1 2\n2024-01-02 1 2\n",  # a name less than cells
        "Date Open Close\n2024-01-01 1 2\n2024-01-02 1\n",
        "Date Name Close\n2024-01-01 Coca Cola 1\n2024-01-02 Ford 2\n",
    ],
)
def test_spaces_that_may_be_part_of_cells_are_refused(tmp_path, text):
    path = tmp_path / "X.txt"
    path.write_text(text)
    assert split_spaces(text.encode(), "X") == text.encode()
    with pytest.raises(DataError, match="finds one column.*expected cells that are separated by"):
        read_bars(path)


def test_other_separators_come_first():
    for mark in ",;|\t":
        text = f"Date Time{mark}Open Price\n2024-01-01 00:00{mark}1\n".encode()
        assert split_spaces(text, "X") is text


def test_a_cell_that_is_missing_further_down_never_moves_the_others(tmp_path):
    path = tmp_path / "X.txt"
    lines = [f"{t:%Y-%m-%d} {i + 1}.5 {i + 2}.5 0" for i, t in enumerate(
        pd.date_range("2000-01-01", periods=3000))]  # fmt: skip
    lines[2500] = lines[2500].replace(" 2501.5", "       ")
    path.write_text("Date Open Close Extra\n" + "\n".join(lines))
    with pytest.raises(DataError, match=r"line 2502: has 3 cells that spaces separate.*have 4"):
        read_bars(path, missing="drop")
