"""Trained weights from the package index give the numbers of transformers 5.24.0; `make test-real` runs it."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.data.text.tokenizer import tokenizer_from_meta
from twinreel.engine.keeping.transfer import fill
from twinreel.zoo.build import build
from twinreel.zoo.convert.convert import convert

FOLDER = Path(__file__).parents[2] / "build" / "real"
TEXTS = [
    "A man is riding a horse.",
    "Someone rides on horseback.",
    "A cat sleeps on the sofa.",
    "The stock market fell sharply today.",
    "Shares dropped a lot today.",
]
COSINES = [
    [1.000, 0.721, 0.059, 0.035, -0.002],
    [0.721, 1.000, 0.019, 0.013, -0.026],
    [0.059, 0.019, 1.000, 0.017, -0.041],
    [0.035, 0.013, 0.017, 1.000, 0.583],
    [-0.002, -0.026, -0.041, 0.583, 1.000],
]
SQUARE = [
    [-0.6102716, 0.7583872, 2.7929833, -3.8567326, -0.05349579, -1.7928263],
    [-1.5386645, 0.6655995, 1.7641199, -3.174091, 0.4781186, -1.878222],
]
NARROW = [
    [-0.3861505, 0.89941615, 3.071804, -3.5467026, 0.17669526, -1.6422683],
    [-1.2511511, 0.38317537, 2.2477353, -3.1462762, 0.30296057, -2.089731],
]


def filled(folder):
    made = convert(folder)
    model = build(made.spec, rngs=nnx.Rngs(0))
    fill(model, values=made.params)
    return made, model


def test_minilm_knows_what_means_the_same():
    made, model = filled(FOLDER / "minilm")
    assert made.spec.input.context_length == 256 and model.text.pool == "mean"
    ids, mask, cut = tokenizer_from_meta(dict(made.spec.tokenizer)).encode(TEXTS, context_length=32)
    x = np.asarray(model.text(jnp.asarray(ids), mask=mask))
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(x @ x.T, COSINES, atol=6e-4)  # rounded to three places
    assert cut == 0


@pytest.mark.parametrize(("rows", "wanted"), [(224, SQUARE), (112, NARROW)])
def test_dinov2_small_of_two_pictures(rows, wanted):
    _, model = filled(FOLDER / "dinov2")
    row, column, channel = np.indices((224, 224, 3))
    blocks = 17 * ((row // 28 + column // 28) % 2)
    picture = ((row * (channel + 1) + column * (3 - channel) + blocks) % 256).astype(np.uint8)
    pictures = np.stack([picture, 255 - picture[::-1]])[:, :rows]
    np.testing.assert_allclose(model.video(pictures[:, None])[:, :6], wanted, atol=1e-4)
