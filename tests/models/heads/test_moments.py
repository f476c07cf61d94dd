"""Heads along time: their steps, and what a query, other rows and frozen towers change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import dense, f64, norm, randomised

from twinreel.base.errors import UserError
from twinreel.models.heads.moments import LabellingHead, MomentHead, SaliencyHead, steps_of
from twinreel.models.heads.timeline import Timeline
from twinreel.models.layers.positions import sinusoids

SIZES = {"video_width": 6, "text_width": 5, "width": 8, "heads": 2, "depth": 1}
RNG = np.random.default_rng(0)
TOKENS = jnp.asarray(RNG.normal(size=(3, 5, 6)), jnp.float32)
WORDS = jnp.asarray(RNG.normal(size=(3, 4, 5)), jnp.float32)
MASK = jnp.asarray([[True] * 4, [True, True, False, False], [True, False, False, False]])


@pytest.mark.parametrize("times", [8, 5, 1])
def test_steps_cover_the_clip_and_their_ranges_all_lengths(times):
    levels = 1 if times == 1 else 3
    steps = steps_of(times, levels=levels)
    for level in range(levels):
        own = np.isclose(steps.stride, 2**level / times)
        count = -(-times // 2**level)
        np.testing.assert_allclose(steps.centre[own], (np.arange(count) + 0.5) * 2**level / times, rtol=1e-6)
    assert steps.low.min() == 0 and steps.high.max() == np.inf
    for level in range(levels - 1):  # where one scale ends the next begins
        ends, begins = (set(column.tolist()) for column in (steps.high, steps.low))
        assert np.float32(4 * 2**level / times) in ends & begins


def test_a_gru_timeline_adds_the_product_with_the_query():
    """Without layers that mix steps the encoder is a few dense layers; the recurrent ones are tested by themselves."""
    head = randomised(Timeline(**{**SIZES, "encoder": "gru"}, rngs=nnx.Rngs(0)))
    got = nnx.jit(lambda h: h(TOKENS, query=WORDS, query_mask=MASK))(head)
    rows = []
    for row in range(3):
        x = dense(norm(f64(TOKENS[row]), head.norm_video), head.project) + sinusoids(5, width=8)
        words = dense(norm(f64(WORDS[row])[np.asarray(MASK[row])], head.norm_text), head.project_text)
        rows.append(x + dense(x * words.mean(axis=0), head.fuse))
    x = jnp.asarray(np.stack(rows), jnp.float32)
    turned = nnx.jit(lambda h, x: h.recurrent(x, mask=jnp.ones((3, 5), bool)))(head, x)
    np.testing.assert_allclose(got, norm(f64(x) + f64(turned), head.norm), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", [MomentHead, LabellingHead, SaliencyHead])
def test_the_query_matters_and_its_padding_does_not(kind):
    options = {"labels": 2, "times": 5, **SIZES} | ({"levels": 2} if kind is MomentHead else {})
    head = randomised(kind(**options, rngs=nnx.Rngs(0)))
    run = nnx.jit(lambda h, words: jax.tree.leaves(h(TOKENS, query=words, query_mask=MASK))[0])
    first = np.asarray(run(head, WORDS))
    padded = np.asarray(run(head, WORDS.at[1:, 2:].set(7.0)))
    np.testing.assert_allclose(padded, first, rtol=1e-5, atol=1e-5)
    other = np.asarray(run(head, WORDS.at[0, 1].set(7.0)))
    assert np.abs(other[0] - first[0]).max() > 1e-3
    np.testing.assert_allclose(other[1:], first[1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"levels": 4}, "at most the 5 time tokens"),
        ({"encoder": "lsmt"}, "did you mean 'lstm'"),
        ({"heads": 3}, "a multiple of config.task.heads=3"),
    ],
)
def test_bad_heads_are_named(changes, wanted):
    with pytest.raises(UserError, match=wanted):
        nnx.eval_shape(lambda: MomentHead(**{"labels": 1, "times": 5, **SIZES} | changes, rngs=nnx.Rngs(0)))
