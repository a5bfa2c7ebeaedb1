"""The options of commands that read files of bars."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from maml_jax.errors import ConfigError

if TYPE_CHECKING:
    from maml_jax.experiment.config.config import Config

LayoutOption = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="Of a file without a header: binance, kraken, histdata, mt4, or its columns' names, "
        "as in date,open,high,low,close,-,volume.",
    ),
]
DataOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="data.KEY=VALUE",
        help="How files are read: data.encoding=gbk, data.skip_lines=3, data.symbol=IBM, "
        "data.timezone, data.date_format, data.columns and so on. May be repeated.",
    ),
]


def file_settings(
    layout: str | None,
    overrides: list[str] | None,
    *,
    base: "Config | None" = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return the options of `read_bars` that a command was given.

    Args:
        layout: of `--layout`.
        overrides: of `--set`; of the section `data` alone.
        base: settings of a run, for what is not given; their symbol is not one of other files.
        **changes: further settings of `data`.

    Raises:
        ConfigError: naming the key.
    """
    pairs = {f"data.{name}": value for name, value in changes.items() if value is not None}
    if not pairs and not overrides and layout is None and base is None:
        return {}  # without the imports
    from maml_jax.experiment.config.loading import load_config, parse_override
    from maml_jax.experiment.preparation.bars import file_options

    pairs |= dict(map(parse_override, overrides or ()))
    strange = [key for key in pairs if not key.startswith("data.")]
    if strange:
        raise ConfigError(f"--set {strange[0]}: expected a setting of data, as data.encoding=gbk")
    if layout is not None:
        pairs["data.layout"] = layout
    if base is not None:
        pairs = {"data.symbol": None} | pairs
    # How files are read runs no code of a run's.
    return file_options(load_config({} if base is None else base, pairs, trust=False))
