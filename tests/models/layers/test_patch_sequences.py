"""Sequences of patches with their grid: equal to the whole picture, whatever else is in the batch."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.layers.patch_sequences import sequence_positions
from twinreel.models.layers.positions import resize_positions
from twinreel.models.towers.vit import ImageTower


def test_positions_are_those_of_each_grid():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(16, 3)), jnp.float32)
    grids = [(4, 4), (2, 7), (1, 12), (9, 1), (3, 3)]
    rows, columns = (jnp.asarray(axis) for axis in zip(*grids, strict=True))
    found = sequence_positions(table, side=4, rows=rows, columns=columns, count=16)
    for own, grid in zip(found, grids, strict=True):
        wanted = resize_positions(table, old=(4, 4), new=grid, method="bilinear", antialias=True)
        np.testing.assert_allclose(own[: grid[0] * grid[1]], wanted, atol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"position_antialias": False}, "naflex=True needs position='learned'"),
        ({"position_method": "bicubic"}, "naflex=True needs"),
        ({"block": {"rotary": "interleaved"}}, "nor rotary positions"),
        ({"patch_dropout": 0.5}, r"patch_dropout=0\.5 cannot drop patches of naflex=True"),
    ],
)
def test_what_sequences_of_patches_exclude(fields, message):
    own = {"image_size": 16, "patch": 8, "width": 16, "depth": 1, "heads": 2}
    own |= {"naflex": True, "position_method": "bilinear", "position_antialias": True}
    with pytest.raises(UserError, match=message):
        ImageTower(**(own | fields), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("pool", ["mean", "cls"])
def test_a_sequence_of_patches_is_the_picture(pool):
    """A picture of 24 x 16 pixels as a whole, and as six of ten patches beside a picture of 8 x 32."""
    own = {
        "image_size": 16,
        "patch": 8,
        "width": 16,
        "depth": 1,
        "heads": 2,
        "pool": pool,
        "class_token": pool == "cls",
    }
    own |= {"naflex": True, "position_method": "bilinear", "position_antialias": True}
    tower = ImageTower(**own, rngs=nnx.Rngs(0))
    rng, sequences, wanted = np.random.default_rng(0), [], []
    for rows, columns in ((3, 2), (1, 4)):
        picture = rng.integers(0, 256, (1, 8 * rows, 8 * columns, 3), np.uint8)
        wanted.append(np.asarray(tower(jnp.asarray(picture)))[0])
        out = rng.integers(0, 256, (11, 8, 8, 3), np.uint8)  # whatever stands in the missing patches
        cut = picture.reshape(rows, 8, columns, 8, 3).swapaxes(1, 2).reshape(-1, 8, 8, 3)
        out[1 : 1 + len(cut)] = cut
        out[0, 0, :2] = (rows, 0, 7), (columns, 0, 9)
        sequences.append(out.reshape(88, 8, 3))
    np.testing.assert_allclose(tower(jnp.asarray(np.stack(sequences))), wanted, atol=1e-5)
