"""Towers: shapes, unit rows, masks, order, an independent NumPy forward pass, errors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import build
from flax import nnx
from public_models import encode_text, encode_video
from tower_loops import (
    attention_by_loops,
    block_by_loops,
    blocks_by_loops,
    dense,
    f64,
    gelu,
    layer_of,
    norm,
    randomised,
)

from twinreel.base.errors import UserError
from twinreel.cost.flops import count_flops
from twinreel.models.layers.attention import AttentionInputs
from twinreel.models.layers.blocks import Blocks
from twinreel.models.layers.draws import fold, row_keys
from twinreel.models.layers.remat import POLICIES
from twinreel.plan.advice import REMAT

VIDEO = {"image_size": 16, "patch": 8, "width": 12, "depth": 1, "heads": 2, "temporal_depth": 1, "mlp_ratio": 2.0}
TEXT = {"width": 8, "depth": 1, "heads": 2, "mlp_ratio": 2.0}


def tiny(**changes):
    video, text = VIDEO | changes.pop("video", {}), TEXT | changes.pop("text", {})
    sizes = {"num_frames": 4, "context_length": 6, "vocab_size": 20} | changes
    return build(video=video, text=text, embed_dim=10, rngs=nnx.Rngs(0), **sizes)


def clips(*, rows=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (rows, 4, 16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tubelet", [1, 2])
def test_embeddings_are_float32_unit_rows(dtype, tubelet):
    model = tiny(video={"dtype": dtype, "tubelet": tubelet}, text={"dtype": dtype})
    video = encode_video(model, jnp.asarray(clips()))
    text = encode_text(model, jnp.ones((3, 6), jnp.int32), mask=jnp.ones((3, 6), bool))
    for x in (video, text):
        assert x.shape == (3, 10) and x.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)
    assert model.video_features(jnp.asarray(clips())).shape == (3, 4 // tubelet, 12)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_early_convolutions_take_the_place_of_patches():
    model = tiny(video={"conv": ((4, 2, 6), (3, 2, 8), (3, 2, 12)), "tubelet": 2, "pool": "depthwise"})
    tower, video = model.video, jnp.asarray(clips())
    tokens, _ = tower.tokens(video)
    assert tokens.shape == (3, 2, 4, 12)
    embedded = tower.embed(video) + tower.space_position[...][None, None]
    np.testing.assert_allclose(tokens, tower.space(embedded.reshape(6, 4, 12)).reshape(tokens.shape), atol=1e-5)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ({"conv": ((4, 2, 8), (3, 2, 12))}, r"steps by 4 pixels .* got patch=8, stem=0 and gradients=0"),
        ({"conv": ((4, 2, 8), (3, 4, 12)), "stem": 2}, "leaves out"),
        ({"conv": ((8, 8, 12),), "stem": 2}, "stem=2"),
        ({"conv": ((8, 8, 10),)}, "width=12"),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(video, message):
    with pytest.raises(UserError, match=message):
        tiny(video=video)


def patch_by_loops(pixels, embed, *, stem):
    """One 8 x 8 patch of one frame, float64: as it is, or cell by cell."""
    if not stem:
        return dense(pixels.reshape(-1), embed.out)
    cells = [pixels[y : y + stem, x : x + stem].reshape(-1) for y in range(0, 8, stem) for x in range(0, 8, stem)]
    return dense(np.concatenate([gelu(norm(dense(cell, embed.stem), embed.norm)) for cell in cells]), embed.out)


@pytest.mark.parametrize("options", [{"time_pool": "linear"}, {"stem": 4}, {"stem": 2, "pool": "depthwise"}], ids=str)
def test_video_tower_equals_a_float64_loop(options):
    model, video = tiny(video=options), clips(rows=1)
    tower = model.video
    frames = []
    for frame in video[0].astype(np.float64) * 2 / 255 - 1:
        patches = [frame[y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)]
        embedded = [patch_by_loops(p, tower.embed, stem=options.get("stem", 0)) for p in patches]
        tokens = np.stack(embedded) + np.asarray(tower.space_position[...])
        tokens = norm(block_by_loops(tokens, layer_of(tower.space, 0)), tower.space.norm)
        frames.append(tokens.mean(0) if tower.pool is None else (tokens * np.asarray(tower.pool[...])).sum(0))
    tokens = np.stack(frames) + np.asarray(tower.time_position[...])
    time = norm(block_by_loops(tokens, layer_of(tower.time, 0)), tower.time.norm)
    clip = time.mean(0) if tower.time_join is None else dense(time.reshape(-1), tower.time_join)
    wanted = dense(clip, model.video_projection)
    got = encode_video(model, jnp.asarray(video))[0]
    np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted), rtol=1e-4, atol=1e-5)


def test_positions_start_as_sinusoids():
    tower = tiny().video
    for place, (row, column) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        rates = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
        wave = [f(n * r) for n in (row, column) for f in (np.sin, np.cos) for r in rates]
        np.testing.assert_allclose(tower.space_position[...][place], wave, atol=1e-6)
    assert tower.time_position[...].shape == (4, 12)


def test_in_bfloat16_positions_are_added_and_frames_pooled_in_float32(monkeypatch):
    """What enters each stack is the exact sum, rounded once: to half a unit in the last of bfloat16's eight bits."""
    entered, left, own = [], [], Blocks.__call__

    def noted(self, x, **given):
        entered.append(np.asarray(x, np.float64))
        left.append(np.asarray(own(self, x, **given), np.float64))
        return jnp.asarray(left[-1], x.dtype)

    options = {"dtype": "bfloat16", "depth": 0, "temporal_depth": 0}
    tower = tiny(video=options).video
    depthwise = tiny(video=options | {"pool": "depthwise"}).video
    patches = np.asarray(tower.embed(jnp.asarray(clips())), np.float64)
    monkeypatch.setattr(Blocks, "__call__", noted)
    tower.features(jnp.asarray(clips()))
    depthwise.features(jnp.asarray(clips()))
    frames, weighted = (out.reshape(3, 4, 4, 12) for out in (left[0], left[2]))
    wanted = [
        (patches + f64(tower.space_position)).reshape(12, 4, 12),
        frames.mean(2) + f64(tower.time_position),
        None,
        (weighted * f64(depthwise.pool)).sum(2) + f64(depthwise.time_position),
    ]
    for got, exact in zip(entered, wanted, strict=True):
        if exact is not None:
            assert (np.abs(got - exact) <= 2**-8 * np.abs(exact) + 1e-6).all()


def test_text_tower_equals_a_float64_loop_over_the_real_tokens():
    model = tiny()
    ids, real = np.array([3, 7, 7, 1, 19, 0]), 4
    tower = model.text
    tokens = np.asarray(tower.embedding[...], np.float64)[ids[:real]] + np.asarray(tower.position[...])[:real]
    out = norm(block_by_loops(tokens, layer_of(tower.blocks, 0)), tower.blocks.norm).mean(0)
    wanted = dense(out, model.text_projection)
    mask = jnp.arange(6)[None] < real
    got = encode_text(model, jnp.asarray(ids, jnp.int32)[None], mask=mask)[0]
    np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("pool", ["cls", "last", "eos", "attention"])
def test_text_pools_equal_a_float64_loop_over_the_real_tokens(pool, causal):
    model = randomised(tiny(text={"pool": pool, "causal": causal, "eos_id": 7 if causal else None}))
    tower, ids, real = model.text, np.array([[3, 7, 7, 1, 19, 0], [3, 9, 2, 9, 7, 19]]), [5, 4]
    # The second text has its 7 and its 19 in the padding: it ends with its last token, or with its first 9.
    places = {"cls": [0, 0], "last": [4, 3], "eos": [1, 3] if causal else [4, 1]}
    mask = jnp.arange(6)[None] < jnp.asarray(real)[:, None]
    got = nnx.jit(lambda tower, text, mask: tower(text, mask=mask))(tower, jnp.asarray(ids, jnp.int32), mask)
    for row in range(2):
        tokens = f64(tower.embedding)[ids[row, : real[row]]] + f64(tower.position)[: real[row]]
        out = blocks_by_loops(tokens, tower.blocks)
        if pool == "attention":
            pooler = tower.pooler
            wanted = attention_by_loops(f64(pooler.query), pooler.attention, context=out)[0]
        else:
            wanted = out[places[pool][row]]
        np.testing.assert_allclose(got[row], wanted, rtol=2e-4, atol=2e-4)


def test_a_causal_text_tower_does_not_see_what_follows():
    model = tiny(text={"causal": True})
    a, b = jnp.asarray([[1, 2, 3, 4, 5, 6]]), jnp.asarray([[1, 2, 3, 4, 9, 8]])
    mask = jnp.ones((1, 6), bool)
    one, other = (model.text.tokens(text, mask=mask) for text in (a, b))
    np.testing.assert_allclose(one[:, :4], other[:, :4], atol=1e-6)
    assert not np.allclose(one[:, 4:], other[:, 4:], atol=1e-3)


def test_further_options_reach_the_blocks_of_both_stacks():
    block, noisy = {"norm": "rmsnorm", "layer_scale": 0.1, "drop_path": 0.3}, {"activation": "swiglu", "stem": 4}
    model = tiny(video=noisy | {"block": block}, text={"block": {"kv_heads": 1}})
    for blocks in (model.video.space, model.video.time):
        assert blocks.options.norm == "rmsnorm" and blocks.layers.scale1[...].shape == (1, 12)
        assert blocks.layers.gate.kernel[...].shape == blocks.layers.up.kernel[...].shape
    assert model.text.blocks.layers.attention.qkv.kernel[...].shape == (1, 8, 16)  # two queries, a key, a value
    assert np.isfinite(encode_video(model, jnp.asarray(clips()), keys=row_keys(jax.random.key(0), rows=3))).all()


def test_padding_does_not_matter_and_short_batches_fit():
    model = tiny()
    mask = jnp.asarray([[True] * 4 + [False] * 2])
    a = encode_text(model, jnp.asarray([[1, 2, 3, 4, 5, 6]]), mask=mask)
    b = encode_text(model, jnp.asarray([[1, 2, 3, 4, 9, 9]]), mask=mask)
    c = encode_text(model, jnp.asarray([[1, 2, 3, 4]]), mask=jnp.ones((1, 4), bool))
    np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(a, c, atol=1e-6)


@pytest.mark.parametrize(("temporal_depth", "same"), [(1, False), (0, True)])
def test_order_of_frames_is_seen_by_temporal_blocks_only(temporal_depth, same):
    model, video = tiny(video={"temporal_depth": temporal_depth}), clips()
    if same:  # without temporal blocks and positions, a clip is a bag of frames
        model.video.time_position[...] = jnp.zeros_like(model.video.time_position[...])
    a, b = (encode_video(model, jnp.asarray(v)) for v in (video, video[:, ::-1].copy()))
    assert np.allclose(a, b, atol=1e-5) == same


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"patch_dropout": 0.5}], ids=str)
def test_dropout_needs_keys_and_belongs_to_the_row(options):
    model, video = tiny(video=options), jnp.asarray(clips())
    assert np.array_equal(encode_video(model, video), encode_video(model, video))
    keys = row_keys(jax.random.key(0), rows=3)
    whole = encode_video(model, video, keys=keys)
    assert not np.allclose(whole, encode_video(model, video), atol=1e-3)
    assert not np.allclose(whole, encode_video(model, video, keys=row_keys(jax.random.key(1), rows=3)), atol=1e-3)
    parts = [encode_video(model, video[i : i + 1], keys=keys[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(whole, jnp.concatenate(parts), atol=1e-6)


def test_patch_dropout_encodes_the_kept_patches_only():
    model, video = tiny(video={"patch_dropout": 0.5}), jnp.asarray(clips())
    keys = row_keys(jax.random.key(0), rows=3)
    tokens, kept = model.video.tokens(video, keys=keys)
    assert tokens.shape == (3, 4, 2, 12) and kept.shape == (3, 4, 2)
    assert len({tuple(row) for row in np.asarray(kept).reshape(-1, 2)}) > 2  # each frame draws for itself
    embedded = np.asarray(model.video.embed(video)) + np.asarray(model.video.space_position[...])  # [B,T,4,D]
    for row, frame in [(0, 0), (2, 3)]:
        seen = embedded[row, frame, np.asarray(kept[row, frame])].astype(np.float64)
        space = model.video.space
        wanted = norm(block_by_loops(seen, layer_of(space, 0)), space.norm)
        np.testing.assert_allclose(tokens[row, frame], wanted, rtol=1e-4, atol=1e-5)
    whole = encode_video(model, video, keys=keys, drop_patches=False)
    np.testing.assert_allclose(whole, encode_video(model, video), atol=1e-6)


def test_depthwise_pooling_of_kept_patches_has_the_expectation_of_all():
    model = tiny(video={"patch_dropout": 0.5, "pool": "depthwise", "depth": 0}, num_frames=1)
    video = jnp.asarray(clips()[:, :1])
    whole, _ = model.video.tokens(video)
    keys = row_keys(jax.random.key(3), rows=3)
    wanted = model.video._pool(whole, kept=None)

    def pooled(seed):
        x, kept = model.video.tokens(video, keys=fold(keys, seed))
        return model.video._pool(x, kept=kept)

    means = jax.jit(jax.vmap(pooled))(jnp.arange(300))
    spread = np.std(means, axis=0).max() / np.sqrt(300)
    np.testing.assert_allclose(np.mean(means, axis=0), wanted, atol=5 * spread)


def video_loss(**changes):
    """A number made of noisy video embeddings as function of the parameters, and the parameters."""
    video, keys = jnp.asarray(clips()), row_keys(jax.random.key(0), rows=3)
    graph, params = nnx.split(tiny(video={"depth": 3, "dropout": 0.1}, **changes))

    def loss(params):
        return jnp.sum(nnx.merge(graph, params).encode_video(video, keys=keys)[:, 0])

    return loss, params


def video_gradient(**changes):
    loss, params = video_loss(**changes)
    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.fixture(scope="module")
def plain_gradient():
    return video_gradient()


@pytest.mark.parametrize(
    ("policy", "unroll"),
    [("none", 0), ("full", 1), ("dots", 0), ("dots_no_batch", 1), ("names:qkv,hidden", 1)],
)
def test_remat_and_unrolling_change_nothing_but_memory(policy, unroll, plain_gradient):
    other = video_gradient(remat=policy, unroll=unroll)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain_gradient, other)


def test_each_remat_policy_keeps_less_and_computes_more_again():
    kept, recomputed, model = {}, {}, set()
    for policy in (*REMAT[:-1], "names:qkv,hidden", "full"):
        loss, params = video_loss(remat=policy)
        flops = count_flops(jax.jit(jax.grad(loss)).trace(params).jaxpr)
        saved = jax.eval_shape(lambda p, loss=loss: jax.vjp(loss, p)[1], params)  # what the backward pass holds
        kept[policy] = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(saved))
        recomputed[policy] = flops.recomputed
        model.add(flops.model)
    assert len(model) == 1 and REMAT[0] == "none" and REMAT[-1] == "full" and set(REMAT) == set(POLICIES)
    assert list(kept.values()) == sorted(set(kept.values()), reverse=True)
    assert recomputed["none"] == recomputed["dots"] == 0  # dots computes again what is no product
    again = [recomputed[policy] for policy in ("dots_no_batch", "names:qkv,hidden", "full")]
    assert 0 < again[0] < again[1] < again[2] < model.pop() / 3


@pytest.mark.parametrize("unroll", [0, 1])
def test_what_is_to_be_computed_again_is_not_merged_away(unroll):
    """Without a loop the compiler could merge it with what was computed first, and keep everything."""
    products = {}
    for policy in ("none", "full"):
        loss, params = video_loss(remat=policy, unroll=unroll)
        program = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
        products[policy] = len(re.findall(r" (?:dot|custom-call)\(", program))
    assert products["full"] > products["none"], products


def test_layers_start_differently_and_scan_in_order():
    model = tiny(text={"depth": 3})
    blocks, mask = model.text.blocks, jnp.ones((2, 6), bool)
    kernels = np.asarray(blocks.layers.up.kernel[...])
    assert kernels.shape == (3, 8, 16) and not np.allclose(kernels[0], kernels[1])
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 8)), jnp.float32)
    wanted = x
    for number in range(3):
        wanted = layer_of(blocks, number)(wanted, inputs=AttentionInputs(mask=mask))
    np.testing.assert_allclose(blocks(x, mask=mask), blocks.norm(wanted), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": {"patch": 7}}, r"image_size=16 must be a multiple of patch=7"),
        ({"video": {"stem": 3}}, r"patch=8 must be a multiple of stem=3"),
        ({"video": {"pool": "max"}}, r"pool 'max' \(known: depthwise, mean\)"),
        ({"video": {"time_pool": "sum"}}, r"time_pool 'sum' \(known: linear, mean\)"),
        ({"video": {"width": 14}}, r"width=14 must be a multiple of 4"),
        ({"video": {"tubelet": 3}}, r"num_frames=4 must be a multiple of model\.video\.tubelet=3"),
        ({"video": {"patch_dropout": 1.0}}, r"patch_dropout must be at least 0 and below 1, got 1\.0"),
        ({"video": {"dropout": 1.0}}, r"config\.model\.video\.dropout must be at least 0 and below 1, got 1\.0"),
        ({"text": {"dropout": -0.1}}, r"config\.model\.text\.dropout must be at least 0 and below 1, got -0\.1"),
        ({"unroll": -1}, r"config\.model\.unroll must be a number of layers, or 0 for all of them, got -1"),
        ({"initial_scale": 0.0}, r"config\.model\.initial_scale must be above 0 and at most 100, got 0\.0"),
        ({"initial_scale": 101.0}, r"config\.model\.initial_scale must be above 0 and at most 100, got 101\.0"),
        ({"remat": "dot"}, r"policy in config\.model\.remat 'dot'; did you mean 'dots'"),
        ({"remat": "names:qvk"}, r"activation in config\.model\.remat 'qvk'; did you mean 'qkv'"),
        ({"remat": "names:"}, r"names no activation"),
        ({"video": {"heads": 5}}, r"width=12 must divide by heads=5"),
        ({"video": {"activation": "gelo"}}, r"activation 'gelo'; did you mean 'gelu'"),
        ({"video": {"dtype": "bf16"}}, r"dtype 'bf16'"),
        ({"video": {"block": {"causal": True}}}, r"field of config\.model\.video\.block 'causal'"),
        ({"text": {"pool": "eot"}}, r"config\.model\.text\.pool 'eot'; did you mean 'eos'"),
        ({"video": {"widht": 12}}, r"config\.model\.video.*'widht'; did you mean 'width'"),
        ({"text": {"dept": 1}}, r"config\.model\.text.*'dept'; did you mean 'depth'"),
    ],
)
def test_bad_configs_name_the_field(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(**changes)


def test_bad_inputs_say_what_is_wanted():
    model = tiny()
    with pytest.raises(UserError, match=r"wants \[B,4,16,16,3\]"):
        model.encode_video(jnp.zeros((1, 4, 8, 8, 3), jnp.uint8))
    with pytest.raises(UserError, match="uint8"):
        model.encode_video(jnp.zeros((1, 4, 16, 16, 3), jnp.float32))
    with pytest.raises(UserError, match="context_length"):
        model.encode_text(jnp.zeros((1, 7), jnp.int32), mask=jnp.ones((1, 7), bool))
