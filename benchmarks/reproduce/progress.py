"""Progress of long computations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from maml_jax.terminal import ProgressBars

Advance = Callable[[int], None]
"""Called with the number of meta-steps done since the last call."""


class Progress:
    """Shows progress on a console: bars on a terminal, else one line for each job that is done.

    Args:
        console: where; None shows nothing.
    """

    def __init__(self, console: Console | None = None):
        self._console = console
        self._bars = None
        if console is not None and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            rest = TimeRemainingColumn()
            self._bars = ProgressBars(*columns, rest, console=console, transient=True)

    def log(self, line: str) -> None:
        """Print one line."""
        if self._console is not None:
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)

    @contextmanager
    def job(self, name: str, steps: int) -> Iterator[Advance]:
        """Show a bar while one job lasts, and give what moves it.

        Args:
            name: stands beside the bar.
            steps: meta-steps of the whole job.
        """
        bars = self._bars
        with nullcontext() if bars is None else bars:
            if bars is None:
                yield lambda _: None
                return
            bar = bars.add_task(name, total=steps)
            try:
                yield lambda done: bars.advance(bar, done)
            finally:
                bars.remove_task(bar)
