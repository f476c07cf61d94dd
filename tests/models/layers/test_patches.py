"""Pixels: every grey level, normalised in float32 and rounded once; patches in any stem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.layers.patches import PatchEmbedding, normalise_pixels

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
GREYS = np.arange(256)
SIZES = {"patch": 4, "tubelet": 1, "width": 8, "activation": "gelu"}


def wanted(mean, std):
    """float64 [256,3]."""
    return (GREYS[:, None] / 255 - np.array(mean)) / np.array(std)


@pytest.mark.parametrize(
    ("mean", "std", "apart"),
    [
        (*HALF, 256),
        (*UNIT, 256),
        (*IMAGENET, 256),
        (*CLIP, 248),
    ],  # beyond 2, as CLIP's blue, bfloat16 is too coarse
    ids=["half", "unit", "imagenet", "clip"],
)
def test_grey_levels_stay_apart_and_are_rounded_once(mean, std, apart):
    pixels = jnp.asarray(np.repeat(GREYS[:, None], 3, axis=1), jnp.uint8)
    found = jax.jit(lambda x: normalise_pixels(x, mean=mean, std=std))(pixels)
    exact = wanted(mean, std)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, atol=3e-7)
    half = np.asarray(found.astype(jnp.bfloat16), np.float64)
    np.testing.assert_array_equal(half, np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float64))
    assert min(len(np.unique(half[:, channel])) for channel in range(3)) >= apart


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("stem", [0, 2])
def test_the_first_layer_gets_each_pixel_normalised_by_its_own_channel(stem, dtype, monkeypatch):
    """What reaches the first dense layer, told by the pixel it came from: position by position, channel by channel."""
    layer = PatchEmbedding(**SIZES, stem=stem, dtype=dtype, pixel_mean=CLIP[0], pixel_std=CLIP[1], rngs=nnx.Rngs(0))
    first, seen = layer.stem if stem else layer.out, []
    own = type(first).__call__
    monkeypatch.setattr(type(first), "__call__", lambda self, x: seen.append(x) or own(self, x))
    video = np.random.default_rng(0).integers(0, 256, (1, 2, 4, 8, 3), dtype=np.uint8)
    assert layer(jnp.asarray(video)).shape == (1, 2, 2, 8)
    side = stem or 4
    for time in range(2):
        patches = [video[0, time, :, x : x + 4] for x in (0, 4)]
        cells = [[p[y : y + side, x : x + side] for y in range(0, 4, side) for x in range(0, 4, side)] for p in patches]
        exact = (np.array(cells) / 255 - np.array(CLIP[0])) / np.array(CLIP[1])  # [patch,cell,y,x,channel]
        rounded = np.asarray(jnp.asarray(exact.reshape(*np.shape(cells)[:2], -1), dtype), np.float64)
        got = np.asarray(seen[0][0, time], np.float64).reshape(rounded.shape)
        np.testing.assert_allclose(got, rounded, atol=3e-7 if dtype == jnp.float32 else 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_std": (0.5, 0.0, 0.5)}, r"pixel_std must be above 0 in each channel, got \(0\.5, 0\.0, 0\.5\)"),
        ({"pixel_mean": (0.5, 0.5)}, r"pixel_mean must be three finite numbers.*got \[0\.5, 0\.5\]"),
        ({"pixel_std": (0.5, float("nan"), 0.5)}, r"pixel_std must be three finite numbers"),
        ({"stem": 3}, r"patch=4 must be a multiple of stem=3"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        PatchEmbedding(**(SIZES | {"stem": 0} | changes), dtype=jnp.float32, rngs=nnx.Rngs(0))
