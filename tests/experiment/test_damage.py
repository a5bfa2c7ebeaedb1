"""Run directories that were damaged: a result equal to the undamaged one, or one of our errors."""

import json
import shutil

import numpy as np
import pytest
from small_run import same_results, small_result

from maml_jax.errors import MamlJaxError, RunError
from maml_jax.experiment import load
from maml_jax.experiment.digests import ABOUT

OTHERS = (None, True, -3, 2.5, "word", [], [1], {}, {"a": 1})
"""One value of each type that JSON has."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maml_jax.experiment.tear_sheet.tear_sheet", lambda *_: None)
        patch.setattr("maml_jax.experiment.tear_sheet.render", lambda _: "<html></html>")
        return small_result().save(tmp_path_factory.mktemp("damage") / "run")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Another run, of a longer horizon and other numbers, with files of the same names."""
    result = small_result(**{"target.horizon": 9, "seed": 4})
    evaluation = result.evaluation._replace(returns=2 * result.returns)
    path = tmp_path_factory.mktemp("foreign") / "run"
    object.__setattr__(result, "evaluation", evaluation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maml_jax.experiment.tear_sheet.tear_sheet", lambda *_: None)
        patch.setattr("maml_jax.experiment.tear_sheet.render", lambda _: "<p>another</p>")
        return result.save(path)


def as_before(path):
    """Make a directory of an earlier version: without digests of files and parameters."""
    (path / ABOUT).unlink()
    for about in path.glob("checkpoints/*/about.json"):
        record = json.loads(about.read_text())
        del record["parameters"]
        about.write_text(json.dumps(record))
    return path


def files_of(path):
    return sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())


def damage_bytes(file, how, rng):
    content = bytearray(file.read_bytes())
    place = int(rng.integers(len(content))) if content else 0
    if how == "flip" and content:
        content[place] ^= 1 << int(rng.integers(8))
    elif how == "cut":
        del content[place:]
    elif how == "grow":
        content += bytes(rng.integers(0, 256, 7, dtype=np.uint8))
    elif how == "noise":
        content = rng.integers(0, 256, len(content), dtype=np.uint8).tobytes()
    file.write_bytes(bytes(content))


def places(value, path=()):
    """Yield the path of every value in what was read from JSON."""
    yield path
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


def replace_value(record, path, value):
    if not path:
        return value
    owner = record
    for key in path[:-1]:
        owner = owner[key]
    owner[path[-1]] = value
    return record


def damages(path, foreign):
    """List damages as functions of a directory and a generator, by their names."""
    found = {}
    for name in files_of(path):
        for how in ("flip", "flip again", "cut", "grow", "noise"):
            found[f"{how} {name}"] = lambda p, rng, name=name, how=how: damage_bytes(
                p / name, how.split()[0], rng
            )
        found[f"missing {name}"] = lambda p, rng, name=name: (p / name).unlink()
        found[f"empty {name}"] = lambda p, rng, name=name: (p / name).write_bytes(b"")
        if (foreign / name).exists():
            found[f"foreign {name}"] = lambda p, rng, name=name: shutil.copy(
                foreign / name, p / name
            )
    for name in (n for n in files_of(path) if n.suffix == ".json"):
        for number, place in enumerate(places(json.loads((path / name).read_text()))):
            for other in (OTHERS[number % len(OTHERS)], OTHERS[(5 * number + 3) % len(OTHERS)]):

                def put(p, rng, name=name, place=place, other=other):
                    record = json.loads((p / name).read_text())
                    (p / name).write_text(json.dumps(replace_value(record, place, other)))

                found[f"{other!r} at {place} of {name}"] = put
    found["folder checkpoints missing"] = lambda p, rng: shutil.rmtree(p / "checkpoints")
    found["a stranger"] = lambda p, rng: (p / "stranger.parquet").write_bytes(b"PAR1")
    found["a stranger among arrays"] = lambda p, rng: (
        p / "checkpoints" / "maml" / "params" / "d" / "stranger"
    ).write_bytes(b"x")
    return found


def refused_or_equal(path, original, name):
    """Load; return whether it was refused, with one line of ours that names the directory."""
    try:
        result = load(path)
    except MamlJaxError as error:
        assert "\n" not in str(error) and str(path) in str(error), (name, str(error))
        return True
    assert same_results(result, original), name
    return False


def try_all(whole, foreign, tmp_path, chosen, prepare=lambda path: path):
    rng = np.random.default_rng(0)
    original = load(prepare(shutil.copytree(whole, tmp_path / "original")))
    listed = damages(tmp_path / "original", foreign)
    names = chosen(list(listed))
    for number, name in enumerate(names):
        copy = shutil.copytree(tmp_path / "original", tmp_path / str(number))
        listed[name](copy, rng)
        yield name, copy, original
        shutil.rmtree(copy)


def test_damage_is_refused_or_changes_nothing(whole, foreign, tmp_path):
    """A part of the damages: see below for all of them."""
    cases = try_all(whole, foreign, tmp_path, lambda names: names[:: len(names) // 20])
    outcomes = {name: refused_or_equal(copy, original, name) for name, copy, original in cases}
    assert len(outcomes) >= 20 and sum(outcomes.values()) >= 18, outcomes


@pytest.mark.slow
def test_every_damage_is_refused_or_changes_nothing(whole, foreign, tmp_path):
    loaded = [
        name
        for name, copy, original in try_all(whole, foreign, tmp_path, lambda names: names)
        if not refused_or_equal(copy, original, name)
    ]
    # What is equal holds the same bytes, or is a value of about.json that nothing depends on.
    count = len(damages(whole, foreign))
    assert count >= 300 and len(loaded) < 0.1 * count, loaded


def errors_of_ours_alone(whole, foreign, tmp_path, chosen):
    refused = 0
    for name, copy, _ in try_all(whole, foreign, tmp_path, chosen, as_before):
        try:
            load(copy).verdict()
        except MamlJaxError as error:
            assert "\n" not in str(error), name
            refused += 1
        except Exception as error:
            pytest.fail(f"{name}: {error!r}")
    return refused


def test_damage_without_digests_raises_nothing_foreign(whole, foreign, tmp_path):
    assert errors_of_ours_alone(whole, foreign, tmp_path, lambda n: n[:: len(n) // 20]) > 5


@pytest.mark.slow
def test_no_damage_without_digests_raises_anything_foreign(whole, foreign, tmp_path):
    assert errors_of_ours_alone(whole, foreign, tmp_path, lambda names: names[1::3]) > 100


def flip_parameter(path, rng):
    """Flip one bit of one parameter, and write it as a library of arrays would."""
    folder = path / "checkpoints" / "maml" / "params"
    arrays = sorted(file for file in folder.rglob("d/*") if file.is_file())
    file = arrays[int(rng.integers(len(arrays)))]
    damage_bytes(file, "flip", rng)
    return file


@pytest.mark.parametrize("count", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_a_parameter_is_refused(whole, tmp_path, count):
    rng = np.random.default_rng(1)
    for number in range(count):
        copy = shutil.copytree(whole, tmp_path / str(number))
        file = flip_parameter(copy, rng)
        with pytest.raises(RunError, match=f"{file.name}: is not the file that was written"):
            load(copy)
        shutil.rmtree(copy)
