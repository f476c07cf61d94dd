"""A tiny objective and its batches, for tests of the loop: a regression through two layers with dropout."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import nnx

BATCH = 8
FEATURES = 6


class Toy(nnx.Module):
    """Two dense layers, dropout between them, a temperature."""

    def __init__(self, *, width: int, rngs: nnx.Rngs):
        self.inner = nnx.Linear(FEATURES, width, rngs=rngs)
        self.dropout = nnx.Dropout(0.1)
        self.head = nnx.Linear(width, 1, rngs=rngs)
        self.log_scale = nnx.Param(jnp.float32(0.0))

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        x = jnp.tanh(self.inner(x))
        x = self.dropout(x, rngs=rngs, deterministic=rngs is None)
        return self.head(x)[:, 0] * jnp.exp(self.log_scale[...])


class ToyObjective:
    """Mean squared error; gives nan where a batch's `poison` is true."""

    def __init__(self, *, width: int = 8, trainable: tuple[str, ...] = ()):
        self.width, self.trainable = width, trainable

    def init(self, rngs: nnx.Rngs) -> Toy:
        return Toy(width=self.width, rngs=rngs)

    def loss(self, model, batch, *, rngs):
        error = model(batch["x"], rngs=rngs) - batch["y"]
        loss = jnp.mean(error**2)
        if "poison" in batch:
            loss = loss + jnp.where(batch["poison"].any(), jnp.float32(jnp.nan), jnp.float32(0.0))
        return loss, {"scale": jnp.exp(model.log_scale[...])}


def batch_of(step: int, *, poison_at: int | None = None, process: int = 0, processes: int = 1) -> dict[str, np.ndarray]:
    """Global batch `step`, or one process's rows of it."""
    rng = np.random.default_rng([7, step])
    x = rng.normal(size=(BATCH, FEATURES)).astype(np.float32)
    batch = {
        "x": x,
        "y": np.sin(x.sum(axis=1)).astype(np.float32),
        "clip_index": np.arange(BATCH, dtype=np.int64) + step * BATCH,
    }
    if poison_at is not None:
        batch["poison"] = np.full(BATCH, step == poison_at)
    rows = slice(process * BATCH // processes, (process + 1) * BATCH // processes)
    return {key: value[rows] for key, value in batch.items()}


def batches(start: int, **options) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches from `start` on."""
    step = start
    while True:
        yield batch_of(step, **options)
        step += 1


def config(**changes) -> ml_collections.ConfigDict:
    """A config of the loop's sections; `changes` are dotted keys with "__" for the dot."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.optimizer = {"lr": 0.05, "warmup_steps": 2, "weight_decay": 0.01, "clip_norm": 1.0, "schedule": "rsqrt"}
    c.mesh = {"replica": -1}
    c.train = {"steps": 12, "log_every": 2, "checkpoint_every": 4}
    with c.unlocked():
        c.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return c
