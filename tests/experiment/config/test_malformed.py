"""Hundreds of malformed configs: each is read, or refused by one short error of ours."""

import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime, time

import numpy as np
import pytest
from pydantic import BaseModel

from maml_jax.errors import MOST, ConfigError
from maml_jax.experiment import Config, load_config

VALUES = (
    None, True, "", "text", "none", "nan", " 5 ", "\0", "a\n\x1b[31m\u202e", "\udcff", "x" * 10**6,
    -1, 0, 1, 95, 10**9, 10**22, 2**63, -(2**63), 10**5000, -(10**5000), 0.5, 1.5, -0.0, 1e308,
    5e-324,
    float("nan"), float("inf"), -float("inf"), [], [[]], [1], ["a"], ["a", "a"], [1, "a", None],
    [10**12] * 3, ["x" * 10**6], [float("nan")], ["a"] * 200_000, {}, {"a": 1}, {"": ""}, {3: 4},
    {"asset": 10**400}, {"asset": "x"}, {"bad_tick": []}, {"a": {"b": [{"c": 1}]}}, [["a", "b"]],
    [["a", "a"]], [["a"]], date(1, 1, 1), date(9999, 12, 31), "9999-12-31",
    "0001-01-01T00:00+14:00",
    "2020-02-30", time(1, 2), datetime(2020, 1, 1, tzinfo=UTC), b"bytes", {1, 2}, 1j, object,
)  # fmt: skip


def nested(depth: int, table: bool = False) -> object:
    value: object = 1
    for _ in range(depth):
        value = {"a": value} if table else [value]
    return value


DEEP = (nested(9), nested(100_000), nested(5_000, table=True))


def keys() -> Iterator[str]:
    for name, field in Config.model_fields.items():
        kind = field.annotation
        inner = kind.model_fields if issubclass(kind, BaseModel) else ()
        yield name
        yield from (f"{name}.{key}" for key in inner)


def replaced() -> Iterator[dict]:
    """Every key with every value, and values that are too deep."""
    for key in keys():
        for value in (*VALUES, *DEEP):
            yield {key: value}


def unknown() -> Iterator[dict]:
    """Keys that there are not: misspelled, empty, long, with control characters."""
    rng = np.random.default_rng(0)
    for key in keys():
        marks = list(key)
        marks[rng.integers(len(marks))] = rng.choice([*"abcz. _-\0\né"])
        yield {"".join(marks): 1}
        yield {f"{key}.{key}": {key: key}}
    for key in ("", ".", "..", " ", "a" * 10**6, "a." * 10**5, "\udcff", "\n", "data.\0", "[data]"):
        yield {key: 1}
        yield {"data": {key: 1}}
        yield {"data": {"classes": {key: 1}}}
    yield {5: 1}
    yield {None: {"a": 1}}


TEXTS = (
    "", "=", "[", "a = ", "a = 1\na = 2", "[data]\n[data]", "[[data]]", "data = 1\n[data]",
    "data = []",
    "seed = 0x" + "f" * 10_000, "seed = " + "9" * 10_000, "seed = -0", "seed = nan", "seed = +inf",
    "seed = " + "[" * 50_000, "seed = " + "{a=" * 20_000, "a." * 20_000 + "b = 1", "seed = 1_0",
    "seed = 1979-05-27", "seed = 07:32:00", "seed = '''\n", "[data]\npath = '\\ud800'", "\x00",
    "# \x07",
    '[data]\npath = "\\u0000"', '[data]\nassets = "A"', "[" + "a" * 10**6 + "]",
    "x" * 10**6 + " = 1",
    "[data]\ntest_end = 9999-12-31", "[data]\ntest_end = 0001-01-01", "seed = 1e400",
    "[backtest]\nfee = 5",
    "[data.classes]\n" + "\n".join(f"A{n} = 'x'" for n in range(1_000)),
)  # fmt: skip


def files() -> Iterator[bytes]:
    """Broken TOML, other encodings, and a good file with bytes changed, cut or moved."""
    good = b'seed = 1\n[data]\npath = "bars.csv"\nassets = ["A", "B"]\ntrain_end = 2009-12-31\n'
    good += b"[training]\nsteps = 50\n[backtest]\nfee = 0.001\nbaselines = ['ridge']\n"
    for text in TEXTS:
        yield text.encode("utf-8", "surrogatepass")
    for encoding in ("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037", "utf-7"):
        yield good.decode().encode(encoding)
    yield good.replace(b"bars", "b\xe4rs".encode("latin-1"))
    yield good.replace(b"\n", b"\r")
    rng = np.random.default_rng(1)
    for _ in range(250):
        mutant = bytearray(good)
        for _ in range(rng.integers(1, 6)):
            place, other = rng.integers(len(mutant)), rng.integers(len(mutant))
            kind = rng.integers(4)
            if kind == 0:
                mutant[place] = rng.integers(256)
            elif kind == 1:
                mutant[place:place] = mutant[other : other + 20]
            elif kind == 2:
                del mutant[place : place + int(rng.integers(1, 8))]
            else:
                mutant[place:place] = bytes(rng.choice([*b"[]{}\"'=.,\n#-9e"], 3).tolist())
        yield bytes(mutant)


def require_read_or_refused(source: object) -> bool:
    """Say whether settings were read; what is read can be written and read again."""
    try:
        config = load_config(source)
    except ConfigError as error:
        message = str(error)
        assert 10 < len(message) <= MOST + 100
        assert "\n" not in message and "\x1b" not in message
        return False
    assert load_config(tomllib.loads(config.to_toml())) == config
    return True


def require_all(tmp_path, every: int) -> tuple[int, int]:
    tables = [*replaced(), *unknown()][::every]
    path = tmp_path / "config.toml"
    read = sum(require_read_or_refused(table) for table in tables)
    texts = [*files()][::every]
    for text in texts:
        path.write_bytes(text)
        read += require_read_or_refused(path)
    return read, len(tables) + len(texts)


def test_a_part_of_all_malformed_configs_is_read_or_refused(tmp_path):
    read, count = require_all(tmp_path, every=13)
    assert count > 500
    assert 0.03 * count < read < 0.5 * count


@pytest.mark.slow
def test_every_malformed_config_is_read_or_refused(tmp_path):
    read, count = require_all(tmp_path, every=1)
    assert count > 7_000
    assert 0.03 * count < read < 0.5 * count


@pytest.mark.parametrize("value", VALUES[:60:4], ids=range(0, 60, 4))
def test_overrides_are_read_or_refused_without_blame_of_the_file(value):
    for key in ("backtest.fee", "data.assets", "model.hidden", "data.test_end"):
        try:
            load_config(None, {key: value})
        except ConfigError as error:
            assert "builtin.toml" not in str(error)
            assert key in str(error)
