"""Histograms of oriented gradients against a loop over pixels in float64, and in place of a learned stem."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.layers.oriented_gradients import frames_last, oriented_gradients
from twinreel.models.layers.patches import PatchEmbedding


def found_in(video, **options):
    """[B,T,h,w,F] of clips uint8 [B,T,H,W,3]."""
    found = jax.jit(lambda x: oriented_gradients(frames_last(x), **options))(jnp.asarray(video))
    return jnp.moveaxis(found, -1, 0).reshape(*video.shape[:2], *found.shape[:3])


def looped(frame, *, cell, orientations):
    """[h,w,F] of one frame uint8 [H,W,3], pixel by pixel."""
    pixels = frame.astype(np.float64) / 255
    height, width = frame.shape[:2]
    sums = np.zeros((height // cell, width // cell, orientations))
    for r in range(height):
        for c in range(width):
            right, left = pixels[r, min(c + 1, width - 1)], pixels[r, max(c - 1, 0)]
            below, above = pixels[min(r + 1, height - 1), c], pixels[max(r - 1, 0), c]
            x, y = (right - left) / 2, (below - above) / 2
            channel = int(np.argmax(np.round(4 * 255**2 * (x**2 + y**2))))  # the first of equal ones
            size = math.sqrt(x[channel] ** 2 + y[channel] ** 2 + 1e-6)
            for k in range(orientations):
                angle = math.pi * k / orientations
                cosine = (x[channel] * math.cos(angle) + y[channel] * math.sin(angle)) / size
                sums[r // cell, c // cell, k] += size * cosine**8
    return 16 * np.sqrt(sums / cell**2) - 1


@pytest.mark.parametrize(("cell", "orientations"), [(4, 8), (2, 5), (6, 1)])
def test_histograms_are_those_of_a_loop(cell, orientations):
    video = np.random.default_rng(0).integers(0, 256, size=(2, 2, 12, 24, 3), dtype=np.uint8)
    video[0, 0] //= 16  # faint
    got = found_in(video, cell=cell, orientations=orientations)
    wanted = [[looped(frame, cell=cell, orientations=orientations) for frame in clip] for clip in video]
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, wanted, atol=2e-4)


@pytest.mark.parametrize("turns", range(4))
def test_an_edge_stands_in_the_bin_of_its_direction(turns):
    """A line through the middle, turned by 45 degrees at a time; the gradient is at a right angle to it."""
    y, x = np.mgrid[:16, :16] - 7.5
    angle = math.pi * turns / 4
    bright = x * math.cos(angle) + y * math.sin(angle) > 0
    video = np.repeat(np.uint8(200) * bright[..., None], 3, axis=-1)[None, None]
    found = found_in(video, cell=8, orientations=4)[0, 0].mean(axis=(0, 1))
    assert int(jnp.argmax(found)) == turns


def test_a_uniform_cell_has_no_contour():
    video = jnp.full((1, 1, 8, 8, 3), 90, jnp.uint8)
    np.testing.assert_array_equal(found_in(video, cell=4, orientations=3), np.full((1, 1, 2, 2, 3), -1))


def test_a_patch_is_a_linear_map_of_the_colours_and_contours_of_its_cells():
    mean, std = (0.3, 0.4, 0.5), (0.2, 0.25, 0.5)
    options = {"patch": 4, "stem": 2, "tubelet": 2, "width": 6, "activation": "gelu", "gradients": 3}
    options |= {"pixel_mean": mean, "pixel_std": std, "dtype": jnp.float32}
    layer = PatchEmbedding(**options, rngs=nnx.Rngs(0))
    video = np.random.default_rng(1).integers(0, 256, size=(1, 4, 8, 12, 3), dtype=np.uint8)
    weight = np.asarray(layer.out.kernel[...], np.float64)
    contours = np.array([looped(frame, cell=2, orientations=3) for frame in video[0]])  # [T,4,6,3]
    wanted = []
    for time in range(0, 4, 2):
        for top in range(0, 8, 4):
            for left in range(0, 12, 4):
                seen = []
                for r in (top, top + 2):
                    for c in (left, left + 2):
                        for frame in (time, time + 1):
                            colour = video[0, frame, r : r + 2, c : c + 2].mean(axis=(0, 1)) / 255
                            seen += [*(colour - mean) / std, *contours[frame, r // 2, c // 2]]
                wanted.append(np.array(seen) @ weight)
    got = np.asarray(layer(jnp.asarray(video))).reshape(-1, 6) - np.asarray(layer.out.bias[...])
    np.testing.assert_allclose(got, wanted, atol=1e-3)


@pytest.mark.parametrize("changes", [{"gradients": 8, "stem": 0}, {"gradients": -1, "stem": 2}])
def test_cells_without_a_side_and_negative_numbers_are_refused(changes):
    options = {"patch": 4, "tubelet": 1, "width": 6, "activation": "gelu", "dtype": jnp.float32} | changes
    with pytest.raises(UserError, match=r"gradients=-?\d+ .* set it to 0 or more, and stem to the side of a cell"):
        PatchEmbedding(**options, rngs=nnx.Rngs(0))


def test_arrays_of_numpy_are_described_outside_of_a_compiled_function():
    video = np.random.default_rng(0).integers(0, 256, (1, 2, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(frames_last(video), video.transpose(2, 3, 4, 0, 1).reshape(16, 16, 3, 2))
