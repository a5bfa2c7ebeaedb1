"""What is wrong around a command ends in one line that names it, and in no traceback."""

import os
import subprocess
import sys
import types

import pytest

from maml_jax.cli import environment
from maml_jax.errors import ConfigError

pytestmark = pytest.mark.long

RUN = ["run", "--set", "data.path=none.csv", "--out", "x"]


def call(folder, *arguments, stdout=subprocess.PIPE, **variables):
    """Run the command line in another process, with some variables set."""
    return subprocess.run(
        [sys.executable, "-m", "maml_jax", *arguments],
        cwd=folder,
        env=os.environ | {"XLA_FLAGS": ""} | variables,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"JAX_PLATFORMS": "bogus"}, "JAX_PLATFORMS='bogus': JAX finds no such device here"),
        ({"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS='cuda': JAX finds no such device here"),
        ({"JAX_ENABLE_X64": "banana"}, "JAX_ENABLE_X64='banana': JAX knows no such value"),
        ({"XLA_FLAGS": "--nonsense"}, "XLA_FLAGS='--nonsense': Unknown flag in XLA_FLAGS"),
        ({"XLA_FLAGS": "--xla_backend_optimization_level=a"}, "Couldn't interpret value a"),
        ({"JAX_NUM_CPU_DEVICES": "99999"}, "JAX_NUM_CPU_DEVICES: 99999 CPU devices; at most"),
    ],
    ids=str,
)
def test_variables_that_jax_cannot_use_are_named_in_one_line(tmp_path, variables, message):
    if variables.get("JAX_PLATFORMS") == "cuda" and os.path.exists("/proc/driver/nvidia"):
        pytest.skip("there is a GPU")
    done = call(tmp_path, *RUN, **variables)
    said = done.stderr.decode()
    assert (done.returncode, said.count("\n"), message in said) == (2, 1, True), said
    assert said.startswith("error: environment variable")


def test_an_output_that_nobody_reads_is_no_error(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    done = call(tmp_path, "data", "list", "--store", "s", stdout=writer)
    os.close(writer)
    assert done.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_an_output_that_cannot_be_written_is_one_line(tmp_path):
    with open("/dev/full", "w") as full:
        done = call(tmp_path, "data", "list", "--store", "s", stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode() == "error: [Errno 28] No space left on device\n"


def test_an_output_that_holds_no_such_characters_is_written_all_the_same(tmp_path):
    script = (
        "import sys; from maml_jax.cli.environment import prepare_output; prepare_output();"
        "print('\\u2013 \\udcff'); print('\\u2013', file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert (done.stdout, done.stderr) == (b"? ?\n", b"\\u2013\n")


def test_an_output_that_is_closed_is_none(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    environment.prepare_output()
    assert not sys.stdout.isatty()
    print("nobody reads this")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are always text")
def test_folders_that_are_no_utf8_are_refused_before_any_work(tmp_path, monkeypatch):
    from maml_jax.experiment import run

    folder = os.fsencode(tmp_path) + b"/dir\xff"
    os.mkdir(folder)
    monkeypatch.chdir(os.fsdecode(folder))
    for settings, out, key in (
        ({"data.path": "b.csv"}, tmp_path / "y", "data.path"),
        ({}, "x", "out"),
    ):
        with pytest.raises(ConfigError, match=rf"key '{key}'.* is no text in UTF-8"):
            run(settings, out=out)
    assert [path.name for path in tmp_path.iterdir()] == ["dir\udcff"]


def test_other_errors_are_not_blamed_on_the_environment(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
    environment.require_jax_variables()  # too late to check, and nothing to say
    for error in (RuntimeError("Unable to initialize backend"), ValueError("jax_platforms")):
        try:
            raise error
        except Exception as caught:
            assert environment.explain(caught) == ""
    monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=9999999999")
    with pytest.raises(ConfigError, match="XLA_FLAGS: 9999999999 CPU devices"):
        environment.require_jax_variables()
