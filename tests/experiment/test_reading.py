"""How files are read is a matter of settings, and what the reader did is in the notes."""

import pandas as pd
import pytest
from helpers import random_bars, random_market

from maml_jax.errors import ConfigError
from maml_jax.experiment import load_config
from maml_jax.experiment.preparation.bars import load_bars, prepare_market


def test_settings_say_what_columns_hold(tmp_path):
    bars = random_bars(count=80)
    table = bars.reset_index()[["timestamp", "close", "volume"]]
    table["close"] = table["close"].map("{:.4f}".format).str.replace(".", ",")
    table["timestamp"] = table["timestamp"].dt.strftime("%d/%m/%Y")
    names = {"timestamp": "Tag", "close": "Kurs", "volume": "Stueck"}
    table.rename(columns=names).to_csv(tmp_path / "X.csv", index=False, sep=";")
    data = {"path": str(tmp_path / "X.csv"), "columns": names, "decimal": ",",
            "date_format": "%d/%m/%Y"}  # fmt: skip
    config = load_config({"data": data})
    read = load_bars(config)["X"]
    pd.testing.assert_frame_equal(read, bars[["close", "volume"]], check_freq=False, atol=1e-4)
    (tmp_path / "again.toml").write_text(config.to_toml())
    assert load_config(tmp_path / "again.toml").data == config.data
    # Bars in normal form, passed in memory, are read by the same settings:
    assert load_bars(config, {"X": read})["X"].equals(read)
    with pytest.raises(ConfigError, match=r"columns.*no key 'cloze'.*adj_close"):
        load_config({"data": {"columns": {"cloze": "x"}}})


def test_a_run_of_one_asset_is_told_that_it_cannot_learn_from_others():
    market = random_market(count=300)
    first = next(iter(market))
    (note,) = [n for n in prepare_market(load_config({}), {first: market[first]}).notes
               if n.kind == "one asset"]  # fmt: skip
    assert first in note.text and "one asset" in note.text
    for notes in (
        prepare_market(load_config({}), market).notes,
        prepare_market(load_config({}), {first: market[first]}, trained=True).notes,
    ):
        assert not [each for each in notes if each.kind == "one asset"]


def test_what_the_reader_did_is_in_the_notes_of_a_run():
    market = random_market(count=300)
    tables = {name: bars.assign(turnover=1.0) for name, bars in market.items()}
    tables = {name: table.assign(open=table["open"].where(table.index.month > 1, 0.0))
              for name, table in tables.items()}  # fmt: skip
    config = load_config({})
    notes = [note.text for note in prepare_market(config, load_bars(config, tables)).notes]
    (unused,) = [text for text in notes if "'turnover'" in text]
    assert all(name in unused for name in market)
    assert any("no_open" in text and "(31)" in text for text in notes)
