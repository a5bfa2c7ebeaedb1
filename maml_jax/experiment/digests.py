"""What a run directory was when it was written: the digest of every file, and the settings.

`about.json` in the directory holds them. While files are replaced, one after the other, it also
holds what is coming, so that a directory whose writer was killed can be told from a damaged one.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maml_jax.atomic import write_atomically
from maml_jax.errors import ConfigError, RunError, mask_values
from maml_jax.experiment.config.config import Config
from maml_jax.experiment.config.loading import load_config
from maml_jax.listing import MOST, join_names
from maml_jax.notes import Note
from maml_jax.watchdog import LOG

ABOUT = "about.json"
SETTINGS = "config.toml"
PAGE = "report.html"

_LOGS = (LOG, "log.txt", "log.jsonl", "logs", "tensorboard")
"""Files and folders that may grow after a directory was written, and that nothing is read from."""

UNCHECKED = "unchecked"
"""The kind of the note on a directory whose files could not be compared with a record."""

_TRAINED = ("target", "model", "learner", "training")
"""Sections that no fold and no backtest changes."""

_FORMAT = 1
_GONE = ""
"""Stands for the digest of a file that may be missing."""

_REPAIR = "restore it from a copy, or run again"


@dataclass
class About:
    """What `about.json` says.

    Attributes:
        files: SHA-256 of each file, by its path in the directory, with `/`.
        config: the settings, as JSON.
        coming: of files that are being replaced: the further digests that they may have.
    """

    files: dict[str, str]
    config: dict[str, Any]
    coming: dict[str, list[str]] = field(default_factory=dict)


def write_about(folder: Path, config: Config) -> None:
    """Record all files of a directory as they are."""
    files = {name: digest(folder / name) for name in _names(folder)}
    _write(folder, About(files, _record(config)))


def _record(config: Config) -> dict[str, Any]:
    return mask_values(config.model_dump(mode="json"))


def announce(folder: Path, sources: Mapping[str, Path]) -> None:
    """Record what is about to take a place in a directory; without a record, do nothing.

    Args:
        folder: the directory.
        sources: the new files and folders by the paths that they will have. What a folder holds
            now may be missing from then on; a source that is not there announces that alone.
    """
    about = read_about(folder)
    if about is None:
        return
    for place, source in sources.items():
        names = [f"/{name}" for name in _names(source)] if source.is_dir() else [""]
        names = names if source.exists() else []
        new = [(f"{place}{name}", digest(Path(f"{source}{name}"))) for name in names]
        inside = [name for name in about.files if name.startswith(f"{place}/")]
        for name, seen in [*new, *((name, _GONE) for name in inside)]:
            about.coming[name] = [*dict.fromkeys([*about.coming.get(name, []), seen])]
    _write(folder, about)


def settle(folder: Path, config: Config) -> None:
    """Record that what was announced is in its place; without a record, do nothing.

    Raises:
        RunError: if a file is not one that was announced.
    """
    about = read_about(folder)
    if about is None:
        return
    for name, digests in about.coming.items():
        found = digest(folder / name) if (folder / name).is_file() else _GONE
        if found not in (*digests, about.files.get(name, _GONE)):
            raise RunError(f"{folder / name}: was changed while the directory was written")
        if found == _GONE:
            about.files.pop(name, None)
        else:
            about.files[name] = found
    _write(folder, About(about.files, _record(config)))


def record_page(page: Path) -> None:
    """Record a page that was written into a run directory; elsewhere do nothing."""
    folder = page.parent
    try:
        about = read_about(folder)
    except RunError:  # not of a run directory
        return
    if about is not None and page.is_file():
        about.files[page.name] = digest(page)
        _write(folder, about)


def verify(folder: Path, *, page: bool = True, beside: tuple[str, ...] = ()) -> About | None:
    """Compare every file of a directory with its record.

    Args:
        folder: the directory.
        page: whether its page is compared; what is going to write it again does not care.
        beside: folders in it that are not part of it.

    Returns:
        The record; None where there is none, as in directories of earlier versions.

    Raises:
        RunError: naming the file that is damaged, missing or foreign.
    """
    about = read_about(folder)
    if about is None:
        return None
    for name in {**about.files, **about.coming}:
        if name == PAGE and not page:
            continue
        file = folder / name
        wanted = (*about.coming.get(name, ()), about.files.get(name, _GONE))
        found = digest(file) if file.is_file() else _GONE
        if found in wanted:
            continue
        if name == SETTINGS and found != _GONE:
            raise RunError(_describe_settings(file, about.config))
        repair = f"`maml-jax report {folder}` writes it again" if name == PAGE else _REPAIR
        if found == _GONE:
            raise RunError(f"{file}: is missing; {repair}")
        raise RunError(f"{file}: is not the file that was written (its SHA-256 differs); {repair}")
    for name in _names(folder):
        place = name.partition("/")[0]
        if name not in about.files and name not in about.coming and place not in beside:
            raise RunError(f"{folder / name}: is not part of this run; keep it elsewhere")
    return about


def require_settings(folder: Path, about: About, config: Config) -> None:
    """Refuse a record of other settings than those of the files that it vouches for.

    Raises:
        RunError: naming the keys that differ.
    """
    changed = differences(flat(_record(config)), flat(about.config))
    if changed:
        raise RunError(f"{folder / ABOUT}: does not fit the other files: {changed}; {_REPAIR}")


def read_about(folder: Path) -> About | None:
    """Read the record of a directory; None where there is none.

    Raises:
        RunError: if it cannot be read, or is none.
    """
    path = Path(folder) / ABOUT
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
        if record["format"] != _FORMAT:
            raise RunError(
                f"{path}: was written in format {record['format']}; this version reads format "
                f"{_FORMAT}; use the version that wrote it"
            )
        about = About(record["files"], record["config"], record["coming"])
        _require_form(about)
    except RunError:
        raise
    except Exception as error:  # whatever may be wrong with it
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunError(f"{path}: cannot be read: {reason}; {_REPAIR}") from error
    return about


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings by `section.key`."""
    return {
        f"{section}.{key}" if key else section: value
        for section, values in settings.items()
        for key, value in (values.items() if isinstance(values, Mapping) else [("", values)])
    }


def differences(found: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """Say which settings differ, both by `section.key`; "" where none does."""
    keys = [key for key in {**recorded, **found} if found.get(key) != recorded.get(key)]
    texts = (f"{key} is {found.get(key)!r} and was {recorded.get(key)!r}" for key in keys)
    return join_names(texts, MOST, "settings") if keys else ""


def _require_form(about: About) -> None:
    texts = {**about.files, **dict.fromkeys(about.coming, "")}
    if not isinstance(about.config, dict) or not all(isinstance(v, str) for v in texts.values()):
        raise ValueError("not the record of a run directory")
    for name in texts:
        if name.startswith("/") or ".." in name.split("/") or not name:
            raise ValueError(f"{name!r} is not the name of a file in it")
    for digests in about.coming.values():
        if not isinstance(digests, list) or not all(isinstance(each, str) for each in digests):
            raise ValueError("not the record of a run directory")


def _write(folder: Path, about: About) -> None:
    record = {
        "format": _FORMAT,
        "files": about.files,
        "coming": about.coming,
        "config": about.config,
    }
    with write_atomically(folder / ABOUT) as partial:
        partial.write_text(json.dumps(record, indent=2), encoding="utf-8")


def _names(folder: Path) -> Iterator[str]:
    """Yield the files of a directory by their paths in it, without hidden ones and logs."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(place).relative_to(folder)
        if inside.parts[:1] and inside.parts[0] in _LOGS:
            continue
        for name in sorted(files):
            if not name.startswith(".") and (inside.parts or name not in (ABOUT, *_LOGS)):
                yield (inside / name).as_posix()


def _describe_settings(file: Path, recorded: Mapping[str, Any]) -> str:
    """Say how the settings of a file differ from those that the run was made with."""
    repair = "the run was made with the settings in about.json; to use others, run again"
    try:
        found = load_config(file, trust=False).model_dump(mode="json")
    except ConfigError as error:
        return f"{error}; {repair}"
    changed = differences(flat(found), flat(recorded))
    if not changed:
        return f"{file}: was written anew, with the same settings; {_REPAIR}"
    return f"{file}: was edited: {changed}; {repair}"


def require_trained(folder: Path, config: Config, trained: Config, folded: bool) -> None:
    """Refuse settings that are not those of the checkpoints."""
    sections = {*_TRAINED} if folded else {*_TRAINED, "seed", "features"}
    found, recorded = (
        flat(each.model_dump(mode="json", include=sections)) for each in (config, trained)
    )
    changed = differences(found, recorded)
    if changed:
        raise RunError(
            f"{folder / SETTINGS}: is not of this run, or was edited: {changed} at training; to "
            "use other settings, run again"
        )


def unchecked_note(folder: Path) -> Note:
    """Return the note on a directory without a record."""
    text = (
        f"{folder}: was written by an earlier version, without digests of its files: whether they "
        "were changed since cannot be told. Run again to have digests."
    )
    return Note(UNCHECKED, text)
