"""The command that writes what a run learned as safetensors."""

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("params.safetensors"),
    method: Annotated[
        str | None, typer.Option("--method", help="One of the run's methods. Default: the first.")
    ] = None,
) -> None:
    """Write what a method learned as safetensors."""
    from maml_jax.experiment import load

    path = load(run).export_parameters(out, method=method)
    typer.echo(f"parameters: {path}")
