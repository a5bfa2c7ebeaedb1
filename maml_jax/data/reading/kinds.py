"""What a file's name says: the kind of the file, and the asset."""

from pathlib import Path
from typing import Literal, get_args

from maml_jax.errors import DataError

Kind = Literal["text", "json", "parquet", "feather", "excel"]

ENDINGS: dict[Kind, tuple[str, ...]] = {
    "text": (".csv", ".txt", ".tsv"),
    "parquet": (".parquet", ".pq"),
    "feather": (".feather", ".ftr", ".arrow"),
    "json": (".json", ".jsonl", ".ndjson"),
    "excel": (".xlsx", ".xlsm"),
}
COMPRESSED = (".gz", ".bz2", ".xz", ".zip", ".zst")
"""Endings after that of a text or JSON file; `.zip` also by itself."""


def split_name(path: str | Path) -> tuple[str, Kind | None]:
    """Return the asset that a file's name stands for, and the kind of the file.

    The asset is all before the ending, dots included. A zip's kind is that of what it holds, so it
    may be None.

    >>> split_name("BRK.A.csv"), split_name("7203.T.csv.gz"), split_name("BTCUSDT-1h.zip")
    (('BRK.A', 'text'), ('7203.T', 'text'), ('BTCUSDT-1h', None))

    Raises:
        DataError: if the ending is unknown.
    """
    name = Path(path).name
    packed = next((each for each in COMPRESSED if name.lower().endswith(each)), "")
    bare = name[: len(name) - len(packed)]
    for kind in get_args(Kind):
        for ending in ENDINGS[kind]:
            if bare.lower().endswith(ending) and (not packed or kind in ("text", "json")):
                return bare[: -len(ending)] or bare, kind
    if packed == ".zip":
        return bare or name, None
    known = [ending for endings in ENDINGS.values() for ending in endings]
    hint = "; save it as .xlsx or .csv" if bare.lower().endswith(".xls") else ""
    raise DataError(
        f"{path}: unknown kind of file; expected a name that ends in {', '.join(known)}, or "
        f".csv.gz, .json.zip and so on ({', '.join(COMPRESSED)}){hint}"
    )
