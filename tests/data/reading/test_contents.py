"""Compressed files: the same bars, or one clear error for whatever is wrong with them."""

import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pyarrow as pa
import pytest
from helpers import random_bars

from maml_jax.data import read_bars
from maml_jax.data.reading import contents
from maml_jax.data.reading.contents import read_contents
from maml_jax.data.reading.kinds import ENDINGS
from maml_jax.errors import DataError

TEXT = random_bars(count=20).to_csv().encode()


def zipped(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)
    return file.getvalue()


def zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


PACKED = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zip": lambda data: zipped(XY_csv=data),
    ".zst": zstd,
}


@pytest.mark.parametrize("ending", PACKED)
def test_damaged_files_are_refused_or_whole(tmp_path, ending):
    path = tmp_path / f"XY.csv{ending}"
    packed = PACKED[ending](TEXT)
    path.write_bytes(packed)
    assert read_contents(path).data == TEXT
    (tmp_path / "XY.csv").write_bytes(packed)  # browsers drop the ending
    assert read_contents(tmp_path / "XY.csv").data == TEXT
    rng = np.random.default_rng(0)
    refused = 0
    for at in rng.integers(0, len(packed), 60):
        damaged = bytearray(packed)
        damaged[at] ^= 1 << int(rng.integers(8))
        for content in (packed[:at], bytes(damaged)):
            path.write_bytes(content)
            try:
                assert read_contents(path).data == TEXT or ending == ".zst"  # without a checksum
            except DataError as error:
                assert str(path) in str(error)
                refused += 1
    assert refused > 60  # every cut, and most of the flips
    path.write_bytes(TEXT)
    with pytest.raises(DataError, match="as its name says"):
        read_contents(path)


def test_a_zip_holds_one_file(tmp_path):
    path = tmp_path / "BTCUSDT-1h.zip"
    path.write_bytes(zipped(anything_csv=TEXT))
    assert list(read_bars(path)) == ["BTCUSDT-1h"]
    for members, message in (
        ({"A_csv": TEXT, "B_csv": TEXT}, r"holds 2 files \(A.csv, B.csv\)"),
        ({}, "holds 0 files"),
        ({"A_parquet": TEXT}, "holds A.parquet"),
        ({"A": TEXT}, "unknown kind of file"),
    ):
        path.write_bytes(zipped(**members))
        with pytest.raises(DataError, match=message) as caught:
            read_bars(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("ending", PACKED)
def test_far_more_than_a_table_of_prices_is_refused(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(contents, "SMALL", 1_000_000)
    monkeypatch.setattr(contents, "_CHUNK", 100_000)
    path = tmp_path / f"XY.csv{ending}"
    path.write_bytes(PACKED[ending](TEXT + b"2021-01-01,1,1,1,1,1\n" * 60_000))
    with pytest.raises(DataError, match=r"hold more than .* MB.*decompress"):
        read_contents(path)
    path.write_bytes(PACKED[ending](bytes(200_000)))
    with pytest.raises(DataError, match="holds zeros"):
        read_contents(path)


@pytest.mark.parametrize("ending", [e for endings in ENDINGS.values() for e in endings])
def test_noise_is_refused_whatever_its_name(tmp_path, ending):
    rng = np.random.default_rng(1)
    for content in (b"", b"\n", b"junk", b"PAR1", rng.bytes(500), b"\xff\xfe" + rng.bytes(99)):
        (tmp_path / f"x{ending}").write_bytes(content)
        with pytest.raises(DataError, match=rf"x{ending}"):
            read_bars(tmp_path / f"x{ending}")
