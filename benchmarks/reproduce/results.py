"""Results, one file each: what was interrupted goes on, what is there is reused."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.reproduce.progress import Advance, Progress
from maml_jax.atomic import write_atomically
from maml_jax.errors import RunError, TrainingError


@dataclass(frozen=True)
class Job:
    """One training and what is measured of it.

    Attributes:
        name: names its file, and the job in messages.
        settings: all that the result depends on, fit for JSON. A result that is found is taken for
            this job's if its settings are the same; functions are not compared.
        steps: meta-steps of its training.
        make: trains and measures; is given what to call with the number of meta-steps done.
        describe: puts a result in a few words.
    """

    name: str
    settings: dict[str, Any]
    steps: int
    make: Callable[[Advance], dict[str, Any]]
    describe: Callable[[dict[str, Any]], str]


def perform(jobs: Iterable[Job], folder: Path, progress: Progress) -> list[dict[str, Any]]:
    """Do all jobs whose result is not in the folder; write each as soon as it is there.

    Several processes may work in one folder. A training that comes to a loss that is not finite is
    a result too: its only entry, `failed`, says what happened.

    Args:
        jobs: what to do, in order.
        folder: one JSON file per job; made if missing.
        progress: shows what is done.

    Returns:
        The result of each job.

    Raises:
        RunError: if the folder cannot be written, or a file in it cannot be read.
    """
    results = []
    for job in jobs:
        path, settings = locate(job, folder)
        result = _read(path, settings)
        if result is not None:
            progress.log(f"{job.name}: found in {path}")
        else:
            with progress.job(job.name, job.steps) as advance:
                try:
                    result = job.make(advance)
                except TrainingError as error:
                    result = {"failed": str(error)}
            write(path, _dumps({"settings": settings, "result": result}))
            words = f"failed: {result['failed']}" if "failed" in result else job.describe(result)
            progress.log(f"{job.name}: {words}")
        results.append(result)
    return results


def holds(folder: Path, job: Job) -> bool:
    """Say whether the folder holds the result of a job.

    Raises:
        RunError: if a file in it cannot be read.
    """
    return _read(*locate(job, folder)) is not None


def write(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all.

    Raises:
        RunError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON, in which a number that is not finite is null.

    Raises:
        RunError: if it cannot be written.
    """
    write(path, _dumps(content))


def read_number(value: float | None) -> float:
    """Return a number read from JSON, NaN for null."""
    return math.nan if value is None else value


def locate(job: Job, folder: Path) -> tuple[Path, dict]:
    """Return the file of a job's result, and the job's settings as they come back from one."""
    settings = json.loads(_dumps(job.settings))
    return folder / f"{job.name}.{_digest(settings)}.json", settings


def _read(path: Path, settings: dict) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["result"] if content["settings"] == settings else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not a result; delete it to compute it again: {error}") from error


def _digest(settings: dict) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _dumps(content: Any) -> str:
    return json.dumps(_finite(content), indent=1, allow_nan=False) + "\n"


def _finite(content: Any) -> Any:
    match content:
        case dict():
            return {str(key): _finite(value) for key, value in content.items()}
        case list() | tuple():
            return [_finite(value) for value in content]
        case float() if not math.isfinite(content):
            return None
    return content
