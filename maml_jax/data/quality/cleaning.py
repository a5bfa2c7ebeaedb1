"""Apply the user's policies to what the checks find, and note it."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from maml_jax.data.options import reading_notes
from maml_jax.data.quality.checks import MEANINGS, Finding, check_bars
from maml_jax.errors import DataError
from maml_jax.listing import show_value, suggest

Policy: TypeAlias = Literal["keep", "drop", "mask"]
Policies: TypeAlias = Policy | Mapping[str, Policy]

SURE = ("bad_tick", "bad_open", "ohlc")
"""Kinds that a single policy acts on: bars of which a price is certainly wrong."""
ACTS_ON = (*SURE, "wick", "irregular", "zero_volume", "stale", "last_bar", "gap")
"""Kinds that can have a policy. Jumps and splits are never changed: if one is an error, correct the
series."""
_NOTED = (*ACTS_ON, "no_open", "duplicate", "unsorted", "absent", "apart", "split")
_DONE = {"keep": "kept", "drop": "dropped", "mask": "masked"}


class Cleaned(NamedTuple):
    """Bars after the user's policies.

    Attributes:
        bars: by asset; masked bars are NaN.
        found: the findings before.
        notes: what the reader did, and what was found and done, one line per kind.
    """

    bars: dict[str, pd.DataFrame]
    found: dict[str, list[Finding]]
    notes: tuple[str, ...]


def clean_bars(bars: Mapping[str, pd.DataFrame], policies: Policies = "keep") -> Cleaned:
    """Check bars and apply policies to the findings.

    `keep` leaves a bar as it is. `drop` removes it, so that returns span it. `mask` sets its values
    to NaN: features and labels that would read it are missing, so a model makes no prediction, and
    takes no position, until its windows are clear of it; an order due in it is filled at the next
    known price. Masking a gap adds the missing bars as NaN.

    A bad tick is recognised by the bars after it. On the day itself nobody could have dropped it,
    so a backtest on cleaned bars is that much too optimistic.

    Args:
        bars: in normal form, by asset.
        policies: one for all bars that are certainly wrong (bad ticks, contradictions), or one per
            kind of finding in `ACTS_ON`; kinds without one are kept.

    Raises:
        DataError: if a policy or kind is unknown, or no bar of an asset is left.
    """
    chosen = read_policies(policies)
    found = check_bars(bars)
    result = {}
    for name, frame in bars.items():
        for kind, policy in chosen.items():
            times = [each.times for each in found[name] if each.kind == kind]
            if times:
                frame = _act(frame, times[0], policy)
        if not frame["close"].notna().any():
            raise DataError(
                f"{name}: the policies {chosen} leave none of its {len(bars[name])} bars"
            )
        result[name] = frame
    return Cleaned(result, found, (*reading_notes(bars), *_notes(found, chosen)))


def read_policies(policies: Policies) -> dict[str, Policy]:
    """Return the policy of each kind that is not kept.

    Raises:
        DataError: naming an unknown kind or policy.
    """
    if isinstance(policies, str):
        policies = dict.fromkeys(SURE, policies)
    for kind, policy in policies.items():
        if kind not in ACTS_ON:
            meant = suggest(str(kind), ACTS_ON)
            hint = f". Did you mean `{meant}`?" if meant else ""
            raise DataError(
                f"{show_value(kind)} cannot have a policy; expected one of {list(ACTS_ON)}{hint}"
            )
        if policy not in _DONE:
            raise DataError(f"policy {show_value(policy)} of {kind}: expected one of {list(_DONE)}")
        if kind == "gap" and policy == "drop":
            raise DataError("gaps cannot be dropped: keep or mask them")
    return {kind: policy for kind, policy in policies.items() if policy != "keep"}


def _act(bars: pd.DataFrame, times: pd.DatetimeIndex, policy: Policy) -> pd.DataFrame:
    if policy == "drop":
        return bars[~bars.index.isin(times)]
    index = bars.index.union(times).rename(bars.index.name)
    masked = bars.reindex(index)
    masked.loc[index.isin(times)] = np.nan
    return masked


def _notes(found: Mapping[str, list[Finding]], chosen: Mapping[str, Policy]) -> tuple[str, ...]:
    notes = []
    for kind in _NOTED:
        hits = [(name, each) for name, findings in found.items() for each in findings]
        hits = [(name, each) for name, each in hits if each.kind == kind]
        if not hits:
            continue
        counted = ", ".join(f"{name} ({len(each.times)})" for name, each in hits[:5])
        more = f" and {len(hits) - 5} more assets" if len(hits) > 5 else ""
        detail = f": {hits[0][1].detail}" if len(hits) == 1 and hits[0][1].detail else ""
        done = f"; {_DONE[chosen.get(kind, 'keep')]}" if kind in ACTS_ON else ""
        notes.append(f"Bars, {kind}: {counted}{more} ({MEANINGS[kind]}){detail}{done}.")
    return tuple(notes)
