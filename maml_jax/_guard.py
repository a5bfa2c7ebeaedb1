"""A process beside a command, which kills it if none of its threads can (Linux).

Native code that hangs may hold the interpreter's lock, and then the watching thread (`watchdog.py`)
cannot run. That thread sends a line to this process every few seconds. If no line comes, and the
command uses no processor time either, this process kills it. A long call that computes with the
lock held sends no line but uses processor time, and is left alone.

This file is run by its path, without importing the package, and needs only the standard library.
`watchdog.py` shares its functions.
"""

import json
import os
import select
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")


def usage(folder: Path) -> tuple[str, float]:
    """Return the state of a process or thread (`T` is stopped) and its processor seconds so far."""
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    return fields[0], sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def children_seconds(pid: int, *, without: int | None = None) -> float:
    """Return the processor seconds of all running descendants of a process; 0 if unknown."""
    total = 0.0
    for listed in (_PROC / str(pid) / "task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, listed.read_text().split()):
                if child != without:
                    total += usage(_PROC / str(child))[1] + children_seconds(child)
    return total


def native_threads(pid: int) -> str:
    """List all threads of a process, native ones included, and what they wait for.

    Empty if the system does not say.
    """
    lines = []
    for task in sorted((_PROC / str(pid) / "task").glob("*"), key=lambda each: int(each.name)):
        with suppress(OSError):
            name = (task / "comm").read_text().strip()
            state, seconds = usage(task)
            waits = (task / "wchan").read_text().strip("0\n ") or "-"
            lines.append(f"{task.name:>8}  {name:<16} {state} {seconds:9.2f} s  {waits}")
    head = "Threads of the system: number, name, state, processor time, where the kernel waits\n"
    return head + "\n".join(lines) + "\n" if lines else ""


def write_log(places: list[str], text: str) -> str | None:
    """Append to the first writable file; return its path, or None."""
    for place in places:
        with suppress(OSError), open(place, "a", encoding="utf-8", errors="replace") as file:
            file.write(text)
            return place
    return None


def final_line(report: dict, log: str | None) -> bytes:
    """Return the last line of a stopped command."""
    where = "no log could be written" if log is None else f"stacks of all threads: {log}"
    # A progress bar may have hidden the cursor and left its line unfinished.
    before = "\x1b[?25h\n" if os.isatty(2) else ""
    return f"{before}error: {report['line']}; {where}\n".encode()


def read_stacks(file: int) -> str:
    """Return what `faulthandler` has written to a file."""
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, 1 << 20).decode("utf-8", "replace")


def guard(pid: int, interval: float, samples: int, limit: float, stacks: int) -> None:
    """Kill a process that sends no line and uses no processor time; return when it ends.

    Args:
        pid: of the process, whose lines come on standard input.
        interval: seconds between samples.
        samples: number of samples without a sign of life before the process is killed.
        limit: processor seconds that an idle process uses in all of them.
        stacks: file that `faulthandler` in the process writes to.
    """
    report, rest, base, quiet = None, b"", None, 0
    while quiet < samples:
        if select.select([0], [], [], interval)[0]:
            part = os.read(0, 1 << 16)
            if not part:  # the process has ended, or stopped watching
                return
            *lines, rest = (rest + part).split(b"\n")
            base, quiet = None, 0
            if lines:
                with suppress(ValueError):  # cut off: the pipe was full
                    report = json.loads(lines[-1])
            continue
        state, used = usage(_PROC / str(pid))
        used += children_seconds(pid, without=os.getpid())
        if state in "Tt":  # stopped from a terminal or by a debugger
            continue
        if base is None or abs(used - base) > limit:
            base, quiet = used, 0
        else:
            quiet += 1
    if report is None:
        return
    text = f"{report['header']}{read_stacks(stacks)}\n{native_threads(pid)}\n"
    log = write_log(report["places"], text)
    os.kill(pid, signal.SIGKILL)
    for path in map(Path, report["unfinished"]):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    os.write(2, final_line(report, log))


if __name__ == "__main__":
    process, looks, file = map(int, sys.argv[1:6:2])
    seconds, idle = map(float, sys.argv[2:5:2])
    with suppress(OSError):  # the process has just ended
        guard(process, seconds, looks, idle, file)
