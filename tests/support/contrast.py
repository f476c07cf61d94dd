"""What the tests of contrastive losses share: rows, meshes, and one way to compare forms."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

NAMES = ("x", "y", "scale", "bias")
AXES = ("replica", "fsdp", "tensor")
ROWS = ("replica", "fsdp")
"""The mesh axes over which rows are split."""


def unit(rng, *shape):
    e = rng.normal(size=shape)
    return e / np.linalg.norm(e, axis=-1, keepdims=True)


def pairs(rng, rows, width=8):
    """Rows that lie near their partners, so that some score highest and some do not."""
    x = unit(rng, rows, width)
    return x, unit(rng, rows, width) * 0.7 + x * 0.5


def marks(rng, rows):
    """Some rows that take no part, some groups of two numbers."""
    return {"valid": rng.random(rows) < 0.8, "group": rng.integers(0, 3, (rows, 2)).astype(np.int32)}


def mesh(shape):
    kinds = (jax.sharding.AxisType.Auto,) * 3
    count = int(np.prod(shape))
    return jax.make_mesh(shape, AXES, axis_types=kinds, devices=jax.devices()[:count])


def value_and_gradients(loss, *arguments, on=None, names=NAMES, **options):
    """Loss, metrics and gradients by all float arguments, compiled, on a mesh with rows over replica x fsdp."""
    arguments = [jnp.asarray(a, jnp.float32) for a in arguments]

    def value(*floats):
        return loss(**dict(zip(names, floats, strict=False)), axes=ROWS, **options)

    both = jax.jit(jax.value_and_grad(value, argnums=tuple(range(len(arguments))), has_aux=True))
    with contextlib.nullcontext() if on is None else jax.set_mesh(on):
        if on is not None:
            split = jax.sharding.PartitionSpec(ROWS)
            arguments = [jax.device_put(a, jax.NamedSharding(on, split if a.ndim else jax.P())) for a in arguments]
        return jax.device_get(both(*arguments))


def chance(positives, among):
    """The chance that one of `positives` comes first in a random order of those of `among` that tie for the lead."""
    best = max(among)
    first = [sum(score > best - 1e-9 for score in scores) for scores in (positives, among)]
    return first[0] / first[1]


COLLAPSED = {
    "all rows are one": lambda e: np.broadcast_to(e[:1], e.shape),
    "two clusters": lambda e: e[np.arange(len(e)) % 2],
    "zeros": np.zeros_like,
}
"""Embeddings [B,...] -> what a tower that has collapsed makes of them."""


def assert_same(got, wanted):
    """Value and metrics to 1e-5; gradients to 1e-5 of the largest of an array, and 1e-6 of a row's unit."""
    (loss, metrics), gradients = got
    (wanted_loss, wanted_metrics), wanted_gradients = wanted
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5, atol=1e-6)
    assert metrics.keys() == wanted_metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, wanted_metrics[name], atol=1e-6)
    for gradient, known in zip(gradients, wanted_gradients, strict=True):
        assert gradient.dtype == known.dtype and np.all(np.isfinite(gradient))
        np.testing.assert_allclose(gradient, known, rtol=1e-5, atol=max(1e-5 * np.abs(known).max(), 1e-6))
