"""The examples run, offline, and say what they claim to say."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_multi_asset(capsys):
    table = runpy.run_path(str(EXAMPLES / "multi_asset.py"))["main"](steps=60)
    assert list(table.index) == [0, 1, 2, 3, 4, 5]
    assert (table["meta-learned"] < table["from scratch"]).all()
    assert "query error on WTI" in capsys.readouterr().out


def test_trading_strategy(tmp_path, capsys):
    result = runpy.run_path(str(EXAMPLES / "trading_strategy.py"))["main"](
        steps=20, report=str(tmp_path / "report.html")
    )
    assert "buy and hold" in result.stats
    assert (tmp_path / "report.html").is_file()
    assert "the latest trades" in capsys.readouterr().out
