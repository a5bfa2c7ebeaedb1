"""Reproduce published results and test claims: `python -m benchmarks.reproduce NAME`."""

import inspect
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.reproduce import STUDIES
from benchmarks.reproduce.study import Option, Study, reproduce
from maml_jax.errors import MamlJaxError
from maml_jax.experiment.process import set_up

OUT = Option(Path, "Folder of results; those already there are reused.")


def make_command(study: Study) -> Callable[..., None]:
    """Make the command of a study: its options are the study's."""

    def run(out: Path, **options: Any) -> None:
        set_up()
        command = shlex.join(["python", "-m", "benchmarks.reproduce", *sys.argv[1:]])
        console = Console(stderr=True)
        tables = reproduce(study, out=out, console=console, command=command, **options)
        console = Console(width=None if sys.stdout.isatty() else 160)
        for table in tables:
            console.print(table.rich())
        typer.echo(f"results: {out}")

    out = OUT._replace(default=Path(f"runs/{study.name}"))
    options = {**study.options, "out": out}
    parameters = [_make_parameter(name, option) for name, option in options.items()]
    # Typer reads the options off a signature.
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _make_parameter(name: str, option: Option) -> inspect.Parameter:
    # Without a flag of its own Typer would offer --no-quick beside --quick.
    info = typer.Option(f"--{option.flag or name}", help=option.help)
    kind = option.kind if option.required or option.default is not None else option.kind | None
    default = inspect.Parameter.empty if option.required else option.default
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, info]
    )


def make_app() -> typer.Typer:
    """Make the command line: one command for each study."""
    app = typer.Typer(help="Reproduce published results and test claims.", no_args_is_help=True)
    for study in STUDIES:
        app.command(study.name, help=study.help)(make_command(study))
    return app


def main() -> None:
    """Run the command line; bad input ends it with one line and exit code 2."""
    try:
        make_app()()
    except MamlJaxError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
