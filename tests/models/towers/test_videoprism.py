"""VideoPrism's tower and the text tower's class token; numbers of the public code are in tests/zoo/convert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import input_of
from flax import nnx
from tower_loops import randomised

from twinreel.base.errors import UserError
from twinreel.models.layers.draws import row_keys
from twinreel.models.towers.frames import IMAGE_TOWERS
from twinreel.models.towers.transformer import TextTower
from twinreel.models.towers.videoprism import VideoPrismTower
from twinreel.zoo.build import TOWERS, abstract
from twinreel.zoo.spec import ModelSpec
from twinreel.zoo.variants import VARIANTS

SIZES = {"image_size": 16, "num_frames": 4, "patch": 4, "width": 12, "depth": 1, "heads": 3, "temporal_depth": 1}
LVT = {"auxiliary_depth": 1, "pool": "attention"}
encoded = nnx.jit(lambda tower, video, keys: tower(video, keys=keys))
TEXT = {"vocab_size": 20, "context_length": 6, "width": 8, "depth": 1, "heads": 2, "causal": True}


def tower(**changes):
    return randomised(VideoPrismTower(**(SIZES | changes), rngs=nnx.Rngs(0)))


def clips(*, rows=2, frames=4, side=16, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (rows, frames, side, side, 3), np.uint8))


@pytest.mark.parametrize(("frames", "side"), [(2, 8), (6, 24), (1, 12)])
def test_positions_are_resized_as_jax_image_resize_does(frames, side):
    """A tower of other sizes whose positions are those of `jax.image.resize` gives the same tokens."""
    ours = tower()
    other = VideoPrismTower(**(SIZES | {"image_size": side, "num_frames": frames}), rngs=nnx.Rngs(1))
    params = nnx.to_pure_dict(nnx.state(ours, nnx.Param))
    grid = params["space_position"].reshape(4, 4, 12)
    grid = jax.image.resize(grid, (side // 4, side // 4, 12), method="bilinear")
    params["space_position"] = grid.reshape(-1, 12)
    params["time_position"] = jax.image.resize(params["time_position"], (frames, 12), method="bilinear")
    state = nnx.state(other, nnx.Param)
    nnx.replace_by_pure_dict(state, params)
    nnx.update(other, state)
    video = clips(frames=frames, side=side)
    np.testing.assert_allclose(ours.tokens(video)[0], other.tokens(video)[0], atol=2e-5)


@pytest.mark.parametrize("form", [{}, LVT], ids=["mean", "attention"])
def test_padded_frames_are_not_seen(form):
    run = nnx.jit(lambda tower, video, mask: (tower(video, mask=mask), tower.features(video, mask=mask)))
    ours, mask = tower(**form), jnp.asarray([[True, True, True, False], [True, False, True, True]])
    video = clips()
    vectors, features = run(ours, video, mask)
    changed = jnp.where(mask[:, :, None, None, None], video, 255 - video)
    again, features_again = run(ours, changed, mask)
    np.testing.assert_allclose(vectors, again, atol=1e-5)
    np.testing.assert_allclose(features[mask], features_again[mask], atol=1e-5)
    assert np.abs(vectors - run(ours, video, jnp.ones((2, 4), bool))[0]).max() > 1e-2
    if not form:  # the mean over the tokens of real frames
        wanted = [features[i, mask[i]].mean(axis=0) for i in range(2)]
        np.testing.assert_allclose(vectors, np.stack(wanted), atol=1e-5)


def test_patch_dropout_keeps_the_same_places_in_all_frames():
    ours = tower(patch_dropout=0.75)
    video, keys = clips(), row_keys(jax.random.key(0), rows=2)
    x, kept = ours.tokens(video, keys=keys)
    assert x.shape == (2, 4, 4, 12) and kept.shape == (2, 4, 4)
    assert (kept == kept[:, :1]).all() and not (kept[0] == kept[1]).all()
    whole, everything = ours.tokens(video, keys=keys, drop_patches=False)
    assert everything is None and whole.shape == (2, 4, 16, 12)
    space, places = ours.spatial(video, keys=keys)
    cut = jnp.take_along_axis(ours.spatial(video)[0], places[:, None, :, None], axis=2)
    assert space.shape == cut.shape and np.abs(space - cut).max() > 1e-3, "the spatial stack sees the kept ones alone"
    np.testing.assert_array_equal(ours.tokens(video)[0], whole)


def test_dropout_needs_keys_and_reaches_all_stacks():
    ours, keys = tower(**LVT, dropout=0.5), row_keys(jax.random.key(1), rows=2)
    video = clips()

    @nnx.jit
    def stacks(tower, video, space, keys):
        return tower.spatial(video, keys=keys)[0], tower.spatiotemporal(space, keys=keys), tower(video, keys=keys)

    space = ours.spatial(video)[0]
    for drawn, plain in zip(stacks(ours, video, space, keys), stacks(ours, video, space, None), strict=True):
        assert np.abs(drawn - plain).max() > 1e-3
    np.testing.assert_array_equal(stacks(ours, video, space, keys)[2], stacks(ours, video, space, keys)[2])


def test_in_bfloat16_it_is_close_and_rows_are_float32():
    ours = tower(**LVT)
    half = VideoPrismTower(**SIZES, **LVT, dtype="bfloat16", rngs=nnx.Rngs(0))
    nnx.update(half, nnx.state(ours, nnx.Param))
    found, wanted = encoded(half, clips(), None), encoded(ours, clips(), None)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=0.05 * np.abs(wanted).max())


def test_layer_order_names_all_parameters():
    ours = tower(**LVT)
    paths = ["/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(ours, nnx.Param))]
    assert paths and all(any(path.startswith(part) for part in ours.layer_order()) for path in paths)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 5}, r"image_size=16 must be a multiple of patch=5"),
        ({"pool": "attn"}, r"config\.model\.video\.pool.*'attn'.*'attention'"),
        ({"patch_dropout": 1.0}, r"patch_dropout must be at least 0 and below 1, got 1\.0"),
        ({"pool": "attention", "pool_width": 32}, r"pool_width=32 must divide by heads=3"),
        ({"block": {"norm_epsilom": 1}}, r"norm_epsilom.*norm_epsilon"),
    ],
)
def test_bad_configs_name_the_field(changes, message):
    with pytest.raises(UserError, match=message):
        VideoPrismTower(**(SIZES | changes), rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("video", "message"),
    [
        (jnp.zeros((1, 4, 16, 18, 3), jnp.uint8), "16 x 18 pixels.* patch=4"),
        (jnp.zeros((1, 4, 16, 16, 3), jnp.float32), "dtype float32"),
        (jnp.zeros((4, 16, 16, 3), jnp.uint8), r"\[B,T,H,W,3\]"),
    ],
)
def test_bad_videos_say_what_is_wanted(video, message):
    with pytest.raises(UserError, match=message):
        tower()(video)


def text_tower(**changes):
    form = {"class_token": True, "pool": "cls", "position": "sinusoids", "scale_embedding": True}
    return randomised(TextTower(**(TEXT | form | changes), rngs=nnx.Rngs(0)))


def test_the_class_token_sees_all_real_tokens_and_no_padding():
    ours = text_tower()
    run = nnx.jit(lambda tower, text, mask: (tower(text, mask=mask), tower.tokens(text, mask=mask)))
    text, mask = jnp.asarray([[3, 4, 5, 6, 0, 0]]), jnp.asarray([[True] * 4 + [False] * 2])
    vector, tokens = run(ours, text, mask)
    np.testing.assert_allclose(run(ours, text.at[:, 4:].set(7), mask)[0], vector, atol=1e-6)
    np.testing.assert_allclose(run(ours, text[:, :4], mask[:, :4])[0], vector, atol=1e-5)
    for place in range(4):
        assert np.abs(run(ours, text.at[:, place].set(9), mask)[0] - vector).max() > 1e-3
    bare = TextTower(**TEXT, position="sinusoids", scale_embedding=True, rngs=nnx.Rngs(0))
    rest = {path: x for path, x in nnx.to_flat_state(nnx.state(ours, nnx.Param)) if "class_token" not in path}
    nnx.update(bare, nnx.from_flat_state(rest))
    np.testing.assert_allclose(tokens, run(bare, text, mask)[1], atol=1e-6, err_msg="no other token sees it")


def test_sinusoids_take_texts_up_to_the_context_length_and_hold_no_parameter():
    ours = text_tower()
    assert ours.position is None and ours.class_token.shape == (1, 8)
    with pytest.raises(UserError, match="text of 7 tokens"):
        ours(jnp.ones((1, 7), jnp.int32), mask=jnp.ones((1, 7), bool))
    with pytest.raises(UserError, match=r"config\.model\.text\.position.*'sinusoid'.*'sinusoids'"):
        text_tower(position="sinusoid")


@pytest.mark.parametrize("name", ["b", "l", "lvt-b", "lvt-l"])
def test_public_sizes(name):
    """Parameters in all, as the README of google-deepmind/videoprism rounds them."""
    text = VARIANTS["transformer"].get(f"videoprism-{name}")
    towers = {"video": {"family": "videoprism", **VARIANTS["videoprism"][name]}}
    if text:
        towers["text"] = {"family": "transformer", **text}
    width = towers["video"]["width"]
    spec = ModelSpec(
        towers=towers,
        input=input_of(num_frames=16 if name.endswith("b") else 8, context_length=64),
        embed_dim=width if text else None,
        projections={"video": "none", "text": "none"} if text else {},
    )
    model = abstract(spec)
    count = sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert round(count / 1e6) == {"b": 114, "l": 354, "lvt-b": 248, "lvt-l": 580}[name]


def test_all_listed_sizes_belong_to_a_tower():
    assert set(VARIANTS) <= {family for families in TOWERS.values() for family in families} | set(IMAGE_TOWERS)
