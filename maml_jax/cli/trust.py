"""The option of commands that compute features of a run."""

from typing import Annotated

import typer

Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Import the modules that RUN names for its features (features.modules), which runs "
        "their code. Look at it first.",
    ),
]
