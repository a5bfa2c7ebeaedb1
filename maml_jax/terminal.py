"""Progress bars on the terminal."""

from collections.abc import Iterable
from threading import current_thread

from rich.console import RenderableType
from rich.progress import Progress

from maml_jax import watchdog


class ProgressBars(Progress):
    """Rich's progress bars, whose drawing does not count as progress of the command.

    Drawing takes some 2 % of a core even if nothing moves: twenty times the watchdog's threshold.
    """

    def get_renderables(self) -> Iterable[RenderableType]:
        if current_thread().daemon:  # the refreshing thread
            watchdog.ignore_this_thread()
        yield from super().get_renderables()
