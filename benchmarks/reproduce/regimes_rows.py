"""Worlds that switch between regimes, and ways to walk forward through them."""

from typing import Literal, NamedTuple

from maml_jax.backtest.walk_forward.online import Updates
from maml_jax.worlds.switching import SwitchingWorld

WORLDS = {
    "recurring": SwitchingWorld(snr=0.5, regimes=4, stay=60.0),
    "changed": SwitchingWorld(
        snr=0.5, regimes=4, stay=60.0, new_regimes=4, new_directions=True, retire=True
    ),
}
"""Regimes that come back; and others, along other directions, once meta-training has ended."""

TITLES = {
    "recurring": "Regimes that were met in meta-training",
    "changed": "Regimes that are new once meta-training has ended",
}

WINDOW, QUERY = 30, 10
META_BATCH = 16
HIDDEN = 32
INNER_STEPS, INITIAL_RATE = 5, 0.02
OUTER_RATE, LAST_RATE = 3e-3, 1e-3
"""Of Adam, along a cosine; updates go on at the last one."""

FIRST_SEED = 1
"""Settings were chosen on seed 0, which no table shows."""

BUCKETS = (0, 1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 38, 48, 60, 80)
"""Bars since a switch, from each up to the next; the last one's end is open."""

Labels = Literal["inferred", "true"]

NAMES_IN_FILES = {"inferred": "told"}
"""What results are found by, where it is another word."""


class RegimesRow(NamedTuple):
    """One way to walk forward.

    Attributes:
        key: its name on the command line.
        name: its name in tables.
        labels: whether supports are chosen by the regime in force: inferred from returns, or the
            true one.
        updates: how meta-parameters are updated; None leaves them as meta-training did.
        worlds: where it is tried.
    """

    key: str
    name: str
    labels: Labels | None = None
    updates: Updates | None = None
    worlds: tuple[str, ...] = tuple(WORLDS)


ONLINE = Updates(every=21, steps=20, meta_batch=META_BATCH, recent=500)
RETRAINED = Updates(every=250, steps=600, meta_batch=META_BATCH, recent=1500, restart=True)

ROWS = (
    RegimesRow("frozen", "MAML, frozen"),
    RegimesRow("regime", "support of the regime in force", "inferred"),
    RegimesRow("true-regime", "support of the true regime", "true"),
    RegimesRow("online", "MAML, updated online", None, ONLINE),
    RegimesRow("online-regime", "both", "inferred", ONLINE),
    RegimesRow("retrained", "MAML, retrained from scratch", None, RETRAINED, ("changed",)),
)
