"""The command that forecasts the risk of assets from their first bars on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from maml_jax.risk.table import RiskTable

_WIDE = 3
"""Assets from which on each is a row, and not a column."""

_NAMES = {
    "as_of": "last bar",
    "age": "bars",
    "volatility": "volatility, % a year",
    "volatility_low": "  5 % bound",
    "volatility_high": "  95 % bound",
    "volatility_horizon": "volatility, % in {horizon} bars",
    "weight": "weight for {target} % a year",
    "position": "position for {target} % a year",
    "stop_distance": "stop distance, %",
    "trailing_volatility": "trailing volatility, % a year",
    "model": "weights",
}

_SHORT = ("as_of", "age", "volatility", "volatility_low", "volatility_high")


def risk_command(
    bars: Annotated[
        str, typer.Argument(metavar="FILE|store:NAME", help="Bars of one or more assets.")
    ],
    horizon: Annotated[int, typer.Option("--horizon", help="Bars ahead.")] = 5,
    level: Annotated[
        list[float] | None,
        typer.Option("--level", help="Of VaR and ES, a share; several. Default: 0.01 and 0.05."),
    ] = None,
    target_volatility: Annotated[
        float, typer.Option("--target-volatility", help="A year, as a share: 0.15 is 15 %.")
    ] = 0.15,
    capital: Annotated[
        float | None, typer.Option("--capital", help="Adds positions in money.")
    ] = None,
    side: Annotated[
        str, typer.Option("--side", help="long, or short: which way is a loss.")
    ] = "long",
    model: Annotated[
        str | None,
        typer.Option("--model", help="Weights: a name, or a folder. Default: by the bars' length."),
    ] = None,
    output: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with figures.")] = None,
) -> None:
    """Forecast volatility, VaR and position sizes of assets, from two bars on."""
    from maml_jax.errors import ConfigError
    from maml_jax.risk import forecast_risk

    if output not in ("table", "json", "csv"):
        raise ConfigError(f"--format {output}: table, json or csv")
    options = {} if level is None else {"levels": tuple(level)}
    table = forecast_risk(
        bars,
        horizon=horizon,
        target_volatility=target_volatility,
        capital=capital,
        side=side,
        model=model,
        **options,
    )
    if output == "json":
        typer.echo(table.reset_index().to_json(orient="records", date_format="iso", indent=2))
    elif output == "csv":
        typer.echo(table.to_csv(), nl=False)
    else:
        print_table(table)
    if html is not None:
        typer.echo(f"page: {table.to_page(html)}", err=output != "table")


def print_table(table: "RiskTable") -> None:
    """Print today's risk: few assets side by side, many one below the other."""
    from maml_jax.risk.page import describe

    detail = table.detail
    assert detail is not None
    terms = {"horizon": detail.horizon, "target": f"{100 * detail.target_volatility:g}"}
    names = {column: _label(column, terms) for column in table.columns}
    console = Console()
    shown = Table(title="Risk, in per cent but for bars and weights", title_justify="left")
    if len(table) < _WIDE:
        shown.add_column("")
        for asset in table.index:
            shown.add_column(str(asset), justify="right")
        for column in table.columns:
            shown.add_row(names[column], *(_text(column, value) for value in table[column]))
    else:
        columns = [c for c in table.columns if c not in ("model", "volatility_horizon")]
        shown.add_column("asset")
        for column in columns:
            shown.add_column(names[column].strip(), justify="right")
        for asset, row in table.iterrows():
            shown.add_row(str(asset), *(_text(column, row[column]) for column in columns))
    console.print(shown)
    if len(table) == 1:
        console.print(describe(table), soft_wrap=True)
    console.print(
        f"weights: {detail.model.name} ({detail.model.card.get('about', '')})", soft_wrap=True
    )
    for note in detail.notes:
        console.print(note, soft_wrap=True)


def _label(column: str, terms: dict) -> str:
    for start, text in (("var_", "VaR {} %"), ("es_", "ES {} %")):
        if column.startswith(start):
            return text.format(column.removeprefix(start))
    return _NAMES.get(column, column).format(**terms)


def _text(column: str, value: object) -> str:
    if column == "as_of":
        return f"{value:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
    if isinstance(value, float):
        return f"{value:,.0f}" if column == "position" else f"{value:.2f}"
    return str(value)
