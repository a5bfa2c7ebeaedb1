"""What commands show on a terminal while they last."""

from collections.abc import Iterable
from threading import current_thread

from rich.console import RenderableType
from rich.progress import Progress

from maml_jax import watchdog


class ProgressBars(Progress):
    """Rich's progress bars; drawing them again and again is not taken for progress of the work.

    That takes some 2 % of a core, also while nothing moves: twenty times what tells a command that
    computes from one that is stuck.
    """

    def get_renderables(self) -> Iterable[RenderableType]:
        if current_thread().daemon:  # the one that refreshes
            watchdog.ignore_this_thread()
        yield from super().get_renderables()
