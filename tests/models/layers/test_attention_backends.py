"""Attention by kernels: splash, interpreted, against float64; which backend is chosen; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from tower_loops import attend_by_loops, randomised, small_options

from twinreel.base.errors import UserError
from twinreel.engine.sharding.mesh import BATCH_AXES, make_mesh
from twinreel.models.layers import backends
from twinreel.models.layers.attention import Attention, AttentionInputs
from twinreel.models.layers.backends import choose_backend
from twinreel.models.layers.blocks import Blocks
from twinreel.models.layers.short import short_attention
from twinreel.models.layers.splash import block_of, splash_attention


def attend64(q, k, v, dy, *, seen, cap=None):
    """One head in float64: outputs, and the gradients of q, k and v for that of the outputs."""
    scale = q.shape[1] ** -0.5
    raw = q @ k.T * scale
    scores = raw if cap is None else cap * np.tanh(raw / cap)
    weights = np.where(seen, np.exp(scores - scores.max()), 0)
    total = weights.sum(1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    slopes = weights * (dy @ v.T - (dy * (weights @ v)).sum(1, keepdims=True))
    slopes = slopes if cap is None else slopes * (1 - np.tanh(raw / cap) ** 2)
    return weights @ v, slopes @ k * scale, slopes.T @ q * scale, weights.T @ dy


def drawn(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def by_short(q, k, v, **given):
    """The kernel of short rows, with heads before tokens as in `splash_attention`."""
    return jnp.swapaxes(short_attention(*(jnp.swapaxes(x, 1, 2) for x in (q, k, v)), **given), 1, 2)


@pytest.mark.parametrize(
    ("heads", "groups", "length", "width", "causal", "masked", "cap", "dtype"),
    [
        (3, 0, 40, 32, True, True, None, jnp.float32),
        (2, 0, 197, 72, False, False, None, jnp.bfloat16),
        (2, 0, 257, 88, False, True, 3.0, jnp.float32),
        (2, 1, 40, 32, True, True, None, jnp.float32),  # one block, mostly padding
        (1, 1, 196, 72, False, False, None, jnp.bfloat16),
        (1, 1, 257, 88, False, True, 3.0, jnp.float32),
        (1, 1, 1568, 64, True, False, None, jnp.float32),  # seven blocks: separate kernels for the gradients
    ],
)
def test_kernels_equal_float64(heads, groups, length, width, causal, masked, cap, dtype):
    """Splash, or without groups the kernel of short rows."""
    kernel, groups = (splash_attention, groups) if groups else (by_short, heads)
    rows = 2 if length < 64 else 1
    q, k, v, dy = (drawn(rows, n, length, width, seed=s, dtype=dtype)
                   for s, n in enumerate((heads, groups, groups, heads)))  # fmt: skip
    mask = np.random.default_rng(9).random((rows, length)) < 0.6
    mask[0, :3] = False  # the first causal queries see nothing
    if rows > 1:
        mask[1] = False  # and this row's see nothing at all
    given = {"mask": jnp.asarray(mask) if masked else None, "causal": causal, "cap": cap}

    @jax.jit
    def outcome(q, k, v, dy):
        y, pull = jax.vjp(lambda *qkv: kernel(*qkv, **given), q, k, v)
        return y, *pull(dy)

    found = [np.asarray(x, np.float64) for x in outcome(q, k, v, dy)]
    assert outcome(q, k, v, dy)[0].dtype == dtype
    q, k, v, dy = (np.asarray(x, np.float64) for x in (q, k, v, dy))
    wanted = [np.zeros_like(x) for x in (q, q, k, v)]
    for row in range(rows):
        seen = np.tri(length, dtype=bool) if causal else np.ones((length, length), bool)
        seen = seen & mask[row] if masked else seen
        for head in range(heads):
            at = head // (heads // groups)
            y, *grads = attend64(q[row, head], k[row, at], v[row, at], dy[row, head], seen=seen, cap=cap)
            if length < 64:
                loops = attend_by_loops(q[row, head], k[row, at], v[row, at], seen=seen, cap=cap)
                np.testing.assert_allclose(y, loops, atol=1e-12)
            for total, part, own in zip(wanted, (y, *grads), (head, head, at, at), strict=True):
                total[row, own] += part
    for got, want in zip(found, wanted, strict=True):
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error < (2e-2 if dtype == jnp.bfloat16 else 1e-5)
    if rows > 1:
        assert not any(x[1].any() for x in found)


@pytest.mark.parametrize("length", [1, 64, 128, 196, 197, 256, 257, 512, 513, 1568, 4096])
def test_blocks_cover_all_tokens(length):
    whole, block = block_of(length)
    assert whole >= length and whole % block == 0 and block % 128 == 0 and block <= 512
    assert whole - length < 128 if length <= 512 else whole < 1.25 * length + 256


@pytest.mark.parametrize(("kernel", "names"), [("splash", ("splash_mha_fwd", "splash_mha_dkv")),
                                               ("short", ("short_attention_fwd", "short_attention_bwd"))])  # fmt: skip
def test_a_stack_by_a_kernel_on_a_mesh_equals_plain_products(monkeypatch, kernel, names):
    """Rows over two axes, heads over `tensor`; under rematerialisation, in a loop over layers, with a mask."""
    kind = {"width": 32, "heads": 4, "causal": True, "remat": "full"}
    x, mask = drawn(4, 24, 32), jnp.arange(24)[None] < jnp.asarray([24, 20, 9, 1])[:, None]

    def outcome(backend):
        stack = randomised(Blocks(small_options(**kind, attention=backend), depth=2, rngs=nnx.Rngs(0)))
        graph, params = nnx.split(stack)
        loss = jax.value_and_grad(lambda p, x: jnp.sum(jnp.square(nnx.merge(graph, p)(x, mask=mask))), argnums=(0, 1))
        return jax.jit(loss), params

    plain, params = outcome("xla")
    wanted = plain(params, x)
    monkeypatch.setattr(backends, "on_tpu", lambda: True)
    mesh = make_mesh(replica=2, fsdp=1, tensor=2, devices=jax.devices()[:4])
    rows = jax.device_put(x, NamedSharding(mesh, PartitionSpec(BATCH_AXES)))
    with jax.set_mesh(mesh):
        by_kernel, params = outcome(kernel)
        text = str(by_kernel.trace(params, rows).jaxpr)
        found = by_kernel(params, rows)
    assert all(name in text for name in ("shard_map", *names))
    jax.tree.map(lambda got, want: np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-4), found, wanted)


CASE = {"tower": "video", "rows": 8, "length": 196, "heads": 12, "groups": 12, "head_size": 64, "dtype": jnp.bfloat16}


@pytest.mark.parametrize(
    ("device", "changes", "chosen"),
    [
        ("cpu", {}, "xla"),
        ("tpu", {}, "short"),
        ("tpu", {"dtype": jnp.float32, "cap": 50.0, "head_size": 72}, "short"),
        ("tpu", {"heads": 16, "groups": 16, "head_size": 72, "length": 256}, "short"),
        ("tpu", {"length": 64}, "short"),
        ("tpu", {"length": 1568}, "splash"),
        ("tpu", {"groups": 4}, "splash"),
        ("tpu", {"length": 64, "groups": 4}, "xla"),
        ("tpu", {"length": 8}, "xla"),
        ("tpu", {"extra": "a bias"}, "xla"),
        ("gpu", {}, "cudnn"),
        ("gpu", {"dtype": jnp.float16}, "cudnn"),
        ("gpu", {"dtype": jnp.float32}, "xla"),
        ("gpu", {"head_size": 36}, "xla"),
        ("gpu", {"head_size": 256}, "xla"),
        ("gpu", {"cap": 50.0}, "xla"),
        ("gpu", {"extra": "a bias"}, "xla"),
    ],
)
def test_auto_takes_the_kernel_of_the_device_where_it_can(monkeypatch, device, changes, chosen):
    monkeypatch.setattr(backends, "on_tpu", lambda: device == "tpu")
    monkeypatch.setattr(backends, "has_flash_kernel", lambda: device == "gpu")
    assert choose_backend("auto", **CASE | changes) == chosen
    assert choose_backend("xla", **CASE | changes) == "xla"


@pytest.mark.parametrize(
    ("device", "name", "changes", "why"),
    [
        ("cpu", "splash", {}, "needs a TPU"),
        ("gpu", "splash", {}, "needs a TPU"),
        ("tpu", "splash", {"extra": "a bias"}, "has a bias"),
        ("cpu", "short", {}, "needs a TPU"),
        ("tpu", "short", {"length": 1568}, "1568 tokens of 768 channels does not fit"),
        ("tpu", "short", {"groups": 4}, "12 heads of queries, but 4 of keys"),
        ("tpu", "cudnn", {}, "NVIDIA GPU"),
        ("gpu", "cudnn", {"dtype": jnp.float32}, "not in float32"),
        ("gpu", "cudnn", {"head_size": 36}, "36 channels"),
        ("gpu", "cudnn", {"cap": 50.0}, "soft cap"),
        ("gpu", "cudnn", {"extra": "a mask of pairs of tokens"}, "mask of pairs"),
    ],
)
def test_a_backend_by_name_that_cannot_is_an_error(monkeypatch, device, name, changes, why):
    monkeypatch.setattr(backends, "on_tpu", lambda: device == "tpu")
    monkeypatch.setattr(backends, "has_flash_kernel", lambda: device == "gpu")
    with pytest.raises(UserError, match=rf"config\.model\.attention='{name}'.*'video'.*{why}.*'xla'"):
        choose_backend(name, **CASE | changes)


def test_rows_that_do_not_divide_by_the_mesh_go_without_the_kernel(monkeypatch):
    monkeypatch.setattr(backends, "on_tpu", lambda: True)
    with jax.set_mesh(make_mesh(replica=2, tensor=2, devices=jax.devices()[:4])):
        assert choose_backend("auto", **CASE | {"rows": 2}) == "short"
        assert choose_backend("auto", **CASE | {"rows": 3}) == "xla"
        with pytest.raises(UserError, match="3 rows do not divide"):
            choose_backend("splash", **CASE | {"rows": 3})


def test_a_layer_says_what_its_attention_has_that_no_kernel_computes(monkeypatch):
    monkeypatch.setattr(backends, "on_tpu", lambda: True)
    layer = Attention(small_options(attention="splash"), rngs=nnx.Rngs(0))
    x = drawn(2, 5, layer.options.width)
    for inputs, why in (
        (AttentionInputs(bias=jnp.zeros((1, 1, 5, 5))), "a bias"),
        (AttentionInputs(pairs=jnp.ones((5, 5), bool)), "a mask of pairs"),
    ):
        with pytest.raises(UserError, match=rf"config\.model\.attention='splash'.*{why}"):
            layer(x, inputs=inputs)
    with pytest.raises(UserError, match=r"config\.model\.attention.*splash"):
        small_options(attention="splahs")
