"""The claims as tables: claimed, measured, and whether that holds."""

from collections.abc import Mapping

from benchmarks.reproduce.claims_bars import GROUPS, JOINT, METHOD, STRATEGIES
from benchmarks.reproduce.claims_race import STEPS
from benchmarks.reproduce.estimate import Estimate, estimate
from benchmarks.reproduce.results import read_number
from benchmarks.reproduce.table import Table
from maml_jax.backtest.strategy_names import FROM_SCRATCH, NO_ADAPTATION

CLAIMED_SPEED = 3.0
TARGETS = {
    "sharpe": ("Sharpe ratio", 1.0, True),
    "sortino": ("Sortino ratio", 1.5, True),
    "drawdown": ("maximum drawdown, %", 20.0, False),
    "win_rate": ("win rate of trades, %", 50.0, True),
    "profit_factor": ("profit factor of trades", 1.5, True),
}
"""What the portfolio should reach: name, bound, and whether above or below it."""

RIVALS = {
    FROM_SCRATCH: "the same network from scratch",
    JOINT: "joint training",
    NO_ADAPTATION: "its own start, unadapted",
}

RULE = (
    "Holds: yes where the whole 95 % interval is on the side of the claim, no where it is wholly on"
    " the other side, else not shown. Intervals are over seeds, by Student's t; where all seeds"
    " meet one history, the deviation over histories like it (stationary bootstrap in blocks of"
    " about 20 bars, of trades one by one) is added in quadrature. A gain in Sharpe is judged"
    " against 15 % of the size of the ratio before."
)


def make_tables(races: Mapping[str, list[dict]], markets: Mapping[str, list[dict]]) -> list[Table]:
    """Make all tables.

    Args:
        races: results of races by the name of their world, one per seed.
        markets: results of markets by name, likewise.
    """
    rows = []
    for name, results in races.items():
        rows += _speed_claims(name, results, one_history=name in markets)
    for claims in (_sharpe_claims, _unseen_claims, _target_claims):
        rows += [row for name, results in markets.items() for row in claims(name, results)]
    head = ("claim", "where", "claimed", "measured", "holds?")
    return [
        Table("The seed's claims, measured", head, rows, RULE),
        _speed_table(races),
        _sharpe_table(markets),
        _error_table(markets),
    ]


def _of(results: list[dict], *path: str) -> Estimate:
    """Estimate what stands at a path in each seed's result."""
    values, deviations = [], []
    for each in results:
        for key in path:
            each = each[key]
        values.append(read_number(each["value"]))
        if "sd" in each:
            deviations.append(read_number(each["sd"]))
    return estimate(values, deviations)


def _speed_claims(name: str, results: list[dict], one_history: bool) -> list[tuple[str, ...]]:
    ratio = estimate([each["ratio"] for each in results])
    adapting, step = _quickest(results)
    time = Estimate(*(each * STEPS * step / adapting for each in ratio))
    never = sum(each["steps_to_reach"] is None for each in results)
    bound = "at least " if never else ""
    short = f"not reached in {never} of {len(results)} trainings; " if never else ""
    # Windows of one history are the same for all seeds; simulated tasks are each seed's own.
    common = [each["gain_half"] / 1.96 for each in results] if one_history else []
    gain = estimate([each["gain"] for each in results], common)
    return [
        (
            f"steps from scratch to MAML's error after {STEPS}",
            name,
            "3-5 times as many",
            f"{short}{bound}{ratio.text(1)} times",
            ratio.holds(CLAIMED_SPEED),
        ),
        (
            "time for these steps",
            name,
            "3-5 times as long",
            f"{bound}{time.text(1)} times",
            time.holds(CLAIMED_SPEED),
        ),
        (
            f"{STEPS} steps lower the query error of the start",
            name,
            "implied",
            f"by {gain.text(4)}",
            gain.holds(),
        ),
    ]


def _sharpe_claims(name: str, results: list[dict]) -> list[tuple[str, ...]]:
    rows = []
    for kind in ("net", "gross"):
        gain, beyond, before = (
            _of(results, "unseen", kind, each) for each in ("gain", "beyond_claim", "before")
        )
        share = f" ({100 * gain.mean / before.mean:+.0f} %)" if before.mean > 0 else ""
        rows.append(
            (
                f"Sharpe ratio after adaptation, {kind}, unseen assets",
                name,
                "+15-30 %",
                f"{gain.text()} from {before.mean:.2f}{share}",
                beyond.holds(),
            )
        )
    return rows


def _unseen_claims(name: str, results: list[dict]) -> list[tuple[str, ...]]:
    rows = []
    for rival, words in RIVALS.items():
        ahead = _of(results, "unseen", "ahead", rival)
        rows.append(
            (
                f"error on unseen assets, against {words}",
                name,
                "lower",
                f"R2 {ahead.text(2, 100)} points higher",
                ahead.holds(),
            )
        )
    return rows


def _target_claims(name: str, results: list[dict]) -> list[tuple[str, ...]]:
    rows = []
    for key, (words, bound, above) in TARGETS.items():
        measured = _of(results, "unseen", "portfolio", key)
        rows.append(
            (
                f"{words}, net, unseen assets",
                name,
                f"{'>' if above else '<'} {bound:g}",
                measured.text(),
                measured.holds(bound, above),
            )
        )
    return rows


def _quickest(results: list[dict]) -> tuple[float, float]:
    """Return the least milliseconds of adapting to a task, and of a step from scratch.

    How long the same work takes differs by what else the machine does, not by the seed.
    """
    steps = [each["scratch_ms"] / (STEPS * each["ratio"]) for each in results if each["ratio"]]
    return min(each["adapting_ms"] for each in results), min(steps, default=0.0)


def _speed_table(races: Mapping[str, list[dict]]) -> Table:
    rows = []
    for name, results in races.items():
        means = {
            key: estimate([each[key] for each in results]).text(4)
            for key in ("zero", "start", "adapted", "scratch")
        }
        ways = ", ".join(dict.fromkeys(each["scratch_way"] for each in results))
        stopped = sorted(each["scratch_step"] for each in results)
        span = "-".join(map(str, dict.fromkeys((stopped[0], stopped[-1]))))
        reached = estimate([each["reached"] for each in results]).text(0, 100)
        adapting, step = _quickest(results)
        needed = STEPS * estimate([each["ratio"] for each in results]).mean
        ms = (f"{each:.2g}" for each in (adapting, needed * step))
        rows.append((name, *means.values(), f"{ways}, step {span}", reached, *ms))
    columns = (
        "where",
        "predicting 0",
        "MAML, 0 steps",
        f"MAML, {STEPS} steps",
        "from scratch, best",
        "which",
        "tasks that reach MAML, %",
        "ms to adapt",
        "ms from scratch",
    )
    note = (
        "Mean squared query errors: in simulated tasks against the noiseless signal, on real bars"
        " against what came. From scratch has its best: the rate, optimizer and step with the least"
        " error on the query sets themselves, starting as initialised or from predicting 0; a task"
        " counts as reaching MAML if any of them does at any step. Milliseconds a task, adapting"
        f" {STEPS} steps, and from scratch to MAML's error or to the end of its steps; the least of"
        " all seeds."
    )
    return Table("Adapting against training from scratch", columns, rows, note)


def _sharpe_table(markets: Mapping[str, list[dict]]) -> Table:
    rows = [
        (
            name,
            group,
            kind,
            *(_of(results, group, kind, each).text() for each in ("before", "after", "gain")),
        )
        for name, results in markets.items()
        for group in GROUPS
        for kind in ("net", "gross")
    ]
    columns = ("where", "assets", "returns", "0 steps", f"{STEPS} steps", "difference")
    note = "Annualised Sharpe ratios of an equally weighted portfolio, by the sign of predictions."
    return Table("Sharpe ratio before and after adaptation", columns, rows, note)


def _error_table(markets: Mapping[str, list[dict]]) -> Table:
    rows = []
    for name, results in markets.items():
        for group in GROUPS:
            skill = (_of(results, group, "r2", each).text(2, 100) for each in STRATEGIES)
            agree = _of(results, group, "correlation", METHOD).text(1, 100)
            rows.append((name, group, *skill, agree))
    columns = (
        "where",
        "assets",
        f"MAML, {STEPS} steps",
        "MAML, 0 steps",
        "from scratch",
        "joint training",
        "correlation of MAML, %",
    )
    note = (
        "R2 in per cent against predicting 0, on the same dates for seen and unseen assets. From"
        " scratch takes the steps of MAML from untrained weights."
    )
    return Table("Error on seen and unseen assets", columns, rows, note)
