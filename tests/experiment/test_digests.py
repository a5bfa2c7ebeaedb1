"""What a run directory was when it was written: every file, every parameter, the settings."""

import hashlib
import json
import os
import resource
import shutil
import threading
from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest
from small_run import same_results, small_result

from maml_jax.errors import RunError
from maml_jax.experiment import compare, load, write_comparison
from maml_jax.experiment.digests import ABOUT, UNCHECKED
from maml_jax.experiment.learning.adapt import load_adapted
from maml_jax.experiment.learning.checkpoint import write_params
from maml_jax.experiment.preparation.spans import Spans
from maml_jax.experiment.result import add_evaluation, add_fold
from maml_jax.watchdog import LOG

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def page():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maml_jax.experiment.tear_sheet.tear_sheet", lambda *_: None)
        patch.setattr("maml_jax.experiment.tear_sheet.render", lambda _: "<html></html>")
        patch.setattr(os, "fsync", lambda _: None)  # the disk is not what these tests are about
        yield


@pytest.fixture(scope="module")
def kept(page, tmp_path_factory):
    result = small_result()
    return result, result.save(tmp_path_factory.mktemp("kept") / "run")


@pytest.fixture
def copy(kept, tmp_path):
    return shutil.copytree(kept[1], tmp_path / "run")


def record_anew(path):
    """Give the files of a directory the digests that they have, as a forger would."""
    about = json.loads((path / ABOUT).read_text())
    for name in about["files"]:
        about["files"][name] = hashlib.sha256((path / name).read_bytes()).hexdigest()
    (path / ABOUT).write_text(json.dumps(about))


def as_before(path):
    """Make a directory of an earlier version: without digests of files and parameters."""
    (path / ABOUT).unlink()
    for about in path.rglob("checkpoints/*/about.json"):
        record = json.loads(about.read_text())
        del record["parameters"]
        about.write_text(json.dumps(record))


def test_every_file_and_every_parameter_has_its_digest(kept):
    result, path = kept
    about = json.loads((path / ABOUT).read_text())
    files = [each for each in path.rglob("*") if each.is_file() and each != path / ABOUT]
    assert about["files"] == {
        each.relative_to(path).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest()
        for each in files
    }
    record = json.loads((path / "checkpoints" / "maml" / ABOUT).read_text())
    leaves = jax.tree_util.tree_leaves_with_path(result.checkpoints["maml"].params)
    assert len(leaves) > 3 and [*record["parameters"]] == [
        jax.tree_util.keystr(place) for place, _ in leaves
    ]
    for (place, leaf), text in zip(leaves, record["parameters"].values(), strict=True):
        seen = hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
        assert text == f"float32[{','.join(map(str, leaf.shape))}] {seen}", place
    assert same_results(load(path), result)


def test_edited_settings_are_refused_with_the_keys_that_differ(copy, tmp_path):
    settings = copy / "config.toml"
    text = settings.read_text()
    edited = text.replace("horizon = 3", "horizon = 50")
    assert edited != text
    settings.write_text(edited)
    with pytest.raises(RunError, match=r"config.toml: .*target.horizon is 50 and was 3"):
        load(copy)
    settings.write_text("")
    with pytest.raises(RunError, match=r"config.toml: .*target.horizon is 5 and was 3,"):
        load(copy)
    settings.write_text(text + "\n[nonsense]\nx = 1\n")
    with pytest.raises(RunError, match=r"config.toml: unknown key 'nonsense'"):
        load(copy)
    settings.write_text("# a remark\n" + text)
    with pytest.raises(RunError, match="config.toml: was written anew, with the same settings"):
        load(copy)
    other = small_result(**{"training.steps": 77}).save(tmp_path / "other")
    shutil.copy(other / "config.toml", settings)
    with pytest.raises(RunError, match="config.toml: .*training.steps is 77 and was 4"):
        load(copy)


@pytest.mark.parametrize("forged", [True, False])
def test_settings_must_be_those_of_the_checkpoints_whatever_the_record_says(copy, forged):
    """A directory of an earlier version has no record, one that somebody forged a wrong one."""
    settings = copy / "config.toml"
    settings.write_text(settings.read_text().replace("horizon = 3", "horizon = 50"))
    if forged:
        about = json.loads((copy / ABOUT).read_text())
        about["config"]["target"]["horizon"] = 50
        (copy / ABOUT).write_text(json.dumps(about))
        record_anew(copy)
    else:
        as_before(copy)
    with pytest.raises(RunError, match=r"config.toml: .*target.horizon is 50 and was 3"):
        load(copy)


def test_files_that_are_missing_foreign_or_strange_are_named(copy, tmp_path):
    other = small_result()
    other.evaluation.returns.iloc[3, 0] += 1e-6
    other = other.save(tmp_path / "other")
    for name, message in (
        ("trades.parquet", "trades.parquet: is missing"),
        ("report.html", "report.html: is missing; `maml-jax report .*` writes it again"),
        (ABOUT, "about.json is missing"),
    ):
        (copy / name).rename(tmp_path / name)
        with pytest.raises(RunError, match=message):
            load(copy)
        (tmp_path / name).rename(copy / name)
    for name in ("stranger.txt", "checkpoints/maml/params/d/stranger", "checkpoints/fomaml/x"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).touch()
        with pytest.raises(RunError, match=f"{name}: is not part of this run"):
            load(copy)
        (copy / name).unlink()
    (copy / "logs").mkdir()
    for name in (
        LOG,
        "log.txt",
        "logs/maml.csv",
        ".DS_Store",
        ".report.html.partial-1-2",
    ):  # what other programs leave
        (copy / name).touch()
    (copy / "adapted" / "x").mkdir(parents=True)
    (copy / "adapted" / "x" / "adapted.json").touch()
    load(copy)
    shutil.copy(other / "returns.parquet", copy / "returns.parquet")
    with pytest.raises(RunError, match="returns.parquet: is not the file that was written"):
        load(copy)


@pytest.mark.long
def test_a_page_that_is_written_again_belongs_to_the_run(copy, page, tmp_path):
    (copy / "report.html").write_text("scribbled on")
    with pytest.raises(RunError, match="report.html: is not the file that was written"):
        load(copy)
    load(copy, page=False).report(copy / "report.html")
    result = load(copy)
    result.report(copy / "again.html")
    result.report(tmp_path / "elsewhere.html")
    other = small_result().save(tmp_path / "other")
    write_comparison(compare([copy, other], samples=20), copy / "compare.html")
    assert same_results(load(copy), result)
    (copy / "again.html").write_text("scribbled on")
    with pytest.raises(RunError, match="again.html"):
        load(copy)


@pytest.mark.parametrize("change", ["one bit", "not finite", "another shape"])
def test_parameters_are_compared_one_by_one(kept, copy, change):
    """As if a library of arrays had written others, and the files had their digests."""
    params = jax.tree.map(np.array, kept[0].checkpoints["maml"].params)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    place, leaf = leaves[-1]
    message = "is not the one that was saved"
    if change == "one bit":
        leaf.view(np.uint32).flat[0] ^= 1
    elif change == "not finite":
        leaf.flat[-1], message = np.nan, "holds a value that is not finite"
    else:
        params, message = {"other": leaf}, "not a readable checkpoint"
    folder = copy / "checkpoints" / "maml" / "params"
    shutil.rmtree(folder)
    write_params(folder, params)
    as_it_was = json.loads((copy / ABOUT).read_text())
    files = {k: v for k, v in as_it_was["files"].items() if "params/" not in k}
    written = (each for each in folder.rglob("*") if each.is_file())
    files |= {each.relative_to(copy).as_posix(): "" for each in written}
    (copy / ABOUT).write_text(json.dumps(as_it_was | {"files": files}))
    record_anew(copy)
    with pytest.raises(RunError) as caught:
        load(copy)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    if change != "another shape":
        assert f"parameter {jax.tree_util.keystr(place)} " in str(caught.value)


def test_directories_of_earlier_versions_load_and_say_so(kept, copy, page, tmp_path):
    as_before(copy)
    result = load(copy)
    *notes, last = result.notes
    assert tuple(notes) == kept[0].notes and last.kind == UNCHECKED and str(copy) in last.text
    again = load(result.save(tmp_path / "again"))
    assert again.notes == result.notes  # what nobody compared does not become certain
    assert same_results(replace(result, notes=kept[0].notes), kept[0])


class Killed(BaseException):
    """What ends a process, which no code of ours catches."""


def killed_at(number, monkeypatch, work):
    """Do some work, and stop where something gets its name for the time of this number."""
    count = [0]

    def counting(original):
        def call(*arguments):
            count[0] += threading.current_thread() is threading.main_thread()  # not of orbax
            if count[0] == number:
                raise Killed
            return original(*arguments)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "rename"):
            patch.setattr(os, name, counting(getattr(os, name)))
        # A process that is killed removes nothing.
        patch.setattr("maml_jax.atomic.remove", lambda path: None)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.long
def test_a_backtest_that_is_cut_off_anywhere_loses_nothing(kept, page, tmp_path, monkeypatch):
    result = kept[0]
    trained = replace(result, evaluation=None, notes=())
    changed = replace(result, config=result.config.changed(backtest={"fee": 0.25}))
    number = 0
    while True:
        number += 1
        path = trained.save(tmp_path / f"run {number}")
        cut = killed_at(number, monkeypatch, lambda p=path: add_evaluation(changed, p))
        shutil.rmtree(path.with_name(f".{path.name}.reserved"), ignore_errors=True)
        found = load(path)
        if found.evaluation is None:
            assert found.config == trained.config and cut
            for name in ("returns.parquet", "config.toml"):  # damage is told all the same
                content = (path / name).read_bytes() if (path / name).exists() else b""
                (path / name).write_bytes(content + b" ")
                with pytest.raises(RunError, match=name):
                    load(path)
                (path / name).write_bytes(content) if content else (path / name).unlink()
            add_evaluation(result, path)
            found = load(path)
            assert same_results(found, result)
        else:
            assert same_results(found, changed)
        shutil.rmtree(path)
        if not cut:
            break
    assert number > 15


@pytest.mark.slow
@pytest.mark.long
def test_a_fold_that_is_cut_off_anywhere_loses_nothing(kept, page, tmp_path, monkeypatch):
    moments = (pd.Timestamp("2020-01-01", tz="UTC") + pd.Timedelta(days=day) for day in range(4))
    own = kept[0].checkpoints["maml"]._replace(spans=Spans(*moments))
    other = own._replace(params=jax.tree.map(lambda leaf: leaf + 1, own.params))
    first = replace(kept[0], checkpoints={"maml": own}, folds=({"maml": own},), evaluation=None)
    second = replace(first, checkpoints={"maml": other}, folds=(*first.folds, {"maml": other}))
    number = 0
    while True:
        number += 1
        path = first.save(tmp_path / f"run {number}")
        cut = killed_at(number, monkeypatch, lambda p=path: add_fold(second, p))
        shutil.rmtree(path.with_name(f".{path.name}.reserved"), ignore_errors=True)
        found = load(path)
        assert same_results(found, second if len(found.folds) == 2 else first)
        if not cut:
            break
        shutil.rmtree(path)
    assert len(found.folds) == 2 and number > 8
    assert json.loads((path / ABOUT).read_text())["coming"] == {}


@pytest.mark.long
def test_an_adapted_model_is_compared_too(kept, tmp_path):
    from market import MARKET

    path = kept[0].adapt(MARKET["A3"]).save(tmp_path / "adapted")
    predicted = load_adapted(path).predict(MARKET["A3"])
    assert predicted.notna().all()
    for number, file in enumerate(sorted(each for each in path.rglob("*") if each.is_file())):
        copy = shutil.copytree(path, tmp_path / str(number))
        name = file.relative_to(path)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        (copy / name).write_bytes(content)
        with pytest.raises(RunError, match=file.name if file.name != ABOUT else str(copy)):
            load_adapted(copy)
        (copy / name).unlink()
        with pytest.raises(RunError):
            load_adapted(copy)


@pytest.mark.parametrize("room", [300, 3000, 20_000])
def test_a_full_disk_is_one_line_and_earlier_files_stay(kept, page, tmp_path, room):
    result = kept[0]
    trained = replace(result, evaluation=None)
    path = trained.save(tmp_path / "run")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        for work in (lambda: add_evaluation(result, path), lambda: result.save(tmp_path / "b")):
            with pytest.raises(RunError, match="cannot be written") as caught:
                work()
            assert "\n" not in str(caught.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [each.name for each in tmp_path.iterdir()] == ["run"]
    assert same_results(load(path), trained)
