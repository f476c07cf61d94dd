"""A file of word vectors as a text tower: the mean or maximum of the vectors of the known words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.data.text.tokenizer import tokenizer_from_meta
from twinreel.engine.keeping.transfer import fill
from twinreel.models.towers.words import WordsTower
from twinreel.zoo.build import build
from twinreel.zoo.convert.convert import convert

VECTORS = {"dog": [1.0, 2.0, -3.0], "runs": [0.5, -4.0, 1.0], "fast": [-2.0, 0.0, 6.0]}


def test_texts_are_means_of_their_words(tmp_path):
    lines = [f"{word} {' '.join(map(str, vector))}\n" for word, vector in VECTORS.items()]
    (tmp_path / "glove.tiny.txt").write_text("".join(lines))
    made = convert(tmp_path)
    model = build(made.spec, rngs=nnx.Rngs(0))
    fill(model, values=made.params)
    ids, mask, _ = tokenizer_from_meta(dict(made.spec.tokenizer)).encode(["A dog runs", "fast", "?"], context_length=4)
    rows = [[VECTORS["dog"], VECTORS["runs"]], [VECTORS["fast"]], [[0.0] * 3]]
    found = model.text(jnp.asarray(ids), mask=mask)
    np.testing.assert_allclose(found, [np.mean(row, axis=0) for row in rows], atol=1e-6)
    model.text.pool = "max"
    found = model.text(jnp.asarray(ids), mask=mask)
    np.testing.assert_allclose(found, [np.max(row, axis=0) for row in rows], atol=1e-6)
    gradient = nnx.grad(lambda tower: jnp.sum(jnp.square(tower(jnp.asarray(ids), mask=mask))))(model.text)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert made.family == "word_vectors" and made.spec.towers["text"]["vocab_size"] == 4


def test_an_unknown_pool():
    with pytest.raises(UserError, match=r"config\.model\.text\.pool.*'last'"):
        WordsTower(vocab_size=3, context_length=4, pool="last", rngs=nnx.Rngs(0))
