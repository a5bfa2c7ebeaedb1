"""What is said of runs on a thousand assets stays short enough to be read."""

import re
from types import SimpleNamespace

import pytest

from maml_jax.errors import ConfigError
from maml_jax.experiment.compare.compare import _describe_values
from maml_jax.experiment.preparation.bars import require_known
from maml_jax.experiment.preparation.requirements import TESTING, Needs, left_out, with_room
from maml_jax.experiment.result import Result
from maml_jax.listing import FEW, MOST
from maml_jax.notes import Note
from maml_jax.report.text import shorten_notes

NAMES = tuple(f"A{number}" for number in range(1000))


def _named(text):
    return len(re.findall(r"\bA\d+\b", text))


@pytest.mark.parametrize("short", [1, FEW, FEW + 1, 600])
def test_a_note_on_assets_left_out_counts_them_and_names_a_few(short):
    have = {name: place // short * 500 for place, name in enumerate(NAMES)}
    needs = Needs(TESTING, 300, "in the test span", "so it is")
    notes = []
    assert with_room(list(NAMES), False, have, needs, notes) == list(NAMES[short:])
    (note,) = notes
    assert (
        note.kind == left_out(TESTING)
        and _named(note.text) == min(short, FEW)
        and "needs 300 bars in the test span: A0 (0)" in note.text
    )
    assert (f"and {short - FEW:,} more assets; config.toml" in note.text) == (short > FEW)


def test_lists_of_many_names_are_told_by_how_they_differ():
    first, less, more = NAMES, tuple(n for n in NAMES if n not in ("A7", "A9")), (*NAMES, "B")
    told = _describe_values(
        {"a": first, "b": less, "c": more, "d": NAMES[::-1], "e": ("X",), "f": None}
    )
    assert told["a"].startswith("1,000: A0, A1") and told["a"].endswith("995 more")
    assert told["b"] == "998, those of a without A7, A9"
    assert told["c"] == "1,001, those of a with B"
    assert told["d"] == "1,000, those of a in another order"
    assert (told["e"], told["f"]) == ("X", "–")
    assert max(map(_named, told.values())) <= 2 * FEW
    few = {"a": ("A", "B"), "b": ("B",), "c": ()}
    assert _describe_values(few) == {"a": "A, B", "b": "B", "c": "none"}
    stocks = dict.fromkeys(NAMES, "stocks")
    told = _describe_values({"a": stocks, "b": {**stocks, "A1": "fx"}})
    assert told["b"] == "1,000, those of a without A1: stocks and with A1: fx"


def test_a_result_shows_itself_in_a_line_and_notes_are_shortened():
    data = SimpleNamespace(test_assets=NAMES, train_assets=None)
    notes = tuple(Note("ended", f"{name}: no bar after 2020-01-01.") for name in NAMES)
    result = Result(SimpleNamespace(data=data), {"maml": None}, None, notes)
    assert repr(result) == "Result(maml; trained; 1,000 assets)"
    told = shorten_notes(result.notes)
    assert len(told) == FEW + 1 and "995 more notes" in told[-1] and len(result.notes) == 1000


def test_an_unknown_asset_is_refused_without_a_list_of_all_others():
    match = r"no bars of \['X'\]; there are \['A0', .*970 more"
    with pytest.raises(ConfigError, match=match) as error:
        require_known("data.test_assets", ["X"], dict.fromkeys(NAMES))
    assert _named(str(error.value)) == MOST
