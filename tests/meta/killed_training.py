"""Train in processes that are killed at random moments, and compare what they see.

    python killed_training.py FOLDER KILLS

Processes are forked before JAX has begun to compute, so that they start at once.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import optax
import orbax.checkpoint  # noqa: F401
from helpers import sinusoid_sampler

from maml_jax import CSVLogger, Model, first_order, maml, training

STEPS = 12

LINEAR = Model(lambda key, x: jax.random.normal(key, (1, 1)), lambda w, x: x @ w)


def train(folder: Path) -> None:
    """Train, and append what is seen to a file."""
    learner = maml(LINEAR, inner_steps=1, gradient=first_order())
    sampler, key = sinusoid_sampler(4), jax.random.key(0)
    options = {"steps": STEPS, "every": 1, "validate": sampler, "resume": True}
    log = CSVLogger(folder / "log.csv")
    calls = training(
        learner, optax.adam(1e-2), sampler, key, checkpoints=folder / "checkpoints", **options
    )
    for progress in calls:
        log(progress)
        seen = [progress.step, digest(progress._replace(seconds=0.0))]
        with (folder / "seen").open("a") as file:
            file.write(json.dumps(seen) + "\n")


def digest(progress) -> str:
    """Return a digest of all that a progress holds."""
    found = hashlib.sha256(str(jax.tree.structure(progress)).encode())
    for leaf in jax.tree.leaves(progress):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()


def start(folder: Path) -> int:
    """Fork a process that trains."""
    folder.mkdir(exist_ok=True)
    process = os.fork()
    if process:
        return process
    try:
        train(folder)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def seen_in(folder: Path) -> list:
    """Return what was seen, but a last line that is not whole."""
    path = folder / "seen"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def rows_of(folder: Path) -> list:
    """Return the rows of the log without the times that steps took."""
    lines = (folder / "log.csv").read_text().splitlines()
    place = lines[0].split(",").index("seconds")
    rows = [line.split(",") for line in lines]
    return [row[:place] + row[place + 1 :] for row in rows]


def main(folder: Path, kills: int) -> None:
    """Kill so often, beginning again where a training has come to its end."""
    began = time.perf_counter()
    undisturbed = folder / "undisturbed"
    _, status = os.waitpid(start(undisturbed), 0)
    assert status == 0
    lasts = time.perf_counter() - began
    expected = seen_in(undisturbed)
    assert len(expected) == STEPS
    draw, killed, number, differences, seen = random.Random(0), 0, 0, [], 0
    ended = False
    while killed < kills or not ended:
        home = folder / str(number)
        process = start(home)
        if killed < kills:
            # Evenly over a run, but for its beginning, in which nothing can go wrong.
            time.sleep(lasts * draw.uniform(0.3, 1.0))
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        ended = os.WIFEXITED(status)
        assert not ended or os.WEXITSTATUS(status) == 0
        killed += not ended
        if ended:
            found = seen_in(home)
            seen += len(found)
            differences += [each for each in found if each not in expected]
            steps = sorted({step for step, _ in found})
            differences += [] if steps == [*range(1, STEPS + 1)] else [steps]
            differences += [] if rows_of(home) == rows_of(undisturbed) else ["rows"]
            number += 1
    print(json.dumps({"kills": killed, "seen": seen, "differences": differences}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
