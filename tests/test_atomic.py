"""Files that appear whole or not at all, and what they never replace."""

import errno
import os
import resource
import stat
import threading

import pytest

from maml_jax import atomic
from maml_jax.atomic import find_unfinished, write_atomically


def write(path, text="new"):
    with write_atomically(path) as partial:
        partial.write_text(text)


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to("other")
    (tmp_path / "other").symlink_to("deep/file")
    for text in ("first", "second"):  # a link that leads nowhere yet, then one to a file
        write(tmp_path / "link", text)
        assert (tmp_path / "deep" / "file").read_text() == text
        assert os.readlink(tmp_path / "link") == "other"
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(OSError):
        write(tmp_path / "round")
    assert (tmp_path / "round").is_symlink()


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_modes_are_kept_and_those_of_new_files_are_as_usual(tmp_path, mask):
    (tmp_path / "old").write_text("old")
    (tmp_path / "old").chmod(0o640)
    before = os.umask(mask)
    try:
        write(tmp_path / "old")
        write(tmp_path / "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~mask


def test_devices_and_pipes_are_written_to_and_stay(tmp_path):
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    write(null)
    assert null.is_symlink() and stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(OSError, match="No space left"):
        write("/dev/full")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="nobody reads"):
        write(pipe)
    content, long = [], "x" * 300_000  # more than a pipe holds
    thread = threading.Thread(target=lambda: content.append(pipe.read_bytes()))
    thread.start()
    while not content:
        try:
            write(pipe, long)
            thread.join()
        except OSError as error:  # the reader is not there yet
            assert error.errno == errno.ENXIO
    assert content == [long.encode()] and stat.S_ISFIFO(pipe.stat().st_mode)


def test_an_open_file_is_written_to(tmp_path):
    with (tmp_path / "out").open("wb") as file:
        write(f"/dev/fd/{file.fileno()}")
    assert (tmp_path / "out").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write(path, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError):
            write(path, "new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and not find_unfinished(tmp_path)


def test_nothing_gets_its_name_before_it_is_on_the_disk(tmp_path, monkeypatch):
    events, sync, replace = [], os.fsync, os.replace

    def note_sync(descriptor):
        events.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    def note_replace(source, target):
        events.append(("named", str(target)))
        replace(source, target)

    monkeypatch.setattr(atomic.os, "fsync", note_sync)
    monkeypatch.setattr(atomic.os, "replace", note_replace)
    path = tmp_path / "file"
    write(path)
    first, named, last = events
    assert ".file.partial-" in first and named == ("named", str(path)) and last == str(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "one").touch()
    (tmp_path / "deep" / "two").touch()
    events.clear()
    atomic.sync_folder(tmp_path / "deep")
    names = ["deep", "deep/er", "deep/er/one", "deep/two"]
    assert sorted(events) == [str(tmp_path / name) for name in names]
