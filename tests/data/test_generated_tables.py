"""Tables as people have them, and as they break: bars come of them, or one of our errors."""

import gzip
import io

import numpy as np
import pandas as pd
import pytest

from maml_jax.data import read_bars, to_bars
from maml_jax.data.bars import COLUMNS
from maml_jax.errors import MamlJaxError

MANY, FEW = 2400, 120

TIMES = {
    "iso": lambda t: t.strftime("%Y-%m-%d %H:%M:%S"),
    "iso zoned": lambda t: t.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "seconds": lambda t: t.as_unit("s").asi8,
    "milliseconds": lambda t: t.as_unit("ms").asi8,
    "microseconds": lambda t: t.as_unit("us").asi8,
    "day first": lambda t: t.strftime("%d.%m.%Y %H:%M"),
    "month first": lambda t: t.strftime("%m/%d/%Y %H:%M"),
    "words": lambda t: t.strftime("%b %d, %Y"),
    "compact": lambda t: t.strftime("%Y%m%d"),
    "serial": lambda t: (t - pd.Timestamp("1899-12-30")) / pd.Timedelta(days=1),
}
NUMBERS = {
    "plain": lambda v: repr(float(v)),
    "rounded": lambda v: f"{v:.2f}",
    "thousands": lambda v: f"{v:,.2f}",
    "comma": lambda v: f"{v:.3f}".replace(".", ","),
    "dollars": lambda v: f"${v:,.2f}",
    "exponent": lambda v: f"{v:.12e}",
}
SPELLINGS = {
    "open": ["open", "Open", "o", "PX_OPEN", "<OPEN>", "1. open", "Open Price", "first"],
    "high": ["high", "High", "h", "PX_HIGH", "<HIGH>", "2. high", "High Price", "max"],
    "low": ["low", "Low", "l", "PX_LOW", "<LOW>", "3. low", "Low Price", "min"],
    "close": ["close", "Close", "c", "PX_LAST", "<CLOSE>", "4. close", "Close/Last", "Price"],
    "volume": ["volume", "Volume", "v", "PX_VOLUME", "<VOL>", "5. volume", "Qty", "Vol."],
}
TIME_NAMES = ["timestamp", "Date", "time", "<DATE>", "Open time", "", "snapped_at", "when", "Index"]
JUNK = ["", "-", "n/a", ".", "NaN", "#REF!", "inf", "1e999", "0", "-5", "12,34,5", "\x00", "ä", '"']
ENCODINGS = ["utf-8"] * 6 + ["utf-8-sig", "utf-16", "latin-1", "gbk"]
SEPARATORS = [","] * 5 + [";", "\t", "|", " "]


def make_bars(rng, rows):
    """Draw bars of one asset, from minutes to weeks."""
    step = rng.choice(["min", "h", "D", "7D"])
    first = pd.Timestamp("1975-01-06") + pd.Timedelta(days=int(rng.integers(17_000)))
    times = pd.date_range(first, periods=rows, freq=step)
    close = rng.choice([0.004, 30.0, 41_000.0]) * np.exp(np.cumsum(rng.normal(0, 0.02, rows)))
    before = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(before, close) * 1.004, np.minimum(before, close) * 0.996
    values = {"open": before, "high": high, "low": low, "close": close}
    return pd.DataFrame(values | {"volume": rng.integers(1, 9999, rows).astype(float)}, times)


def write_table(rng, bars, clean):
    """Write bars as text in some style, damaged in some way unless it is to be clean."""
    style = 0 if clean else int(rng.integers(len(SPELLINGS["close"])))
    times = "iso" if clean else str(rng.choice([*TIMES]))
    number = NUMBERS["plain" if clean else str(rng.choice([*NUMBERS]))]
    separator = "," if clean else str(rng.choice(SEPARATORS))
    names = {field: spellings[style] for field, spellings in SPELLINGS.items()}
    if not clean and rng.random() < 0.2:
        names = {field: str(rng.choice(spellings)) for field, spellings in SPELLINGS.items()}
    chosen = [f for f in COLUMNS if f == "close" or rng.random() < 0.8]
    head = "timestamp" if clean else str(rng.choice(TIME_NAMES))
    table = pd.DataFrame({names[f]: [number(v) for v in bars[f]] for f in chosen}, dtype=str)
    table.insert(0, head, [str(t) for t in TIMES[times](bars.index)], allow_duplicates=True)
    order = rng.permutation(table.shape[1]) if rng.random() < 0.3 else np.arange(table.shape[1])
    table = table.iloc[:: rng.choice([1, -1]), order]
    if not clean:
        table = damage_cells(rng, table)
    text = table.to_csv(sep=separator, index=False)
    if not clean:
        text = damage_lines(rng, text)
    return text, chosen


def damage_cells(rng, table):
    kind = rng.integers(8)
    table = table.copy()
    if kind == 0 and table.size:
        row, column = int(rng.integers(len(table))), int(rng.integers(table.shape[1]))
        table.iloc[row, column] = rng.choice(JUNK)
    elif kind == 1:
        table = table.iloc[:, rng.permutation(table.shape[1])[: int(rng.integers(1, 4))]]
    elif kind == 2:
        table = pd.concat([table, table.iloc[: len(table) // 2]])
    elif kind == 3:
        table.columns = [table.columns[0]] * table.shape[1]
    elif kind == 4 and len(table):
        table.iloc[:, int(rng.integers(table.shape[1]))] = rng.choice(JUNK)
    elif kind == 5:
        table.insert(1, "symbol", rng.choice(["AB", "C.D", "[x]"], len(table)))
    return table


def damage_lines(rng, text):
    lines, kind = text.splitlines(), rng.integers(8)
    at = int(rng.integers(len(lines)))
    if kind == 0:
        lines.insert(0, "Exported at noon")
    elif kind == 1:
        lines.append("Total,,,")
    elif kind == 2:
        lines.insert(at, lines[0])
    elif kind == 3:
        lines = lines[1:]
    elif kind == 4:
        lines.insert(at, "")
    elif kind == 5:
        lines[at] = lines[at][: len(lines[at]) // 2]
    return str(rng.choice(["\n", "\r\n"])).join(lines) + "\n"


def to_bytes(rng, text, clean):
    if clean:
        return text.encode()
    content = text.encode(str(rng.choice(ENCODINGS)), errors="replace")
    if rng.random() < 0.15 and content:
        content = bytearray(content)
        for place in rng.integers(len(content), size=3):
            content[place] ^= 1 << int(rng.integers(8))
        content = bytes(content)
    if rng.random() < 0.1:
        content = content[: int(rng.integers(len(content) + 1))]
    return content


def require_whole(found):
    """Refuse what is no bars in normal form."""
    assert found
    for bars in found.values():
        assert len(bars)
        index = bars.index
        assert str(index.tz) == "UTC" and index.is_unique and index.is_monotonic_increasing
        assert 1900 <= index[0].year and index[-1].year <= 2100
        assert {*bars.columns} <= {*COLUMNS} and "close" in bars.columns
        numbers = bars.drop(columns="open", errors="ignore").to_numpy()
        assert np.isfinite(numbers).all() and (bars["close"] > 0).all()


@pytest.mark.parametrize(
    "seeds",
    [range(FEW), pytest.param(range(FEW, MANY), marks=pytest.mark.slow)],
    ids=["few", "many"],
)
def test_bars_come_of_any_table_or_one_of_our_errors(tmp_path, seeds):
    read = 0
    for seed in seeds:
        rng = np.random.default_rng([7, seed])
        clean = seed % 8 == 0
        rows = int(rng.integers(2, 60)) if clean else int(rng.integers(0, 60))
        bars = make_bars(rng, rows)
        text, chosen = write_table(rng, bars, clean)
        content = to_bytes(rng, text, clean)
        packed = not clean and rng.random() < 0.2
        path = tmp_path / (f"T{seed}.csv.gz" if packed else f"T{seed}.csv")
        path.write_bytes(gzip.compress(content) if packed else content)
        before = path.read_bytes()
        try:
            found = read_bars(path)
        except MamlJaxError as error:
            assert not clean and path.name in str(error) and len(str(error)) < 5000
        else:
            require_whole(found)
            read += 1
            if clean:
                want = bars[chosen].tz_localize("UTC")
                pd.testing.assert_frame_equal(
                    found[f"T{seed}"], want, check_freq=False, check_names=False,
                    check_index_type=False,
                )  # fmt: skip
        assert path.read_bytes() == before
        check_in_memory(text)
    assert read > len(seeds) / 6  # the whole ones, and some of the others


def check_in_memory(text):
    """Convert the same table from memory, which stays as it is."""
    try:
        table = pd.read_csv(io.StringIO(text))
    except (ValueError, pd.errors.ParserError):
        return
    copy = table.copy(deep=True)
    try:
        require_whole(to_bars(table))
    except MamlJaxError:
        pass
    pd.testing.assert_frame_equal(table, copy)
