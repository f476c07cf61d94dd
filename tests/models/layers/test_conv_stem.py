"""Early convolutions against JAX's own, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.layers.conv_stem import ConvStem, stride_of, taps

LAYERS = ((8, 4, 6), (3, 2, 10), (3, 1, 8))


@pytest.mark.parametrize(("kernel", "stride"), [(8, 4), (3, 2), (3, 1), (4, 4), (5, 2)])
def test_product_of_taps_is_a_convolution(kernel, stride):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, 16, 24, 3)), rng.normal(size=(kernel, kernel, 3, 5))
    before = (kernel - stride) // 2
    edges = [(before, kernel - stride - before)] * 2
    wanted = jax.lax.conv_general_dilated(
        x.astype(np.float32),
        weight.astype(np.float32),
        (stride, stride),
        edges,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )
    seen = taps(jnp.asarray(x, jnp.float32), kernel=kernel, stride=stride)
    got = jnp.matmul(seen, weight.reshape(-1, 5).astype(np.float32), precision="highest")
    np.testing.assert_allclose(got, wanted, atol=1e-4)


def stem(**changes):
    options = {"tubelet": 2, "width": 8, "activation": "gelu_exact", "dtype": jnp.dtype("float32"), "rngs": nnx.Rngs(0)}
    options |= changes
    return ConvStem(options.pop("layers", LAYERS), **options)


def test_tokens_are_those_of_convolutions_with_norms_and_activations_between():
    video = np.random.default_rng(1).integers(0, 256, size=(2, 4, 16, 16, 3), dtype=np.uint8)
    made = stem(pixel_mean=(0.2, 0.3, 0.4), pixel_std=(0.5, 0.25, 0.2))
    x = (video / 255 - np.array([0.2, 0.3, 0.4])) / np.array([0.5, 0.25, 0.2])
    grey = (128 / 255 - np.array([0.2, 0.3, 0.4])) / np.array([0.5, 0.25, 0.2])
    x = x.reshape(2, 2, 2, 16, 16, 3).transpose(0, 1, 3, 4, 2, 5).reshape(4, 16, 16, 6)
    for number, (kernel, stride, out) in enumerate(LAYERS):
        before = (kernel - stride) // 2
        edge = (before, kernel - stride - before)
        fill = np.tile(grey, 2) if number == 0 else 0.0
        padded = np.broadcast_to(fill, (4, x.shape[1] + sum(edge), x.shape[2] + sum(edge), x.shape[3])).copy()
        padded[:, edge[0] : edge[0] + x.shape[1], edge[0] : edge[0] + x.shape[2]] = x
        weight = np.asarray(made.layers[number].kernel[...], np.float64).reshape(kernel, kernel, -1, out)
        places = [range(0, side - kernel + 1, stride) for side in padded.shape[1:3]]
        x = np.array(
            [
                [
                    [np.einsum("ijc,ijco->o", picture[r : r + kernel, c : c + kernel], weight) for c in places[1]]
                    for r in places[0]
                ]
                for picture in padded
            ]
        )
        if number < 2:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + made.norms[number].epsilon)
            x = np.asarray(jax.nn.gelu(jnp.asarray(x, jnp.float32), approximate=False))
    got = made(jnp.asarray(video))
    assert got.shape == (2, 2, 4, 8)
    np.testing.assert_allclose(got, x.reshape(2, 2, 4, 8), atol=1e-4)


def test_a_picture_that_moves_by_a_cell_moves_its_tokens():
    video = np.full((1, 2, 48, 48, 3), 128, np.uint8)
    video[:, :, 16:24, 16:24] = np.random.default_rng(2).integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
    made = stem()
    side = stride_of(LAYERS)
    here, there = (made(jnp.asarray(v)).reshape(6, 6, 8) for v in (video, np.roll(video, side, axis=3)))
    np.testing.assert_allclose(here[1:4, 1:3], there[1:4, 2:4], atol=1e-5)  # out of reach of the edges


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (((8, 4, 6), (3, 2, 10)), "width=8"),
        ((), "width=8"),
        (((8, 4),), "triples"),
        (((8, 4, 6), (3.0, 2, 8)), "triples"),
        (((2, 4, 8),), "leaves out"),
    ],
)
def test_faulty_layers_are_refused(layers, message):
    with pytest.raises(UserError, match=message):
        stem(layers=layers)
