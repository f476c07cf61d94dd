"""What caption decoders see of a clip: tokens of time steps or of patches, by hand in NumPy; towers without patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import dense, f64, norm, randomised

from twinreel.base.errors import UserError
from twinreel.data.options import InputSpec
from twinreel.models.heads.captioning import CaptionDecoder
from twinreel.models.heads.language_model import LanguageModelDecoder
from twinreel.models.heads.sides import Clips
from twinreel.models.layers.positions import sinusoids
from twinreel.zoo.build import abstract, build
from twinreel.zoo.spec import ModelSpec

RNG = np.random.default_rng(5)
M, T, N, D, W = 2, 3, 4, 6, 8
CLIPS = Clips(
    tokens=jnp.asarray(RNG.normal(size=(M, T, D)), jnp.float32),
    frames=jnp.zeros((M, T, 5)),
    mask=jnp.asarray([[True, True, False], [True] * 3]),
    patches=jnp.asarray(RNG.normal(size=(M, T, N, W)), jnp.float32),
)
SMALL = {"width": 8, "depth": 1, "heads": 2}
IMAGE = {"image_size": 16, "patch": 8, **SMALL}
VIDEO = {
    "vivit": IMAGE | {"tubelet": 2, "temporal_depth": 1},
    "frames": {"image": IMAGE | {"pool": "cls_mean", "class_token": True}},
    "joint": IMAGE | {"pool": "attention", "pool_width": 12},
    "divided": IMAGE,
    "videoprism": {"image_size": 16, "patch": 8, "width": 8, "heads": 2, "depth": 1, "temporal_depth": 1},
}
INPUT = InputSpec(num_frames=4, context_length=5)


def decoder(sees):
    sizes = {"vocab_size": 9, "context_length": 5, "video_width": D, "patch_width": W, **SMALL}
    return randomised(CaptionDecoder(sees=sees, **sizes, rngs=nnx.Rngs(0)))


def spec_of(family, **head):
    video = {"family": family, **VIDEO[family]}
    text = {"family": "transformer", "vocab_size": 9, **SMALL}
    heads = {"captioning": {"kind": "decoder", **SMALL, **head}}
    return ModelSpec(towers={"video": video, "text": text}, embed_dim=6, input=INPUT, heads=heads)


def test_time_tokens_are_seen_after_a_norm():
    head = decoder("times")
    found = head.context(CLIPS)
    np.testing.assert_allclose(found.tokens, norm(f64(CLIPS.tokens), head.norm_video), atol=1e-5)
    np.testing.assert_array_equal(found.mask, CLIPS.mask)


def test_patches_are_seen_step_after_step_with_their_place_in_time_and_the_token_of_their_step():
    head = decoder("patches")
    found = head.context(CLIPS)
    assert found.tokens.shape == (M, T * N, W)
    place = np.asarray(sinusoids(T, width=W), np.float64)
    around = dense(f64(CLIPS.tokens), head.of_step)
    for clip in range(M):
        for step in range(T):
            for patch in range(N):
                wanted = norm(f64(CLIPS.patches[clip, step, patch]), head.norm_video) + place[step] + around[clip, step]
                np.testing.assert_allclose(found.tokens[clip, step * N + patch], wanted, atol=1e-5)
                assert bool(found.mask[clip, step * N + patch]) == bool(CLIPS.mask[clip, step])
    assert head.context(CLIPS._replace(mask=None)).mask is None


def test_a_language_model_resamples_patches_with_their_place_in_time():
    language_model = {"vocab_size": 9, "context_length": 8, **SMALL}
    sizes = {"start_id": 0, "begins": False, "context_length": 5, "video_width": D, "patch_width": W}
    head = LanguageModelDecoder(decoder=language_model, sees="patches", latents=3, **sizes, rngs=nnx.Rngs(0))
    head = randomised(head)
    whole = CLIPS._replace(mask=None)
    one, within, turned = (
        np.asarray(head.context(whole._replace(patches=patches)).tokens)
        for patches in (CLIPS.patches, CLIPS.patches[:, :, ::-1], CLIPS.patches[:, ::-1])
    )
    assert one.shape == (M, 3, 8)
    np.testing.assert_allclose(one, within, atol=1e-5)  # places in time are of steps, not of patches
    assert np.abs(turned - one).max() > 1e-3
    around = whole._replace(tokens=CLIPS.tokens[:, ::-1])
    assert np.abs(np.asarray(head.context(around).tokens) - one).max() > 1e-3
    hidden = CLIPS._replace(patches=CLIPS.patches.at[0, 2].set(7.0), tokens=CLIPS.tokens.at[0, 2].set(jnp.nan))
    np.testing.assert_array_equal(head.context(hidden).tokens, head.context(CLIPS).tokens)


@pytest.mark.parametrize("family", VIDEO)
def test_every_tower_of_patches_gives_them_as_wide_as_its_head_expects(family):
    spec = spec_of(family, sees="patches")
    assert spec.sees_patches and not spec_of(family).sees_patches

    def run(model, video):
        inputs = {"video": video}
        made = model.encode_clips(inputs)[1]
        clips = model.clips(made.steps)._replace(patches=made.patches)
        return clips, model.heads["captioning"].context(clips)

    video = jax.ShapeDtypeStruct((2, 4, 16, 16, 3), jnp.uint8)
    clips, context = nnx.eval_shape(run, abstract(spec), video)
    steps = clips.tokens.shape[1]
    assert clips.patches.shape[:3] == (2, steps, 4) and context.tokens.shape == (2, 4 * steps, clips.patches.shape[3])


def test_what_cannot_be_seen_is_named():
    with pytest.raises(UserError, match=r"config\.model\.heads\.captioning\.sees.*did you mean 'patches'"):
        build(spec_of("vivit", sees="patch"), rngs=nnx.Rngs(0))
    features = {"family": "features", "features": "clip", "input_width": 7, "width": 8}
    spec = spec_of("vivit", sees="patches")
    spec = spec.replace(towers={**spec.towers, "video": features})
    with pytest.raises(UserError, match="the video tower has none; set it to 'times'"):
        build(spec, rngs=nnx.Rngs(0))
    before = {**spec_of("frames").towers, "video": {"family": "frames", "features": "x", **VIDEO["frames"]}}
    with pytest.raises(UserError, match="the video tower has none; set it to 'times'"):
        build(spec.replace(towers=before), rngs=nnx.Rngs(0))
