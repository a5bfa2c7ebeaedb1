"""What a study is, and the driver of all of them: options, jobs, files."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from matplotlib.figure import Figure
from rich.console import Console

from benchmarks.reproduce.progress import Progress
from benchmarks.reproduce.results import Job, holds, perform, write, write_json
from benchmarks.reproduce.table import (
    QUICK_MARK,
    QUICK_SHARE,
    Table,
    choose,
    describe_machine,
    require_positive,
)
from maml_jax.errors import ConfigError

Key = TypeVar("Key", bound=Hashable)


class Option(NamedTuple):
    """One option of a study, on the command line and as a keyword.

    Attributes:
        kind: `bool`, `int`, `str`, `Path` or `list[str]`.
        help: what it means.
        flag: its name on the command line, without dashes; empty for that of the keyword.
        default: its value where it is not given.
        required: whether it must be given.
    """

    kind: Any
    help: str
    flag: str = ""
    default: Any = None
    required: bool = False


METHODS = Option(list[str], "Row to compute (name or prefix); repeatable. Default: all.", "method")
SEEDS = Option(int, "Training runs (seeds) per row. Default: the study's own number.")
STEPS = Option(int, "Meta-steps per training run. Default: the study's own number.")
QUICK = Option(bool, "One seed, a fiftieth of the meta-steps, fewer test tasks.", default=False)
USUAL = {"methods": METHODS, "seeds": SEEDS, "steps": STEPS, "quick": QUICK}


def name_parts(parts: Iterable[str]) -> Option:
    """Make the option that asks for some parts of a study."""
    *first, last = parts
    return Option(list[str], f"{', '.join(first)} or {last}; repeatable. Default: all.", "part")


class Report(NamedTuple):
    """What a study shows.

    Attributes:
        tables: for the terminal and the Markdown file.
        record: what the JSON file holds beside the command and the machine.
        figure: a picture.
        suffix: ends the names of the files.
    """

    tables: list[Table]
    record: Mapping[str, Any]
    figure: Figure | None = None
    suffix: str = ""


@dataclass(frozen=True)
class Study:
    """Published results to reproduce, or claims to test.

    Attributes:
        name: its name on the command line, and of its files.
        help: what it computes, in a line.
        run: computes it.
        rows: the table that `methods` chooses from.
        options: by keyword.
    """

    name: str
    help: str
    run: Callable[["Call"], Report]
    rows: Sequence[Any] = ()
    options: Mapping[str, Option] = field(default_factory=lambda: USUAL)


@dataclass(frozen=True)
class Call:
    """One call of a study: what is asked for, and the way to get results.

    Attributes:
        study: what is called.
        options: by keyword, those that are not given at their default.
        folder: of the results.
        progress: shows what is done.
        failed: lines about jobs that failed.
    """

    study: Study
    options: Mapping[str, Any]
    folder: Path
    progress: Progress
    failed: list[str] = field(default_factory=list)

    @cached_property
    def rows(self) -> list[Any]:
        """The rows that are asked for."""
        return choose(self.study.rows, self.options["methods"] or ())

    @property
    def quick(self) -> bool:
        """Whether this is a try of the machinery."""
        return self.options["quick"]

    def count_seeds(self, usual: int) -> int:
        """Return how many trainings a row has."""
        return self.options["seeds"] or (1 if self.quick else usual)

    def count_steps(self, usual: int) -> int:
        """Return how many meta-steps a training has."""
        return self.options["steps"] or (max(1, usual // QUICK_SHARE) if self.quick else usual)

    def choose_parts(self, parts: Iterable[Key]) -> list[Key]:
        """Return the parts that are asked for, in order.

        Raises:
            ConfigError: naming a part that there is not.
        """
        known, asked = list(parts), self.options["parts"] or ()
        for part in asked:
            if part not in known:
                raise ConfigError(
                    f"--part {part}: no such part; there are {', '.join(map(str, known))}"
                )
        return [part for part in known if not asked or part in asked]

    def perform(self, jobs: Iterable[tuple[Key, Job]]) -> dict[Key, list[dict[str, Any]]]:
        """Do all jobs in order, and return the results under each key."""
        jobs = list(jobs)
        found: dict[Key, list[dict[str, Any]]] = {}
        results = perform((job for _, job in jobs), self.folder, self.progress)
        for (key, job), result in zip(jobs, results, strict=True):
            found.setdefault(key, []).append(result)
            if "failed" in result:
                self.failed.append(f"{job.name}: {result['failed']}")
        return found

    def holds(self, job: Job) -> bool:
        """Say whether the result of a job is there already."""
        return holds(self.folder, job)


def reproduce(
    study: Study,
    *,
    out: str | Path | None = None,
    console: Console | None = None,
    command: str = "",
    **options: Any,
) -> list[Table]:
    """Compute a study, and write its tables.

    Every job's result is a file of its own in `out/results`. One that is there already, of the same
    settings, is not computed again: what was interrupted goes on, and several processes may share
    the work. `NAME.json`, `NAME.md` and for some `NAME.png` hold what the last call asked for.

    Args:
        study: what to compute.
        out: the folder to write to; by default `runs/NAME`.
        console: where to show progress; None shows nothing.
        command: the command line, for the JSON file.
        **options: those of the study.

    Returns:
        The tables.

    Raises:
        TypeError: if the study has no such option, or lacks one that it requires.
        ConfigError: if an option is impossible or names no row.
        DataError: if bars cannot be read.
        RunError: if `out` cannot be written.
    """
    call = prepare_call(study, Path(out or f"runs/{study.name}"), console, options)
    report = study.run(call)
    tables = report.tables
    if call.quick:
        tables = [table._replace(title=QUICK_MARK + table.title) for table in tables]
    path = Path(call.folder.parent, study.name + report.suffix)
    head = {"command": command, "quick": call.quick, "where": describe_machine()}
    write_json(path.with_name(f"{path.name}.json"), {**head, **report.record})
    write(path.with_name(f"{path.name}.md"), "\n".join(table.markdown() for table in tables))
    if report.figure is not None:
        report.figure.savefig(path.with_name(f"{path.name}.png"), dpi=150)
    return tables


def prepare_call(
    study: Study, out: Path, console: Console | None, options: Mapping[str, Any]
) -> Call:
    """Check the options of a call and fill in their defaults."""
    required = {name for name, option in study.options.items() if option.required}
    if unknown := options.keys() - study.options.keys():
        raise TypeError(f"{study.name} has no option {', '.join(sorted(unknown))}")
    if missing := required - options.keys():
        raise TypeError(f"{study.name} requires {', '.join(sorted(missing))}")
    given = {name: option.default for name, option in study.options.items()}
    given |= {name: value for name, value in options.items() if value is not None}
    counts = {n: given[n] for n, option in study.options.items() if option.kind is int}
    require_positive(**counts)
    return Call(study, given, out / "results", Progress(console))
