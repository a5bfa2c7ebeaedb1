"""Names of columns are read as words, in any spelling."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_jax.data.names import ADJUSTED, OTHER, field_of, is_symbol, split_asset, time_rank

WORDS = {
    ("open",): "open", ("opening", "price"): "open", ("px", "open"): "open",
    ("day", "high"): "high", ("high", "price"): "high", ("mid", "low"): "low", ("low",): "low",
    ("px", "last"): "close", ("last", "price"): "close", ("settlement", "price"): "close",
    ("official", "close"): "close", ("bid", "close"): "close", ("price",): "close",
    ("adj", "close"): ADJUSTED, ("adjusted", "close", "price"): ADJUSTED,
    ("tick", "volume"): "volume", ("base", "volume"): "volume", ("px", "volume"): "volume",
    ("quote", "asset", "volume"): OTHER, ("taker", "buy", "base"): OTHER, ("open", "int"): OTHER,
    ("prev", "close"): OTHER, ("number", "of", "trades"): OTHER, ("average", "price"): OTHER,
    ("market", "cap"): OTHER, ("change", "percent"): OTHER, ("turnover",): OTHER,
}  # fmt: skip
STYLES = {
    "snake": lambda words: "_".join(words),
    "dots": lambda words: ".".join(word.title() for word in words),
    "camel": lambda words: words[0] + "".join(word.title() for word in words[1:]),
    "pascal": lambda words: "".join(word.title() for word in words),
    "capitals": lambda words: "_".join(words).upper(),
    "joined": lambda words: "".join(words),
    "angles": lambda words: f"<{''.join(words).upper()}>",
    "numbered": lambda words: f"3. {' '.join(words)}",
    "spanned": lambda words: f"(1d) {' '.join(words)}",
    "starred": lambda words: f"{' '.join(words).title()}**",
    "padded": lambda words: f"  {'-'.join(words)} ",
}


@pytest.mark.parametrize("style", STYLES)
def test_a_field_is_known_in_every_style(style):
    for words, role in WORDS.items():
        field = field_of(STYLES[style](words))
        assert field is not None and field.role == role, (words, field)


@given(st.text("ABDEFGJKMNQRSUWXYZ", min_size=2, max_size=5), st.sampled_from("./-: _"))
@settings(max_examples=60, deadline=None)
def test_a_strange_word_makes_a_name_that_of_an_asset_or_splits_off(asset, gap):
    if field_of(asset) is not None or field_of(f"{asset}{gap}close") is not None:
        return  # a word of bars by chance, such as QTY or USD
    assert field_of(asset) is None
    assert split_asset(f"{asset}{gap}Adj{gap}Close") == (asset, field_of("adj close"))
    assert split_asset(f"volume{gap}{asset}") == (asset, field_of("volume"))


@pytest.mark.parametrize("name", ["AAPL", "BTC/USDT", "SP500", "VIXCLS", "REAL", "BASE", "X1", ""])
def test_names_of_assets_are_no_fields(name):
    assert field_of(name) is None


def test_names_of_times_are_ranked_and_those_of_later_moments_left():
    names = ["snapped_at", "observation_date", "window_start", "timestamp_utc", "TradeDate", 
             "Datum", "<DTYYYYMMDD>", "start_ts", "Open Time", "gmtTime"]  # fmt: skip
    assert all(time_rank(name) is not None for name in names)
    assert all(time_rank(name) is None for name in ["close_time", "expiry date", "AAPL", "close"])
    ranks = [time_rank(name) for name in ("timestamp", "Date", "unix", "observation_date")]
    assert ranks == sorted(ranks, key=lambda rank: -1 if rank is None else rank)


def test_names_of_symbols():
    yes = ["Symbol", "ticker", "instrument_id", "ts_code", "Stock Code", "sym"]
    assert all(map(is_symbol, yes))
    assert not any(map(is_symbol, ["close", "exchange", "AAPL", "id"]))
