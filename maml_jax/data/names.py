"""What the names of columns mean, whoever wrote them: names are read as words.

`PX_LAST`, `Last Price`, `lastPrice` and `(1d) last` are all a last price, because each of their
words is a word of prices. A name with any other word is none of a field: it may be an asset.
"""

import re
from functools import cache
from typing import NamedTuple

COLUMNS = ("open", "high", "low", "close", "volume")
PRICES = ("open", "high", "low", "close")
ADJUSTED = "adj close"
OTHER = "other"
"""The role of what a bar may hold besides: turnover, trades, changes, dividends."""

# In order of preference: a wide table may hold an asset called T.
TIME_NAMES = (
    "timestamp", "datetime", "date", "time", "open time", "opentime", "start", "start time",
    "gmt time", "time utc", "local time", "unix", "unix timestamp", "period", "bar", "index", "ts",
    "t", "dt", "begin",
)  # fmt: skip
SYMBOL_NAMES = (
    "symbol", "ticker", "asset", "pair", "instrument", "name", "coin", "tic", "sym", "market",
    "security", "contract",
)  # fmt: skip

_PRICE_WORDS = {
    "open": "open", "opening": "open", "opn": "open",
    "high": "high", "hi": "high", "highest": "high",
    "low": "low", "lo": "low", "lowest": "low",
    "close": "close", "closing": "close", "settle": "settle", "settlement": "settle",
    "last": "last", "ltp": "last", "price": "price", "px": "price", "prc": "price",
    "value": "value", "nav": "value",
}  # fmt: skip
_CLOSES = ("close", "settle", "last", "price", "value")
"""What may stand for the close, the best first."""
_ADJUSTED_WORDS = frozenset({"adj", "adjusted"})
_VOLUME_WORDS = frozenset({"volume", "vol"})
_SIDED = frozenset({"quote", "taker", "maker", "buy", "sell", "bid", "ask", "notional"})
"""Words that make a volume one of something else."""
_OTHER_WORDS = frozenset(
    "turnover amount vwap wap trades transactions txns count dividend dividends split splits gains "
    "change chg percent pct return returns interest oi int cap mcap capitalization supply spread "
    "average avg mean taker maker ignore prev previous yesterday ratio deliverable delivery shares "
    "contracts qty quantity size number bid ask weighted barcount difference diff".split()
)
_CURRENCIES = frozenset("currency usd usdt eur gbp jpy chf cny inr aud cad".split())
_QUALIFIERS = _CURRENCIES | frozenset(
    "day daily trade traded official real tick ticks base total session bar candle mid quote "
    "asset buy sell of the in no num market stock capital raw unadjusted unadj notional "
    "exchange".split()
)
_TIME_WORDS = frozenset("time date datetime timestamp unix epoch datum dtyyyymmdd dttm".split())
_TIME_ENDS = frozenset({"at", "start", "ts", "dt"})
_LATER_WORDS = frozenset(
    "close closing end ended ending expiry expiration expires maturity updated update modified ex "
    "listing ipo payment pay delivery settlement created high low zone timezone offset".split()
)
"""Words of times that are not when a bar opens."""
_VOCABULARY = (
    frozenset(_PRICE_WORDS) | _ADJUSTED_WORDS | _VOLUME_WORDS | _OTHER_WORDS | _QUALIFIERS
    | _TIME_WORDS | _SIDED
)  # fmt: skip
_JOINED = frozenset(word for word in _VOCABULARY if len(word) > 2) | {"px", "of"}
"""Words that are recognised without a gap between them, as in `bidclose`."""
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NUMBERING = re.compile(r"^\W*\d+[a-z]{0,3}\W+(?=[A-Za-z])")
_QUOTED_IN = re.compile(r"[-/_.:]?(?:USD[TC]?|EUR|GBP|JPY|BTC)$", re.IGNORECASE)
_GAP = re.compile(r"[\s._\-/:|]+")


class Field(NamedTuple):
    """What a column of a bar holds.

    Attributes:
        role: one of `COLUMNS`, `ADJUSTED` or `OTHER`.
        rank: of several columns of a role, that of the lowest rank is taken.
        words: the words of the name that say of which kind it is, such as `bid` or `tick`.
    """

    role: str
    rank: int = 0
    words: frozenset[str] = frozenset()


def plain_name(name: object) -> str:
    """Fold case, underscores, dots and spaces, so that `Adj_Close` equals `adj close`.

    >>> plain_name(" Adj_Close ")
    'adj close'
    """
    return " ".join(str(name).strip("<> ").replace("_", " ").replace(".", " ").lower().split())


def words_of(name: object) -> tuple[str, ...]:
    """Split a name into words.

    >>> words_of("PX_LAST"), words_of("4a. closePrice (USD)"), words_of("<TICKVOL>")
    (('px', 'last'), ('close', 'price', 'usd'), ('tick', 'vol'))
    """
    text = _NUMBERING.sub("", str(name).strip()).replace("%", " percent ")
    words: list[str] = []
    for token in re.findall(r"[^\W_]+", text):
        whole = _unjoin(token.lower())
        parts = [whole] if _VOCABULARY.issuperset(whole) else map(_unjoin, _humps(token))
        words += [_singular(word) for part in parts for word in part]
    return tuple(words)


def _singular(word: str) -> str:
    """Return `price` of `prices`, where that is a word of bars."""
    plural = word not in _VOCABULARY and word.endswith("s") and word[:-1] in _VOCABULARY
    return word[:-1] if plural else word


def _humps(token: str) -> list[str]:
    """Split `LastPrice` into its words."""
    return [part.lower() for part in _CAMEL.split(token)]


@cache
def _unjoin(token: str) -> tuple[str, ...]:
    """Split a token into words if it is made of nothing else."""
    if token in _VOCABULARY or len(token) < 5:
        return (token,)
    ways: list[tuple[str, ...] | None] = [()]
    for end in range(1, len(token) + 1):
        starts = [s for s in range(end) if ways[s] is not None and token[s:end] in _JOINED]
        ways.append((*ways[starts[0]], token[starts[0] : end]) if starts else None)  # pyright: ignore[reportGeneralTypeIssues, reportOptionalIterable]
    return ways[-1] or (token,)


def field_of(name: object) -> Field | None:
    """Say what a column holds if each word of its name is one of bars; None if one is not.

    >>> field_of("PX_LAST"), field_of("Adj Close**").role, field_of("AAPL")
    (Field(role='close', rank=2, words=frozenset()), 'adj close', None)
    """
    words = words_of(name)
    has = frozenset(words)
    if not words or not has <= _VOCABULARY or has & _TIME_WORDS:
        return None
    kinds = {_PRICE_WORDS[word] for word in has if word in _PRICE_WORDS}
    strong = kinds & {"open", "high", "low", "close", "settle"}
    rest = has - set(_PRICE_WORDS)
    if has & (_OTHER_WORDS - {"bid", "ask"}):
        counted = has & {"shares", "contracts", "qty", "quantity"}
        if counted and has & {"number", "no", "traded", "tick"}:
            return Field("volume", 2, rest)
        return Field(OTHER)
    if has & _VOLUME_WORDS:
        if has & (_SIDED | _ADJUSTED_WORDS | _CURRENCIES) or strong or has & {"value"}:
            return Field(OTHER)
        return Field("volume", len(rest - _VOLUME_WORDS), rest - _VOLUME_WORDS)
    if strong & {"open", "high", "low"}:
        role = next(iter(strong))
        if len(strong) > 1 or kinds & {"last"}:
            return Field(OTHER)
        return Field(role, 10 * bool(has & _ADJUSTED_WORDS), rest)
    if kinds:
        if has & _ADJUSTED_WORDS:
            return Field(ADJUSTED, 0, rest - _ADJUSTED_WORDS)
        best = next(rank for rank, kind in enumerate(_CLOSES) if kind in kinds)
        return Field("close", best, rest)
    if has & _ADJUSTED_WORDS:
        return Field(ADJUSTED, 1, rest - _ADJUSTED_WORDS)
    return Field(OTHER) if has & {"bid", "ask"} else None


def split_asset(name: object) -> tuple[str, Field] | None:
    """Split a name such as `AAPL.Close` or `volume_AAPL` into the asset and the field.

    >>> split_asset("BRK.B.Adj.Close")[0], split_asset("Close AAPL")[0], split_asset("AAPL")
    ('BRK.B', 'AAPL', None)
    """
    text = str(name).strip()
    gaps = list(_GAP.finditer(text))
    for gap in gaps:
        field = field_of(text[gap.end() :])
        if text[: gap.start()] and field is not None:
            return text[: gap.start()], field
    for gap in reversed(gaps):
        field = field_of(text[: gap.start()])
        if text[gap.end() :] and field is not None:
            return text[gap.end() :], field
    return None


def time_rank(name: object) -> int | None:
    """Rank a name of times, the lowest first; None for a name of anything else.

    >>> time_rank("Date"), time_rank("snapped_at") is None, time_rank("close_time")
    (2, False, None)
    """
    plain = plain_name(name)
    if plain in TIME_NAMES:
        return TIME_NAMES.index(plain)
    words = words_of(name)
    if not words or set(words) & (_LATER_WORDS | _OTHER_WORDS):
        return None
    if set(words) & _TIME_WORDS:
        return len(TIME_NAMES) + len(words)
    return len(TIME_NAMES) + 9 if len(words) > 1 and words[-1] in _TIME_ENDS else None


def is_time(name: object) -> bool:
    """Say whether a name is of times of any kind, those when a bar closes included."""
    words = words_of(name)
    return time_rank(name) is not None or bool(set(words) & _TIME_WORDS)


def is_symbol(name: object) -> bool:
    """Say whether a name is of a column that names the asset, such as `Ticker` or `stock_code`."""
    if plain_name(name) in SYMBOL_NAMES:
        return True
    words = {*words_of(name)}
    return bool(words & {"symbol", "ticker", "instrument", "code", "ric", "isin"}) and words <= {
        *SYMBOL_NAMES, "id", "code", "stock", "trading", "ric", "isin", "ts", "security", "product",
    }  # fmt: skip


def may_be_ticker(name: object) -> bool:
    """Say whether a name of a field is one short word, as tickers are: LOW, OPEN, HIGH/USDT."""
    text = _QUOTED_IN.sub("", str(name).strip())
    common = {"vol", "vwap", "wap", "oi", "chg", "pct", "mcap", "last", "price", "close", "value"}
    return text.isalpha() and len(text) <= 5 and text.lower() not in common
