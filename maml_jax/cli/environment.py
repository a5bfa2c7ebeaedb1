"""What may be wrong around a command: variables that JAX reads, and where its output goes."""

import os
import re
import subprocess
import sys
import traceback
from contextlib import suppress

from maml_jax.errors import ConfigError, mask_secrets, shorten

_MOST_DEVICES = 1_024
"""CPU devices: JAX takes minutes to make more."""

_REASON = 300
"""Characters of what JAX says."""

_CHECK = "from jaxlib import xla_client; xla_client.make_cpu_client()"
"""Reads the flags of XLA as a command does, in a fifth of the time that JAX takes."""


def prepare_output() -> None:
    """Make output possible wherever it goes: closed, or unable to hold every character."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")


def drop_output() -> None:
    """Let nothing more be written, where what was to be written cannot be."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())


def require_jax_variables() -> None:
    """Refuse variables that end the process, or keep it busy for minutes, once JAX reads them.

    Raises:
        ConfigError: naming the variable.
    """
    if "jax" in sys.modules:  # read already
        return
    flags = os.environ.get("XLA_FLAGS", "")
    asked = re.search(r"host_platform_device_count=(\d+)", flags)
    for name, text in (
        ("JAX_NUM_CPU_DEVICES", os.environ.get("JAX_NUM_CPU_DEVICES", "")),
        ("XLA_FLAGS", asked[1] if asked else ""),
    ):
        if text.isdecimal() and (len(text) > 9 or int(text) > _MOST_DEVICES):
            raise ConfigError(
                f"environment variable {name}: {shorten(text, 40)} CPU devices; at most "
                f"{_MOST_DEVICES:,}"
            )
    if flags.strip():
        _require_flags(flags)


def _require_flags(flags: str) -> None:
    """Refuse flags on which XLA ends the process, as another process finds out."""
    with suppress(OSError, subprocess.TimeoutExpired):
        tried = subprocess.run(
            [sys.executable, "-c", _CHECK], capture_output=True, timeout=60, check=False
        )
        said = tried.stderr.decode("utf-8", "replace")
        found = re.search(r"(?:parse_flags_from_env|command_line_flags)\S*\] (.*)", said)
        if tried.returncode and found:
            raise ConfigError(
                f"environment variable XLA_FLAGS={shorten(flags, _REASON)!r}: "
                f"{shorten(found[1].strip(' .'), _REASON)}; correct the flag, or leave it out"
            )


def explain(error: Exception) -> str:
    """Say in one line what JAX could not do with the environment; nothing if it is not that.

    Args:
        error: as it was caught, with its traceback.
    """
    modules = {
        frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
    }
    text = next(iter(str(error).strip().splitlines()), "")
    said = f" ({shorten(text, _REASON)})" if text else ""
    if "jax._src.config" in modules and isinstance(error, ValueError):
        for name, value in os.environ.items():
            if name.startswith("JAX_") and name.lower() in text.lower():
                return _describe(name, value, f"JAX knows no such value{said}; leave it unset")
    if "jax._src.xla_bridge" in modules and isinstance(error, RuntimeError | AssertionError):
        for name in ("JAX_PLATFORMS", "JAX_PLATFORM_NAME"):
            if value := os.environ.get(name):
                problem = f"JAX finds no such device here{said}; leave it unset, or set it to cpu"
                return _describe(name, value, problem)
        return f"JAX finds no device{said}; set the environment variable JAX_PLATFORMS to cpu"
    return ""


def _describe(name: str, value: str, problem: str) -> str:
    return mask_secrets(f"environment variable {name}={shorten(value, 80)!r}: {problem}")
