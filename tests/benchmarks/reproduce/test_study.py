"""All studies have one driver, and find their results again."""

import hashlib
import inspect
import json
import sys

import pandas as pd
import pytest

from benchmarks.reproduce import STUDIES, claims, evidence, study, volatility
from benchmarks.reproduce.__main__ import main
from benchmarks.reproduce.results import Job, locate
from benchmarks.reproduce.study import QUICK, Option, Report, Study, prepare_call, reproduce
from benchmarks.reproduce.table import Table
from maml_jax.errors import ConfigError, TrainingError

BY_NAME = {each.name: each for each in STUDIES}

FILES = {
    "sinusoid": (32, "8fed2db6dc983210"),
    "sinusoid quick": (18, "b0c060cd25f67879"),
    "known-answer": (234, "c06fc6537034e957"),
    "known-answer quick": (78, "8a354964728f36fa"),
    "claims": (25, "fcaa9661e8c3ad63"),
    "claims quick": (5, "3b591ec40028fa63"),
    "uncertainty": (24, "3f82e0d2d7feb89b"),
    "uncertainty quick": (8, "10d9cc45ffd05860"),
    "hierarchy": (80, "48ad724d8a85fe67"),
    "hierarchy quick": (8, "a983297d6b10b293"),
    "regimes": (110, "5a23c83784c271c0"),
    "regimes quick": (11, "d815aa79a88889bf"),
    "volatility": (28, "98a1610cd7515722"),
    "volatility quick": (10, "dc91de94eac6b07b"),
    "volatility crypto": (28, "71b617a269c31534"),
    "volatility crypto quick": (10, "ad4e3b010264dae5"),
    "evidence": (132, "51afbde09a5dc08a"),
    "evidence quick": (44, "26832992afc0045d"),
    "null-world test": (8, "bf6f28b4c712a36e"),
    "null-world test quick": (8, "d83b6f295ddc183b"),
    "null-world pipeline": (350, "51dffb30cee76fad"),
    "null-world pipeline quick": (8, "8f5b9eb6a0710226"),
}
"""How many files of results a study has, and a digest of their names, which hold digests of all
settings. Where one changes, what was computed is not found again."""

ANY = {"failed": "", "significant": 0, "known": 0, "ic": 0.0}


class Planned(Exception):
    """Ends a call once its jobs are known."""


def made_up(asset: str, start: str) -> dict[str, pd.DataFrame]:
    index = pd.date_range(start, periods=50, freq="D", tz="UTC", name="timestamp")
    return {f"{asset}{i:02d}": pd.DataFrame({"close": 1.0}, index=index) for i in range(12)}


@pytest.fixture(scope="module")
def bars(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bars")
    for name in ("bars.csv", "crypto.csv"):
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("case", FILES)
def test_results_are_found_again(case, bars, tmp_path, monkeypatch):
    name, *more = case.split()
    stocks, crypto = bars / "bars.csv", bars / "crypto.csv"
    options = {
        "claims": {"bars": stocks},
        "volatility": {"bars": stocks},
        "evidence": {"stocks": stocks, "crypto": crypto},
        "null-world": {"parts": more[:1]},
    }.get(name, {})
    if "crypto" in more:
        options = {"bars": crypto, "market": "crypto"}
    files = []

    def plan(jobs, folder, progress):
        jobs = list(jobs)
        files.extend(locate(job, folder)[0].name for job in jobs)
        if name != "hierarchy" and "pipeline" not in more:  # which perform in several calls
            raise Planned
        return [ANY for _ in jobs]

    def read(path):
        both = {stocks: made_up("A", "2009-12-20"), crypto: made_up("C", "2024-05-20")}
        return both[path]

    monkeypatch.setattr(study, "perform", plan)
    for module in (claims, evidence, volatility):
        monkeypatch.setattr(module, "read_bars", read)
    call = prepare_call(BY_NAME[name], tmp_path, None, {**options, "quick": "quick" in more})
    try:
        BY_NAME[name].run(call)
    except Planned:
        pass
    digest = hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()[:16]
    assert (len(files), digest) == FILES[case]


def count(call):
    """Squares, of which the third fails."""

    def job(number):
        def make(advance):
            advance(1)
            if number == 3:
                raise TrainingError("too much", step=3, tasks=[])
            return {"square": number**2}

        return Job(f"square-{number}", {"number": number}, 1, make, str)

    found = call.perform(
        (number % 2, job(number)) for number in range(call.options["count"] + call.options["more"])
    )
    rows = [(str(key), str(results)) for key, results in found.items()]
    return Report([Table("Squares", ("key", "results"), rows)], {"found": found}, suffix="-all")


SQUARES = Study(
    "squares",
    "Squares.",
    count,
    options={
        "count": Option(int, "How many.", "number", default=4),
        "more": Option(int, "And more.", required=True),
        "quick": QUICK,
    },
)


def test_a_study_is_computed_written_and_resumed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.reproduce.__main__.STUDIES", (SQUARES, *STUDIES))
    asked = ["squares", "--more", "1", "--quick", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["reproduce", *asked])
    shown = []
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
        shown.append(capsys.readouterr())
    assert shown[0].out == shown[1].out
    assert "QUICK" in shown[0].out and f"results: {tmp_path}" in shown[0].out
    assert "square-3: failed: too much" in shown[0].err
    assert shown[1].err.count("found in") == 5
    record = json.loads((tmp_path / "squares-all.json").read_text())
    assert record["command"] == f"python -m benchmarks.reproduce {' '.join(asked)}"
    assert record["quick"] and record["where"]["devices"] >= 1
    even = [{"square": 0}, {"square": 4}, {"square": 16}]
    odd = [{"square": 1}, {"failed": "too much"}]
    assert record["found"] == {"0": even, "1": odd}
    assert "## QUICK" in (tmp_path / "squares-all.md").read_text()


def test_impossible_options_are_refused(tmp_path):
    with pytest.raises(TypeError, match="squares has no option seeds"):
        reproduce(SQUARES, more=1, seeds=2, out=tmp_path / "new")
    with pytest.raises(TypeError, match="squares requires more"):
        reproduce(SQUARES, out=tmp_path / "new")
    with pytest.raises(ConfigError, match="--count: must be at least 1, got 0"):
        reproduce(SQUARES, more=1, count=0, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_command_line_offers_every_study(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["reproduce", "--help"])
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    for each in STUDIES:
        assert each.name in out
        assert list(inspect.signature(each.run).parameters) == ["call"]
