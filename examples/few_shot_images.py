"""Few-shot image classification: tell five kinds of glyphs apart from one drawing of each.

Every kind is a polyline through random points, which each drawing of it misses by a little, on
28 x 28 pixels. Kinds are never seen twice. Prints validation accuracy while prototypical
networks are trained, and accuracy on new kinds with a 95 % interval.

    python examples/few_shot_images.py [--steps META_STEPS]
"""

import argparse

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from maml_jax import Batch, Task, accuracy, evaluate, prototypical_networks, training
from maml_jax.models import from_linen

WAYS, SHOTS, QUERIES = 5, 1, 5
PIXELS, POINTS = 28, 5


def draw(points):
    """Return the image [28, 28, 1] of a polyline through points [point, 2] in the unit square."""
    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(0.0, 1.0, PIXELS)] * 2), axis=-1)
    start, line = points[:-1], jnp.diff(points, axis=0)
    along = jnp.einsum("hwsd,sd->hws", grid[:, :, None] - start, line) / (line**2).sum(-1)
    nearest = start + along.clip(0, 1)[..., None] * line
    distance = jnp.linalg.norm(grid[:, :, None] - nearest, axis=-1).min(-1)
    return jnp.exp(-((distance / 0.03) ** 2))[..., None]


def sample_task(key) -> Task:
    """Draw kinds, and each of them several times."""
    drawings = SHOTS + QUERIES
    drawn = jax.random.uniform(key, (1 + drawings, WAYS, POINTS, 2), minval=-1.0)
    points = 0.5 + 0.35 * drawn[:1] + 0.1 * drawn[1:]
    images = jax.vmap(draw)(points.reshape(-1, POINTS, 2))
    kinds, count = jnp.tile(jnp.arange(WAYS), drawings), WAYS * SHOTS
    return Task(Batch(images[:count], kinds[:count]), Batch(images[count:], kinds[count:]))


def sampler(count: int):
    return lambda key: jax.vmap(sample_task)(jax.random.split(key, count))


class Convolutions(nn.Module):
    """Convolutions that halve the image, normalised by the statistics of the batch at hand."""

    @nn.compact
    def __call__(self, x):
        for channels in (16, 32, 32):
            x = nn.Conv(channels, (3, 3), strides=2, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False)(x))
        return x.reshape(len(x), -1)


def main(steps: int):
    network = from_linen(Convolutions(), mutable=["batch_stats"])
    learner = prototypical_networks(network, classes=WAYS)
    metrics = {"accuracy": accuracy}
    calls = training(
        *(learner, optax.adam(3e-3), sampler(8), jax.random.key(0)),
        steps=steps, every=20, validate=sampler(30), metrics=metrics, patience=4,
    )  # fmt: skip
    best = None
    for progress in calls:
        best = progress.best
        print(f"step {progress.step}: accuracy {progress.validation['accuracy']:.1%}", flush=True)
    tasks = sampler(100)(jax.random.key(1))
    untrained = learner.init(jax.random.key(2), tasks.support.x[0])
    before = evaluate(learner, untrained, tasks, metrics).mean["accuracy"]
    scores = evaluate(learner, best.state.params, tasks, metrics)
    low, high = scores.interval["accuracy"]
    mean = scores.mean["accuracy"]
    print(f"{WAYS}-way {SHOTS}-shot accuracy on new kinds: {mean:.1%} ({low:.1%} to {high:.1%})")
    print(f"without training: {before:.1%}")
    return scores


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="meta-steps")
    main(parser.parse_args().steps)
