"""Convolutions with BatchNorm and pools against loops in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import f64, randomised

from twinreel.models.layers.conv import ConvNorm, FrozenBatchNorm, max_pool, mean_pool
from twinreel.models.towers.s3d import same_pool


def batch_norm(x, layer):
    return (x - f64(layer.mean)) / np.sqrt(f64(layer.variance) + layer.epsilon) * f64(layer.scale) + f64(layer.bias)


def layer_of(*args, **kwargs):
    layer = randomised(ConvNorm(*args, **kwargs, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    if layer.norm is not None:
        layer.norm.variance[...] = jnp.abs(layer.norm.variance[...]) + 0.1
    return layer


def convolved(x, kernel, *, stride, padding, groups=1):
    """Convolve `x [*places,C]` place by place."""
    x = np.pad(x, [*padding, (0, 0)])
    sizes, per_group, out = kernel.shape[:-2], kernel.shape[-2], kernel.shape[-1]
    counts = [(length - size) // step + 1 for length, size, step in zip(x.shape, sizes, stride, strict=False)]
    y = np.zeros((*counts, out))
    for place in itertools.product(*map(range, counts)):
        window = x[tuple(slice(i * s, i * s + n) for i, s, n in zip(place, stride, sizes, strict=True))]
        for channel in range(out):
            first = channel // (out // groups) * per_group
            y[(*place, channel)] = np.sum(window[..., first : first + per_group] * kernel[..., channel])
    return y


FORMS = {
    "space": ((4, 6), {"kernel": (3, 3), "stride": 2}, [(1, 1), (1, 1)], 1),
    "depthwise": ((4, 4), {"kernel": (3, 3), "groups": 4, "bias": True}, [(1, 1), (1, 1)], 4),
    "uneven": ((3, 5), {"kernel": (2, 4, 4), "padding": [(0, 1), (1, 2), (1, 2)]}, [(0, 1), (1, 2), (1, 2)], 1),
    "time": ((3, 2), {"kernel": (3, 1, 1), "stride": (2, 1, 1), "activation": None}, [(1, 1), (0, 0), (0, 0)], 1),
    "no norm": ((3, 2), {"kernel": (1, 1), "norm": False, "bias": True}, [(0, 0), (0, 0)], 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_by_loops(form):
    widths, options, padding, groups = FORMS[form]
    layer = layer_of(*widths, **options)
    axes = len(options["kernel"])
    x = np.random.default_rng(1).normal(size=(5, 4, 6)[:axes] + widths[:1])
    stride = options.get("stride", 1)
    steps = stride if isinstance(stride, tuple) else (stride,) * axes
    y = convolved(x, f64(layer.conv.kernel), stride=steps, padding=padding, groups=groups)
    y = y + (f64(layer.conv.bias) if options.get("bias") else 0)
    y = batch_norm(y, layer.norm) if layer.norm is not None else y
    y = np.maximum(y, 0) if options.get("activation", 1) is not None else y
    np.testing.assert_allclose(layer(jnp.asarray(x[None], jnp.float32))[0], y, rtol=1e-4, atol=1e-4)


def test_training_leaves_the_statistics_as_they_are():
    layer = randomised(FrozenBatchNorm(3, dtype=jnp.float32))
    layer.variance[...] = jnp.abs(layer.variance[...]) + 0.1
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)), jnp.float32)
    gradients = nnx.grad(lambda layer: jnp.sum(jnp.sin(layer(x))))(layer)
    assert float(jnp.abs(gradients.mean[...]).max()) == 0 and float(jnp.abs(gradients.variance[...]).max()) == 0
    assert all(float(jnp.abs(gradients[name][...]).min()) > 0 for name in ("scale", "bias"))


def test_batch_norm_computes_in_float32_and_returns_the_compute_dtype():
    layer = FrozenBatchNorm(2, dtype=jnp.bfloat16)
    layer.mean[...] = jnp.asarray([256.0, 0.0])
    y = layer(jnp.asarray([[257.0, 1.0]], jnp.float32))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), [[1.0, 1.0]], rtol=1e-2)


@pytest.mark.parametrize(
    ("length", "size", "step", "count"), [(8, 3, 2, 4), (7, 3, 2, 4), (1, 2, 2, 1), (5, 2, 2, 3), (4, 1, 1, 4)]
)
def test_pools_of_s3d(length, size, step, count):
    """Zeros `size - step` around, the smaller half in front; then windows until the end is covered."""
    x = np.abs(np.random.default_rng(0).normal(size=(length, 2, 1, 3))).astype(np.float32)
    padded = np.pad(x, [((size - step) // 2, size - step - (size - step) // 2), (0, 0), (0, 0), (0, 0)])
    wanted = [padded[start : start + size].max(axis=0) for start in range(0, count * step, step)]
    found = same_pool(jnp.asarray(x[None]), kernel=(size, 1, 1), stride=(step, 1, 1))
    np.testing.assert_array_equal(found[0], np.array(wanted))


def test_padding_of_a_pool_is_never_the_largest():
    x = -jnp.ones((1, 3, 1), jnp.float32)
    np.testing.assert_array_equal(max_pool(x, kernel=(3,), stride=(2,), padding=[1]), -np.ones((1, 2, 1)))
    slope = jax.grad(lambda x: jnp.sum(max_pool(x, kernel=(3,), stride=(2,), padding=[1])))(x)
    assert float(jnp.sum(slope)) == 2


def test_means_of_windows_without_overlap():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    wanted = x[:, :4].reshape(2, 2, 2, 2, 2, 3).mean(axis=(2, 4))  # the last row is left over
    np.testing.assert_allclose(mean_pool(jnp.asarray(x), side=2), wanted, rtol=1e-5, atol=1e-6)
    assert mean_pool(jnp.asarray(x, jnp.bfloat16), side=2).dtype == jnp.bfloat16
    np.testing.assert_array_equal(mean_pool(jnp.asarray(x), side=1), x)
