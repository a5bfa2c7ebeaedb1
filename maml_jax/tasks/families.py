"""Task families: tables of windows, by where rows come from and what is one group."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from maml_jax.errors import DataError
from maml_jax.listing import quote_names
from maml_jax.tasks.panel import Panel
from maml_jax.tasks.pools import Part, Pool, SupportRows, make_pool, support_parts
from maml_jax.tasks.rows import LabelledRows, labelled_rows

Period: TypeAlias = Literal["month", "quarter", "year"]


class Windows(NamedTuple):
    """Where tasks can be cut from a Panel; sorted by group, then by the bar that completes them.

    Rows are counted in `entries`, a list of labelled rows in which every support and query set is
    one stretch (a support set of several parts: one for each).

    Attributes:
        asset: of the first query row, `[window]`.
        stop: index past the last support row, `[window, part]`.
        query: index of the first query row, `[window]`.
        group: `[window]`; a task is drawn by drawing a group, then a window in it.
        known: index on the time axis of the bar that completes the last query label, `[window]`.
        sizes: rows of each part of a support set.
        query_size: rows of a query set.
        entries: numbers of labelled rows, counted through all assets, `[entry]`.
        rows: the labelled rows.
        weight: how often each group is drawn, by its number in ascending order; None: equally.
        family: number of the family that each group belongs to, in the same order; None: one.
    """

    asset: Int[np.ndarray, " window"]
    stop: Int[np.ndarray, "window part"]
    query: Int[np.ndarray, " window"]
    group: Int[np.ndarray, " window"]
    known: Int[np.ndarray, " window"]
    sizes: tuple[int, ...]
    query_size: int
    entries: Int[np.ndarray, " entry"]
    rows: LabelledRows
    weight: Float[np.ndarray, " group"] | None = None
    family: Int[np.ndarray, " group"] | None = None

    def support_rows(self, window: int) -> Int[np.ndarray, " row"]:
        """Return the numbers of a window's support rows among the labelled rows of all assets."""
        parts = zip(self.stop[window], self.sizes, strict=True)
        return np.concatenate([self.entries[stop - size : stop] for stop, size in parts])

    def query_rows(self, window: int) -> Int[np.ndarray, " row"]:
        """Return the numbers of a window's query rows among the labelled rows of all assets."""
        first = self.query[window]
        return self.entries[first : first + self.query_size]


def asset_family(
    panel: Panel,
    *,
    support: int | SupportRows,
    query: int,
    embargo: int = 0,
    assets: Sequence[str] | None = None,
    first: int = 0,
    last: int | None = None,
    length: int | None = None,
) -> Windows:
    """List the windows of the asset family: one asset is one group.

    A window is `support` rows in a row, then `query` rows in a row. The first query row is the
    first whose bar closes with the last support label complete, plus `embargo` rows: no support
    label reaches into what the query is asked.

        rows     s s s s . . . q q q
        labels         |-----|            label_delay bars from the last s to the first q

    With supports from the cross-section a window is made of the rows of all assets in the order of
    time, query rows too, and a group is a class of assets. With mixed supports the query is of one
    asset.

    Args:
        panel: what to cut from.
        support: rows of a support set; as `SupportRows` also whose they are.
        query: rows of a query set.
        embargo: further rows left out between the two.
        assets: names of the assets to use; default all.
        first: index on the time axis of the first row that may be used.
        last: index of the bar at which the last label must be complete; default the end.
        length: how many bars a sequence model reads at a row, itself last: `x` of a task is
            `[row, length, feature]`. They may reach back before `first`. None for models that read
            the row's features alone.

    Raises:
        DataError: if an asset is unknown, or none has room for a window.
        ValueError: if a size or the origin of support rows is impossible.
    """
    parts = support_parts(panel, support)
    return _family(panel, parts, parts[-1].sources, query, embargo, assets, first, last, length)


def label_family(
    panel: Panel,
    labels: Int[np.ndarray, "asset time"],
    *,
    support: int | SupportRows,
    query: int,
    embargo: int = 0,
    assets: Sequence[str] | None = None,
    first: int = 0,
    last: int | None = None,
    length: int | None = None,
) -> Windows:
    """List the windows of a family of labelled bars, such as regimes: one label is one group.

    Support and query are rows of bars with the same label, in the order of time; bars with other
    labels that come between are passed over.

    Args:
        panel: what to cut from.
        labels: of each bar of each asset, known at that bar; -1 for none, which is left out.
        support: rows of a support set; as `SupportRows` also whose they are.
        query: rows of a query set.
        embargo: further rows left out between the two.
        assets: names of the assets to use.
        first: index of the first bar that may be used.
        last: index of the bar at which the last label must be complete.
        length: how many bars a sequence model reads at a row.

    Raises:
        DataError: if an asset is unknown, or no label has room for a window.
        ValueError: if a size or the origin of support rows is impossible.
    """
    parts = support_parts(panel, support, labels)
    return _family(panel, parts, labels, query, embargo, assets, first, last, length)


def regime_family(panel: Panel, **options) -> Windows:
    """List the windows of the regime family: support and query from bars of one regime.

    Args:
        panel: what to cut from, with regimes.
        **options: as for `label_family`.

    Raises:
        DataError: if the panel has no regimes, an asset is unknown, or no regime has room.
    """
    return label_family(panel, require_regimes(panel), **options)


def period_family(panel: Panel, *, period: Period = "quarter", **options) -> Windows:
    """List the windows of the period family: each month, quarter or year is one group.

    The query is of one period. The support set is what is complete at its first row, as in use,
    where the first days of a period are predicted from the last one; a family that kept to
    one period would have no month of daily bars with 20 rows to adapt on.

    Args:
        panel: what to cut from.
        period: `month`, `quarter` or `year`.
        **options: as for `asset_family`.

    Raises:
        DataError: if an asset is unknown, or no period has room for a query.
        ValueError: if the period is unknown.
    """
    labels = period_labels(panel, period)
    windows = asset_family(panel, **options)
    rows = windows.rows
    number = windows.entries[windows.query[:, None] + np.array([0, windows.query_size - 1])]
    asset = np.searchsorted(rows.first, number, side="right") - 1
    first, last = labels[asset, rows.time[asset, number - rows.first[asset]]].T
    windows = windows._replace(group=first)
    if not (first == last).any():
        raise DataError(f"no {period} has room for a query set of {windows.query_size} rows")
    return _sort(windows, first == last)


def strategy_family(
    panel: Panel, *, strategies: Sequence[str], support: int | SupportRows, **options
) -> Windows:
    """List the windows of the strategy family: series that follow one rule are one group.

    Args:
        panel: of series, one for each asset and rule.
        strategies: name of the rule of each series of the panel.
        support: rows of a support set; rules replace its classes, so that a
            cross-section is of one rule.
        **options: as for `asset_family`.

    Raises:
        DataError: if a series is unknown, or none has room for a window.
    """
    names = list(dict.fromkeys(strategies))
    numbers = np.array([names.index(name) for name in strategies])
    support = support if isinstance(support, SupportRows) else SupportRows(support)
    windows = asset_family(panel, support=support._replace(classes=numbers), **options)
    return _sort(windows._replace(group=numbers[windows.asset]))


def mix_families(families: Sequence[tuple[Windows, float]]) -> Windows:
    """Draw from several families of one panel, each with a weight.

    A task is drawn by drawing a family in proportion to the weights, then a group of it.

    Args:
        families: windows with supports and queries of the same sizes, and their weights.

    Raises:
        ValueError: if there is none, a weight is not positive, or sizes differ.
    """
    if not families or not all(weight > 0 for _, weight in families):
        raise ValueError("a mixture needs families, each with a positive weight")
    tables = [windows for windows, _ in families]
    if len({(each.sizes, each.query_size, each.rows.length) for each in tables}) > 1:
        raise ValueError("families of a mixture need supports and queries of the same sizes")
    entry, group, parts, shares, numbers = 0, 0, [], [], []
    total = sum(weight for _, weight in families)
    for windows, weight in families:
        kinds, number = np.unique(windows.group, return_inverse=True)
        within = np.full(len(kinds), 1.0) if windows.weight is None else windows.weight
        shares.append(within / within.sum() * weight / total)
        numbers.append(np.full(len(kinds), len(numbers)))
        parts.append(
            windows._replace(
                stop=windows.stop + entry, query=windows.query + entry, group=number + group
            )
        )
        entry, group = entry + len(windows.entries), group + len(kinds)
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("asset", "stop", "query", "group", "known", "entries")
    }
    return parts[0]._replace(
        **joined, weight=np.concatenate(shares), family=np.concatenate(numbers)
    )


def period_labels(panel: Panel, period: Period) -> Int[np.ndarray, "asset time"]:
    """Number the calendar periods that bars open in.

    Raises:
        ValueError: if the period is unknown.
    """
    if period not in get_args(Period):
        raise ValueError(f"period is one of {get_args(Period)}, not {period!r}")
    times = pd.DatetimeIndex(panel.timestamps)
    within = {"month": times.month, "quarter": times.quarter, "year": 0 * times.year}[period]
    number = 12 * times.year + within
    numbers = np.unique(np.asarray(number, np.int64), return_inverse=True)[1]
    return np.broadcast_to(numbers, panel.valid.shape)


def require_regimes(panel: Panel) -> Int[np.ndarray, "asset time"]:
    """Return the regime of every bar of every asset.

    Raises:
        DataError: if the panel has none.
    """
    if panel.regimes is None:
        raise DataError("the panel has no regimes; set its field regimes, [asset, time]")
    return panel.regimes


def bars_needed(
    *,
    warm_up: int,
    support: int,
    query: int,
    label_delay: int,
    embargo: int,
    length: int | None = None,
) -> int:
    """Return the length of the shortest series that holds one window.

    >>> sizes = {"support": 20, "query": 10, "label_delay": 6, "embargo": 0}
    >>> bars_needed(warm_up=20, **sizes), bars_needed(warm_up=20, length=16, **sizes)
    (61, 76)
    """
    first_row = warm_up + (0 if length is None else length - 1)
    first_query = first_row + support - 1 + label_delay + embargo
    return first_query + query - 1 + label_delay + 1


def asset_numbers(panel: Panel, assets: Sequence[str] | None) -> list[int]:
    """Return the indices of assets in a panel; all of them if None.

    Raises:
        DataError: naming an asset that the panel does not hold.
    """
    if assets is None:
        return list(range(len(panel.assets)))
    unknown = [name for name in assets if name not in panel.assets]
    if unknown:
        raise DataError(
            f"unknown assets {quote_names(unknown)}; the panel holds {quote_names(panel.assets)}"
        )
    return [panel.assets.index(name) for name in assets]


def _family(
    panel: Panel,
    parts: tuple[Part, ...],
    groups: Int[np.ndarray, "asset time"],
    query: int,
    embargo: int,
    assets: Sequence[str] | None,
    first: int,
    last: int | None,
    length: int | None,
) -> Windows:
    if query < 1 or embargo < 0:
        raise ValueError("query needs at least 1 row, and embargo at least 0")
    rows = labelled_rows(panel, length)
    last = len(panel.timestamps) - 1 if last is None else last
    span = {"assets": asset_numbers(panel, assets), "first": first, "last": last}
    pools = [make_pool(rows, part.sources, **span) for part in parts]
    pool = pools[-1]
    latest = _last_completed(pool)
    stops = [_find_stops(pool, latest, *each) for each in zip(pools, parts, strict=True)]
    start = pool.unseen(pool.source[latest], pool.label_end[latest]) + embargo
    fits = start + query <= pool.end(pool.source[latest])
    for each, part in zip(stops, parts, strict=True):
        fits &= each.enough(part.rows)
    if not fits.any():
        support = sum(part.rows for part in parts)
        read = f" that each read {length} bars" if length is not None else ""
        raise DataError(
            f"no asset has room for a window of {support} support and {query} query rows{read}"
        )
    start = start[fits]
    # Entries of all pools stand in one list, one pool after the other.
    offset = np.cumsum([0, *(len(each.row) for each in pools)])
    shifted = [each.stop[fits] + begin for each, begin in zip(stops, offset, strict=False)]
    return _sort(
        Windows(
            asset=pool.asset[start],
            stop=np.stack(shifted, axis=1),
            query=start + offset[len(pools) - 1],
            group=groups[pool.asset[start], pool.time[start]],
            known=pool.label_end[start + query - 1],
            sizes=tuple(part.rows for part in parts),
            query_size=query,
            entries=np.concatenate([each.row for each in pools]),
            rows=rows,
        )
    )


class _Stops(NamedTuple):
    """What a part of the support offers to each window: from `begin` to `stop`."""

    begin: Int[np.ndarray, " window"]
    stop: Int[np.ndarray, " window"]

    def enough(self, rows: int):
        return self.stop - self.begin >= rows


def _last_completed(pool: Pool) -> Int[np.ndarray, " window"]:
    """Return the last of the entries of each source whose labels one bar completes."""
    key = np.stack([pool.source, pool.label_end])
    return np.flatnonzero(np.append((key[:, 1:] != key[:, :-1]).any(axis=0), len(pool.row) > 0))


def _find_stops(pool: Pool, latest: Int[np.ndarray, " window"], other: Pool, part: Part) -> _Stops:
    """Find what another part offers at the bar that completes the latest own label."""
    source = part.sources[pool.asset[latest], pool.time[latest]]
    return _Stops(other.begin(source), other.complete(source, pool.label_end[latest]))


def _sort(windows: Windows, kept: Bool[np.ndarray, " window"] | None = None) -> Windows:
    """Sort windows by group, then by the bar that completes them; leave out what is not kept."""
    order = np.lexsort((windows.query, windows.known, windows.group))
    order = order if kept is None else order[kept[order]]
    fields = ("asset", "stop", "query", "group", "known")
    return windows._replace(**{name: getattr(windows, name)[order] for name in fields})
