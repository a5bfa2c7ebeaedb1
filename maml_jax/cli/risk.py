"""The command that forecasts the risk of assets from their first bars on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from maml_jax.cli.reading import DataOverrides, LayoutOption, file_settings

if TYPE_CHECKING:
    from maml_jax.risk.table import RiskTable

_WIDE = 3
"""Assets from which on each is a row, and not a column."""

_SHORT = {
    "age": "bars",
    "volatility": "vol",
    "bounds": "9 in 10",
    "weight": "weight",
    "position": "position",
    "stop_distance": "stop",
    "trailing_volatility": "vol22",
}
"""Of the columns of a table of many."""


def risk_command(
    bars: Annotated[
        str, typer.Argument(metavar="FILE|store:NAME", help="Bars of one or more assets.")
    ],
    horizon: Annotated[
        int | None,
        typer.Option("--horizon", help="Bars ahead: up to 22 days (5), or 72 hours (24)."),
    ] = None,
    level: Annotated[
        list[float] | None,
        typer.Option("--level", help="Tail probability of VaR and ES, such as 0.05; several."),
    ] = None,
    target_volatility: Annotated[
        float,
        typer.Option(
            "--target-volatility", help="That your capital shall have, a year: 0.15 is 15 %."
        ),
    ] = 0.15,
    capital: Annotated[
        float | None, typer.Option("--capital", help="Your capital; adds the size of the position.")
    ] = None,
    side: Annotated[
        str, typer.Option("--side", help="long, or short: which way is a loss.")
    ] = "long",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Weights, or a run that forecasts volatility. Default: by the bars."
        ),
    ] = None,
    output: Annotated[str, typer.Option("--format", help="table, json or csv.")] = "table",
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with figures.")] = None,
    layout: LayoutOption = None,
    overrides: DataOverrides = None,
) -> None:
    """Forecast volatility, VaR and position sizes of assets, from two bars on."""
    from maml_jax.errors import ConfigError
    from maml_jax.risk import forecast_risk
    from maml_jax.risk.reading import read_frames

    if output not in ("table", "json", "csv"):
        raise ConfigError(f"--format {output}: table, json or csv")
    options = {} if level is None else {"levels": tuple(level)}
    table = forecast_risk(
        read_frames(bars, **file_settings(layout, overrides)),
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

    detail, console = table.known(), Console()
    console.print(_few(table) if len(table) < _WIDE else _many(table))
    if len(table) >= _WIDE:
        for line in _legend(table):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    if len(table) == 1:
        console.print(describe(table, detail), soft_wrap=True, highlight=False)
    about = detail.model.card.get("about", "")
    console.print(f"Model: {detail.model.name}, trained on {about}. Times are UTC.", soft_wrap=True)
    for note in detail.notes:
        console.print(note, soft_wrap=True, markup=False)


def _few(table: "RiskTable") -> Table:
    from maml_jax.risk.page import label_column, span_words

    detail = table.known()
    shown = Table("", title=f"Risk over the next {span_words(detail)}", title_justify="left")
    for asset in table.index:
        shown.add_column(escape(str(asset)), justify="right")
    for column in table.columns:
        shown.add_row(
            label_column(column, detail), *(_text(column, value) for value in table[column])
        )
    return shown


def _many(table: "RiskTable") -> Table:
    import pandas as pd

    from maml_jax.risk.page import span_words, tail_name

    detail = table.known()
    bounds = [
        f"{low:.0f}-{high:.0f}"
        for low, high in zip(table["volatility_low"], table["volatility_high"], strict=True)
    ]
    title = f"Risk over the next {span_words(detail)}"
    shown = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1))
    shown.add_column("asset", no_wrap=True)
    ordered = pd.DataFrame(table).assign(bounds=bounds)
    places = list(table.columns)
    places.insert(places.index("volatility") + 1, "bounds")
    columns = [column for column in places if column in _SHORT or tail_name(column)]
    for column in columns:
        label = tail_name(column).replace(" ", "", 1).replace(" %", "") or _SHORT[column]
        shown.add_column(label, justify="right", no_wrap=True, min_width=len(label))
    for asset, row in ordered.iterrows():
        shown.add_row(escape(str(asset)), *(_text(column, row[column]) for column in columns))
    return shown


def _legend(table: "RiskTable") -> list[str]:
    """Say what the columns of a table of many mean."""
    from maml_jax.risk.page import span_words

    detail = table.known()
    level = f"{100 * detail.levels[-1]:g}"
    passed = f"{1 / detail.levels[-1]:.4g}"
    position = "; position: the same in money" if "position" in table else ""
    return [
        "vol: volatility over that time, % a year; 9 in 10: where it lies 9 times in 10; vol22: of "
        "the last 22 bars.",
        f"VaR{level}: loss in %, passed 1 time in {passed}; ES{level}: mean loss when it is.",
        f"weight: position / capital, for {100 * detail.target_volatility:g} % volatility a year"
        f"{position}. stop: % from the price; noise hits it 1 time in 20 in {span_words(detail)}.",
    ]


def _text(column: str, value: object) -> str:
    if column == "as_of":
        return f"{value:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
    if not isinstance(value, float):
        return str(value)
    if column == "position":
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 or column == "weight" else f"{value:.1f}"
