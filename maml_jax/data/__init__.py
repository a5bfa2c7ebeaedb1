"""Where bars come from. Pandas only; nothing here knows of arrays on a device."""

from .bars import as_bars as as_bars
from .bars import bar_interval as bar_interval
from .bars import require_same_interval as require_same_interval
from .bars import to_bars as to_bars
from .builtin import builtin_bars as builtin_bars
from .files import read_bars as read_bars
