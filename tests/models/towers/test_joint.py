"""Joint space-time attention: an independent forward pass, positions of other sizes, one frame, dropout, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import attend_by_loops, blocks_by_loops, dense, f64, norm, randomised

from twinreel.base.errors import UserError
from twinreel.models.layers.draws import row_keys
from twinreel.models.layers.mean_query import MeanQueryPool
from twinreel.models.layers.positions import resize_positions
from twinreel.models.towers.clip_positions import joint_positions, separate_positions, time_positions
from twinreel.models.towers.joint import JointTower

SIZES = {"image_size": 8, "num_frames": 4, "patch": 4, "width": 12, "depth": 2, "heads": 2, "mlp_ratio": 2.0}
MEAN, STD = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)


def tower(**changes):
    return randomised(JointTower(**SIZES | changes, pixel_mean=MEAN, pixel_std=STD, rngs=nnx.Rngs(0)))


def clips(*, rows=2, frames=4, height=8, width=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, frames, height, width, 3), dtype=np.uint8)


def embedded_by_loops(model, clip):
    """Tokens `[T,N,D]` of one clip before positions: tubelets, row by row of the grid."""
    x = (clip / 255 - np.array(MEAN)) / np.array(STD)
    u, p = model.tubelet, model.patch
    steps = []
    for t in range(len(clip) // u):
        for r in range(clip.shape[1] // p):
            for c in range(clip.shape[2] // p):
                steps.append(x[t * u : t * u + u, r * p : r * p + p, c * p : c * p + p].reshape(-1))
    return dense(np.array(steps), model.embed.out).reshape(len(clip) // u, -1, model.tokens_width)


def tokens_by_loops(model, clip, *, positions):
    """All tokens `[1 + N*T,D]` with place outermost and time innermost, as ViCLIP orders them, after the blocks."""
    x = embedded_by_loops(model, clip) + positions
    x = x.swapaxes(0, 1).reshape(-1, x.shape[2])
    if model.class_token is not None:
        x = np.concatenate([f64(model.class_token), x])
    return blocks_by_loops(x if model.pre_norm is None else norm(x, model.pre_norm), model.blocks)


def table_of(model):
    """Positions `[T,N,D]` at the tower's own size."""
    if model.position is not None:
        return f64(model.position).reshape(model.times, -1, model.tokens_width)
    if model.space_position is not None:
        return f64(model.time_position)[:, None] + f64(model.space_position)[None]
    count, width = model.times * model.side**2, model.tokens_width
    angles = [[place / 10_000 ** (2 * (i // 2) / width) for i in range(width)] for place in range(count)]
    table = [[np.cos(a) if i % 2 else np.sin(a) for i, a in enumerate(row)] for row in angles]
    return np.array(table).reshape(model.times, -1, width)


FORMS = {
    "viclip": {"pre_norm": True, "patch_bias": False, "activation": "quick_gelu", "time_method": "cut"},
    "vivit": {"position": "joint", "tubelet": 2, "activation": "gelu"},
    "videomae": {
        **{"position": "sinusoids", "tubelet": 2, "class_token": False, "pool": "mean", "pool_norm": 1e-5},
        "block": {"final_norm": False},
    },
    "pretrained": {"position": "sinusoids", "tubelet": 2, "class_token": False, "pool": "first"},
}


@pytest.mark.parametrize("form", FORMS)
def test_forward_pass_by_loops(form):
    model, video = tower(**FORMS[form]), clips()
    found, tokens = model(jnp.asarray(video)), model.tokens(jnp.asarray(video))[0]
    assert found.shape == (2, 12) and found.dtype == jnp.float32 and tokens.shape == (2, 4 // model.tubelet, 4, 12)
    for row in range(2):
        x = tokens_by_loops(model, video[row], positions=table_of(model))
        patches = x[len(x) % model.times :].reshape(4, model.times, 12).swapaxes(0, 1)
        np.testing.assert_allclose(tokens[row], patches, rtol=1e-4, atol=1e-4)
        pooled = {"cls": x[0], "mean": patches.mean((0, 1)), "first": patches[0, 0]}[model.pool]
        wanted = pooled if model.pool_norm is None else norm(pooled, model.pool_norm)
        np.testing.assert_allclose(found[row], wanted, rtol=1e-4, atol=1e-4)


def test_mean_query_pool_by_loops():
    layer = randomised(MeanQueryPool(width=12, heads=3, out_width=7, dtype=jnp.float32, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(1).normal(0, 1, (2, 5, 12))
    found = layer(jnp.asarray(x, jnp.float32))
    for row in range(2):
        q = dense(norm(x[row].mean(0, keepdims=True), layer.norm_query), layer.query)
        k, v = dense(norm(x[row], layer.norm_key), layer.key), dense(norm(x[row], layer.norm_value), layer.value)
        heads = [attend_by_loops(q[:, i : i + 4], k[:, i : i + 4], v[:, i : i + 4]) for i in (0, 4, 8)]
        np.testing.assert_allclose(found[row], dense(np.concatenate(heads, 1), layer.out)[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="pool_heads=5"):
        MeanQueryPool(width=12, heads=5, out_width=7, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_attention_pool_sees_the_class_token_and_pools_each_step_for_features():
    model, video = tower(position="joint", pool="attention", pool_heads=3, pool_width=7), jnp.asarray(clips())
    assert model.width == 7
    x = model.all_tokens(video)
    everything = jnp.concatenate([x.leading, x.patches.reshape(2, 16, 12)], axis=1)
    np.testing.assert_allclose(model(video), model.pooler(everything), rtol=1e-5, atol=1e-5)
    features = model.features(video)
    assert features.shape == (2, 4, 7) and features.dtype == jnp.float32
    np.testing.assert_allclose(features[:, 2], model.pooler(x.patches[:, 2]), rtol=1e-5, atol=1e-5)


def test_features_are_means_over_places():
    model, video = tower(tubelet=2), jnp.asarray(clips())
    features = model.features(video)
    assert features.shape == (2, 2, 12)
    np.testing.assert_allclose(features, model.tokens(video)[0].mean(axis=2), rtol=1e-5, atol=1e-5)


def test_times_are_cut_or_padded_with_zeros():
    table = jnp.arange(8.0).reshape(4, 2)
    padded = time_positions(table, times=6, method="cut")
    np.testing.assert_array_equal(padded, np.concatenate([table, np.zeros((2, 2))]))
    np.testing.assert_array_equal(time_positions(table, times=3, method="cut"), table[:3])
    for method in ("cut", "linear"):
        np.testing.assert_array_equal(time_positions(table, times=1, method=method), [[3.0, 4.0]])
    np.testing.assert_array_equal(time_positions(table, times=1, method="nearest"), table[:1])
    np.testing.assert_array_equal(time_positions(table, times=2, method="nearest"), table[::2])
    np.testing.assert_allclose(time_positions(table, times=2, method="linear"), [[1.0, 2.0], [5.0, 6.0]])


def test_joint_positions_keep_what_varies_along_one_axis_alone():
    """Constant tables stay; a table that grows with time grows with time only, one that varies in space in space."""
    time, space = np.arange(4.0), np.random.default_rng(0).normal(0, 1, 9)
    table = np.stack([np.repeat(time, 9), np.tile(space, 4)], axis=1)
    found = np.asarray(joint_positions(jnp.asarray(table), old=(4, 3, 3), new=(8, 3, 5), time_method="linear"))
    assert found.shape == (8, 15, 2)
    np.testing.assert_allclose(
        found[..., 0], np.repeat([[0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]], 15, 0).T, atol=1e-6
    )
    np.testing.assert_allclose(found[..., 1], np.tile(found[:1, :, 1], (8, 1)), atol=1e-6)
    alone = separate_positions(jnp.asarray(space)[:, None], jnp.zeros((4, 1)), new=(1, 3, 5), time_method="linear")
    np.testing.assert_allclose(found[0, :, 1], alone[0, :, 0], atol=1e-6)


@pytest.mark.parametrize("position", ["separate", "joint", "sinusoids"])
def test_clips_of_other_sizes(position):
    """A tower of the other size, whose tables are the resized ones, gives the same."""
    model, video = tower(position=position), jnp.asarray(clips(frames=6, height=16, width=16))
    larger = tower(position=position, num_frames=6, image_size=16)  # the same parameters, but for the tables
    nnx.update(larger, nnx.state(model, nnx.filterlib.Not(_is_table)))
    if position == "joint":
        larger.position.set_value(model._positions(6, 4, 4).reshape(-1, 12))
    if position == "separate":
        larger.time_position.set_value(time_positions(model.time_position[...], times=6, method="linear"))
        sizes = {"old": (2, 2), "new": (4, 4), "method": "bicubic"}
        larger.space_position.set_value(resize_positions(model.space_position[...], **sizes))
    np.testing.assert_allclose(model(video), larger(video), rtol=1e-4, atol=1e-4)


def _is_table(path, _):
    return path[0] in ("position", "space_position", "time_position")


def test_one_frame_fills_its_tubelet_at_the_mean_of_the_times():
    picture = clips(frames=1)
    model = tower(position="joint", tubelet=2)
    mean = model._positions(2, 2, 2).mean(axis=0)
    wanted = tokens_by_loops(model, np.repeat(picture, 2, axis=1)[0], positions=np.asarray(mean, np.float64))
    np.testing.assert_allclose(model(jnp.asarray(picture))[0], wanted[0], rtol=1e-4, atol=1e-4)


def test_patch_dropout_is_drawn_for_each_step_and_keeps_positions():
    model = tower(
        depth=0, class_token=False, pool="mean", patch_dropout=0.5, image_size=16, block={"final_norm": False}
    )
    video, keys = jnp.asarray(clips(height=16, width=16)), row_keys(jax.random.key(0), rows=2)
    everything, none = model.tokens(video)
    some, kept = model.tokens(video, keys=keys)
    assert none is None and some.shape == (2, 4, 8, 12) and kept.shape == (2, 4, 8)
    np.testing.assert_allclose(some, jnp.take_along_axis(everything, kept[..., None], axis=2), rtol=1e-5, atol=1e-5)
    assert len({tuple(row) for row in np.asarray(kept).reshape(-1, 8)}) == 8  # clips and steps draw for themselves
    assert model.tokens(video, keys=keys, drop_patches=False)[1] is None


def test_random_draws_belong_to_the_row():
    model = tower(dropout=0.2, patch_dropout=0.5, block={"drop_path": 0.5})
    video, keys = jnp.asarray(clips(rows=3)), row_keys(jax.random.key(3), rows=3)
    together = model(video, keys=keys)
    np.testing.assert_allclose(model(video[1:2], keys=keys[1:2])[0], together[1], rtol=1e-4, atol=1e-4)
    assert not np.allclose(together, model(video), atol=1e-2)
    assert not np.allclose(together, model(video, keys=row_keys(jax.random.key(4), rows=3)), atol=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_finite_and_reach_every_parameter(form):
    model = tower(**FORMS[form], remat="full", unroll=0)
    grads = nnx.grad(lambda m: jnp.sum(m(jnp.asarray(clips(frames=8))) ** 2))(model)
    for path, leaf in nnx.to_flat_state(nnx.state(grads, nnx.Param)):
        assert np.isfinite(leaf[...]).all() and np.abs(leaf[...]).max() > 0, path


def test_every_parameter_has_a_place_in_the_order_of_layers():
    for form in FORMS.values():
        model = tower(**form)
        paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))]
        for path in paths:
            assert sum(path == part or path.startswith(part + "/") for part in model.layer_order()) == 1, path


WRONG = {
    "image_size=8 must be a multiple of patch=3": {"patch": 3},
    "num_frames=4 must be a multiple of model.video.tubelet=3": {"tubelet": 3},
    "patch_dropout must be at least 0 and below 1": {"patch_dropout": 1.0},
    "pool='cls' needs class_token=True": {"class_token": False},
    "model.video.position.*'lerned'": {"position": "lerned"},
    "model.video.time_method.*'cubic'": {"time_method": "cubic"},
    "model.video.pool.*'max'": {"pool": "max"},
    "pool_width=3 needs pool='attention'": {"pool_width": 3},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments(message):
    with pytest.raises(UserError, match=message):
        tower(**WRONG[message])


def test_wrong_clips():
    model = tower(tubelet=2)
    with pytest.raises(UserError, match=r"3 frames.*tubelet=2"):
        model(jnp.asarray(clips(frames=3)))
    with pytest.raises(UserError, match=r"10 x 8 pixels.*patch=4"):
        model(jnp.asarray(clips(height=10)))
    with pytest.raises(UserError, match=r"dtype float32.*uint8"):
        model(jnp.asarray(clips(), jnp.float32))
    with pytest.raises(UserError, match=r"\[B,T,H,W,3\]"):
        model(jnp.asarray(clips()[0]))
