"""Masks of frames: each video tower makes of a masked clip what it makes of the real frames alone, or does not see."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import randomised

from twinreel.base.errors import UserError
from twinreel.data.options import InputSpec
from twinreel.zoo.build import abstract, build
from twinreel.zoo.spec import ModelSpec

IMAGE = {"image_size": 8, "patch": 4, "width": 12, "depth": 1, "heads": 2}
TOWERS = {
    "mean": {"family": "frames", "image": IMAGE},
    "gru": {"family": "frames", "image": IMAGE, "over_time": "gru", "depth": 1},
    "timesformer": {"family": "divided", **IMAGE, "pool": "mean"},
    "frozen": {"family": "divided", **IMAGE, "form": "frozen"},
    "joint": {"family": "joint", **IMAGE, "class_token": True},
    "joint_tubelets": {"family": "joint", **IMAGE, "pool": "mean", "tubelet": 2, "position": "joint"},
    "internvideo2": {"family": "joint", **IMAGE, "class_token": True, "pool": "attention", "pool_norm": 1e-5},
    "vivit": {"family": "vivit", **IMAGE, "temporal_depth": 1},
    "vivit_tubelets": {"family": "vivit", **IMAGE, "temporal_depth": 1, "tubelet": 2, "time_pool": "linear"},
    "videoprism": {"family": "videoprism", **IMAGE, "temporal_depth": 1, "auxiliary_depth": 1, "pool": "attention"},
}
TEXT = {"family": "transformer", "vocab_size": 8, "width": 8, "depth": 1, "heads": 2}


def spec_of(tower, **given):
    towers = {"video": tower, "text": TEXT}
    return ModelSpec(towers=towers, embed_dim=6, input=InputSpec(num_frames=4, context_length=4, **given))


@nnx.jit
def encoded(model, video, mask):
    return model.encode_video(video, mask=mask)


@pytest.mark.parametrize("name", TOWERS)
def test_frames_that_only_fill_up_have_no_part(name):
    model = randomised(build(spec_of(TOWERS[name], mask_frames=True), rngs=nnx.Rngs(0)))
    video = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)
    mask = np.array([[True, True, False, False], [True, True, True, True]])
    other = np.where(mask[..., None, None, None], video, 255 - video)
    found, whole = encoded(model, video, mask), encoded(model, video, np.ones_like(mask))
    assert not np.allclose(whole[0], found[0], atol=1e-4)  # it matters
    np.testing.assert_allclose(found, encoded(model, other, mask), atol=1e-6)
    np.testing.assert_allclose(found[1], whole[1], atol=1e-6)
    assert np.isfinite(np.asarray(encoded(model, video, np.zeros_like(mask)))).all()


@pytest.mark.parametrize("name", ["mean", "gru"])
def test_a_picture_that_fills_a_clip_is_itself(name):
    """Where positions in time do not depend on the number of frames, T = 1 gives the same."""
    model = randomised(build(spec_of(TOWERS[name], mask_frames=True), rngs=nnx.Rngs(0)))
    video = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 8, 3), dtype=np.uint8)
    mask = np.tile([True, False, False, False], (2, 1))
    alone = model.encode_video(jnp.asarray(video[:, :1]))
    np.testing.assert_allclose(encoded(model, video, mask), alone, atol=1e-5)


def test_towers_without_masks_and_heads_are_refused():
    spec = spec_of({"family": "s3d"}, mask_frames=True)
    with pytest.raises(UserError, match=r"mask_frames=True, but video towers of the family 's3d' know no masks"):
        abstract(spec)
    headed = spec_of(TOWERS["mean"], mask_frames=True)
    headed = dataclasses.replace(headed, towers={"video": TOWERS["mean"]}, heads={"classify": {"kind": "linear"}})
    with pytest.raises(UserError, match=r"mask_frames=True, but a head knows no masks"):
        abstract(headed)
