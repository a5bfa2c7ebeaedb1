"""What the commands of every day share: their options, bars, and watching."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from maml_jax.cli.reading import file_settings

if TYPE_CHECKING:
    import pandas as pd

RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
BarsOption = Annotated[
    str | None,
    typer.Option(
        "--bars", metavar="FILE|store:NAME", help="The latest bars. Default: those of the run."
    ),
]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="Method of the run. Default: the first.")
]
NowOption = Annotated[
    str | None,
    typer.Option("--now", metavar="TIME", help="Judge how recent bars are by this time (UTC)."),
]
WatchOption = Annotated[
    bool, typer.Option("--watch", help="Go on: decide once at each bar's close.")
]
OnSignalOption = Annotated[
    str | None,
    typer.Option(
        "--on-signal",
        metavar="CMD",
        help="With --watch: run this at each decision or alert, JSON on its input.",
    ),
]
WebhookOption = Annotated[
    str | None,
    typer.Option("--webhook", metavar="URL", help="With --watch: send the same JSON there."),
]
CapitalOption = Annotated[
    float | None,
    typer.Option("--capital", help="Cash and positions, in money. Default: as in the run."),
]


def moment_of(text: str | None) -> "pd.Timestamp | None":
    """Read a time of the command line."""
    if text is None:
        return None
    from maml_jax.data import parse_moment

    return parse_moment(text, end=False)


def frames_of(result, bars: str | None, layout, overrides) -> "dict[str, pd.DataFrame]":
    """Return the bars that a command names, or those of the run."""
    from maml_jax.data import read_bars
    from maml_jax.experiment.preparation.bars import is_stored
    from maml_jax.live.latest import read_source

    if bars is None or is_stored(bars):
        return read_source(result, bars)
    return read_bars(bars, **file_settings(layout, overrides, base=result.config))


def keep_watching(result, bars, read, decide, show, record, calls, last) -> NoReturn:
    """Decide at each bar's close, until a signal ends the process.

    Args:
        result: of the run.
        bars: what was named instead of the run's own bars.
        read: reads them.
        decide: takes the bars.
        show: prints what was decided.
        record: returns it as JSON, for the command and the webhook.
        calls: a command and an address, each may be None.
        last: time of the last bar that was decided on before.
    """
    from maml_jax import watchdog
    from maml_jax.live.calls import call_command, call_webhook
    from maml_jax.live.latest import refresher
    from maml_jax.live.watch import watch

    command, webhook = calls
    interval = next(iter(result.checkpoints.values())).interval
    watchdog.expect_waiting()
    for event in watch(refresher(result, bars, read), decide, interval=interval, last=last):
        typer.echo(f"{event.time:%Y-%m-%d %H:%M:%S} {event.kind}: {event.text}", err=True)
        if event.kind == "signal":
            show(event.value)
        content = record(event.value) if event.kind == "signal" else None
        if event.kind in ("signal", "alert"):
            alert = json.dumps({"kind": event.kind, "time": str(event.time), "text": event.text})
            for problem in (
                *call_command(command, event.kind, content or alert),
                *call_webhook(webhook, content or alert),
            ):
                typer.echo(f"{event.time:%Y-%m-%d %H:%M:%S} fault: {problem}", err=True)
    raise AssertionError("a watch goes on until it is stopped")
