"""Which devices a program is traced for, and that layers which suit themselves to one compute the same there."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import norm as norm64
from tower_loops import small_options

from twinreel.engine.sharding.mesh import make_mesh
from twinreel.models.layers import attention, backends
from twinreel.models.layers import norm as layers
from twinreel.models.layers.attention import Attention
from twinreel.models.layers.devices import has_flash_kernel, on_gpu, on_one_cpu


def meant_for(platform, *, devices=1):
    """A mesh of devices that are not here."""
    device = jax.sharding.AbstractDevice(device_kind="any", num_cores=None, platform=platform)
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((devices,), ("replica",), abstract_device=device))


def test_the_mesh_that_is_set_says_what_is_traced_for():
    assert on_one_cpu() and not on_gpu()
    for devices in (1, 8):
        with jax.set_mesh(make_mesh(devices=jax.devices()[:devices])):
            assert bool(jax.jit(lambda: jnp.asarray(on_one_cpu()))()) == (devices == 1)
        with meant_for("gpu", devices=devices):
            assert on_gpu() and not on_one_cpu() and not has_flash_kernel()  # no such GPU is in this machine
        with meant_for("tpu", devices=devices):
            assert not on_gpu() and not on_one_cpu()


@pytest.mark.parametrize(
    ("backend", "capability", "platform", "has"),
    [
        ("gpu", "9.0", None, True),
        ("gpu", "12.0", "cuda", True),
        ("gpu", "7.5", None, False),
        ("gpu", "gfx942", None, False),
        ("gpu", "9.0", "cpu", False),
        ("cpu", "9.0", "gpu", False),
    ],
)
def test_the_flash_kernel_is_for_gpus_of_this_machine(monkeypatch, backend, capability, platform, has):
    class Device:
        compute_capability = capability

    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    with meant_for(platform) if platform else contextlib.nullcontext():
        assert has_flash_kernel() == has


def test_layer_norm_on_a_gpu_works_on_one_axis_of_rows_and_computes_the_same(monkeypatch):
    layer = layers.LayerNorm(12, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.scale[...], layer.bias[...] = jnp.linspace(0.5, 2, 12), jnp.linspace(-1, 1, 12)
    draw = np.random.default_rng(0)
    x, dy = (jnp.asarray(draw.normal(size=(3, 5, 12)), jnp.float32) for _ in range(2))

    def outcome(layer, x):
        y, pull = jax.vjp(lambda layer, x: layer(x), layer, x)
        return y, pull(dy)

    with meant_for("gpu"):
        traced = jax.jit(outcome).trace(layer, x)
    sums = [eqn for eqn in traced.jaxpr.eqns if eqn.primitive.name == "reduce_sum"]
    assert len(sums) > 3 and {eqn.invars[0].aval.ndim for eqn in sums} == {2}
    wanted = outcome(layer, x)
    monkeypatch.setattr(layers, "on_gpu", lambda: True)
    found = outcome(layer, x)
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5), found, wanted)
    np.testing.assert_allclose(found[0], norm64(np.asarray(x, np.float64), layer), atol=1e-5)


@pytest.mark.parametrize("more", [{}, {"causal": True, "kv_heads": 1, "attention_scale": 0.5}], ids=str)
@pytest.mark.parametrize(
    ("dtype", "width", "mask", "flash"),
    [
        (jnp.bfloat16, 32, False, True),
        (jnp.bfloat16, 32, True, True),
        (jnp.float16, 32, True, True),
        (jnp.bfloat16, 24, False, False),
        (jnp.bfloat16, 512, False, False),
        (jnp.float32, 32, False, False),
    ],
)
def test_attention_goes_to_the_flash_kernel_where_it_can(monkeypatch, dtype, width, mask, flash, more):
    """With jax's own form of the kernel in its place: the same numbers, heads where they belong."""
    layer = Attention(small_options(width=width, heads=2, dtype=dtype, **more), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (3, 7, width), jnp.float32).astype(dtype)
    seen = jnp.arange(7)[None] < jnp.asarray([[7], [4], [1]]) if mask else None
    inputs = attention.AttentionInputs(mask=seen)
    wanted, calls = layer(x, inputs=inputs), []
    own = jax.nn.dot_product_attention

    def kernel(q, k, v, *, implementation, **kind):
        calls.append((q.shape, implementation))
        with jax.numpy_dtype_promotion("standard"):
            return own(q, k, v, implementation="xla", **kind)

    monkeypatch.setattr(backends, "has_flash_kernel", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", kernel)
    found = layer(x, inputs=inputs)
    assert calls == ([((3, 8 if mask else 7, 2, width // 2), "cudnn")] if flash else [])
    np.testing.assert_allclose(np.asarray(found, np.float32), np.asarray(wanted, np.float32), rtol=2e-2, atol=2e-2)
