"""The bytes of a file: decompressed within bounds, and as UTF-8."""

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from maml_jax.errors import DataError

MOST_BYTES = 4 * 2**30
"""Decompressed bytes of a file."""
SMALL = 256 * 2**20
"""Decompressed bytes up to which any ratio is believed."""
MOST_RATIO = 100
"""Decompressed to compressed bytes beyond that; tables of prices have 3 to 30."""

_CHUNK = 2**24
_MARKS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
_OTHERS = (
    (b"PAR1", "a Parquet file; let its name end in .parquet"),
    (b"ARROW1", "a feather file; let its name end in .feather"),
    (b"\xd0\xcf\x11\xe0", "a workbook of old Excel; save it as .xlsx or .csv"),
)
"""How files begin that are no text, and what they are."""
_FORMATS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zip": "zip", ".zst": "zstd"}
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Contents(NamedTuple):
    """What a file holds.

    Attributes:
        data: decompressed.
        name: of the file, or of the one file in a zip.
        packed: whether it was compressed.
    """

    data: bytes
    name: str
    packed: bool = True


def read_contents(path: Path) -> Contents:
    """Read a file, decompressed where it begins like a compressed one.

    Raises:
        DataError: if it is damaged, or not compressed though its name says so; if a zip holds other
            than one file; if it is far larger than a table of prices would be.
        OSError: if the file cannot be read.
    """
    expected = _FORMATS.get(path.suffix.lower())
    with path.open("rb") as file:
        head = file.read(8)
    found = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if expected is not None and found != expected:
        raise DataError(f"{path}: cannot be read: is not {expected} data, as its name says")
    other = next((what for mark, what in _OTHERS if head.startswith(mark)), None)
    if other is not None:
        raise DataError(f"{path}: is no text but {other}")
    if found is None:
        return Contents(path.read_bytes(), path.name, packed=False)
    try:
        with _decompress(path, found) as (stream, name):
            return Contents(_read_bounded(stream, path), name)
    except DataError:
        raise
    except (
        OSError, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error,
        lzma.LZMAError, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        reason = str(error).strip() or type(error).__name__
        raise DataError(f"{path}: cannot be read: damaged {found} data: {reason}") from error


@contextmanager
def _decompress(path: Path, form: str) -> Iterator[tuple[IO[bytes] | Any, str]]:
    if form == "zip":
        with zipfile.ZipFile(path) as archive:
            member = _only_member(archive, path)
            with archive.open(member) as stream:
                yield stream, member.filename.rpartition("/")[2]
        return
    if form == "zstd":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            yield stream, path.name
        return
    opener: Any = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}[form]
    with opener(path, "rb") as stream:
        yield stream, path.name


def _only_member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    members = [
        each
        for each in archive.infolist()
        if not each.is_dir() and not each.filename.startswith(("__MACOSX/", "."))
    ]
    if any(each.filename == "[Content_Types].xml" for each in members):
        raise DataError(f"{path}: is no text but a workbook; let its name end in .xlsx")
    if len(members) != 1:
        names = ", ".join(each.filename for each in members[:5])
        more = ", ..." if len(members) > 5 else ""
        raise DataError(
            f"{path}: holds {len(members)} files{f' ({names}{more})' if members else ''}, expected "
            "one; unpack it, and name those to read"
        )
    if members[0].flag_bits & 1:
        raise DataError(f"{path}: {members[0].filename} is encrypted; unpack it first")
    return members[0]


def check_size(size: int, path: Path) -> None:
    """Refuse a file whose contents are far larger than a table of prices would be.

    Raises:
        DataError: naming the sizes.
    """
    packed = max(path.stat().st_size, 1)
    most = min(MOST_BYTES, max(SMALL, MOST_RATIO * packed))
    if size > most:
        raise DataError(
            f"{path}: its {packed / 1e6:.1f} MB hold more than {most / 1e6:,.0f} MB; if that is "
            "right, decompress the file first"
        )


def _read_bounded(stream: Any, path: Path) -> bytes:
    parts, size = [], 0
    while chunk := stream.read(_CHUNK):
        parts.append(chunk)
        size += len(chunk)
        check_size(size, path)
        if len(parts) == 1 and not chunk[:4096].strip(b"\0"):
            raise DataError(f"{path}: cannot be read: holds zeros, and no text")
    return b"".join(parts)


def to_utf8(data: bytes, encoding: str | None, source: str | Path) -> bytes:
    """Return text as UTF-8 without a byte order mark.

    Args:
        data: UTF-8; or UTF-16 or UTF-32 with a byte order mark.
        encoding: another one, by Python's name.
        source: how errors call the file.

    Raises:
        DataError: naming the line and the option `encoding`.
    """
    known = encoding or next((name for m, name in _BYTE_ORDER_MARKS if data.startswith(m)), None)
    if known not in (None, "utf-8-sig"):
        if len(data) % 2 and data.endswith(b"\n") and _is_little_endian(known, data):
            data += b"\0"  # tools that cut between lines leave half of the last line's end
        try:
            data = data.decode(known).removeprefix("\ufeff").encode()
        except UnicodeError as error:
            raise DataError(f"{source}: is not {known} text: {error}") from None
        except (LookupError, ValueError):
            raise DataError(
                f"{source}: encoding={encoding!r}: no such encoding of text; Python's names are "
                "'gbk', 'cp1252', 'utf-16-le' and so on"
            ) from None
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{source}, line {line}: is not UTF-8 text (byte 0x{data[error.start]:02x}); name "
                "its encoding, as in encoding='cp1252' (Western Europe), 'gbk' (Chinese) or "
                "'shift_jis' (Japanese)"
            ) from None
    if b"\0" in data:
        hint = ""
        if encoding is None and data[:200].count(0) >= min(len(data), 200) // 3:
            low = data[1:2] == b"\0"
            hint = f"; if it is UTF-16, name encoding='utf-16-{'le' if low else 'be'}'"
        raise DataError(f"{source}: holds NUL bytes, so this is no text in UTF-8{hint}")
    return data


def _is_little_endian(encoding: str, data: bytes) -> bool:
    name = encoding.lower().replace("_", "-")
    return name == "utf-16-le" or name == "utf-16" and data.startswith(codecs.BOM_UTF16_LE)
