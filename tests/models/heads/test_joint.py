"""Heads that score a text with a clip against loops in NumPy float64: pairs, all pairs, masks, devices."""

import jax
import jax.numpy as jnp
import joint_loops
import numpy as np
import pytest
from contrast import mesh
from flax import nnx
from tower_loops import randomised

from twinreel.base.errors import UserError
from twinreel.models.heads.matching import CrossEncoder
from twinreel.models.heads.sides import Clips, Texts
from twinreel.models.heads.text_pooling import XPool
from twinreel.models.layers.draws import row_keys

N, M, T, L, E, WORDS, SEEN = 8, 5, 4, 3, 6, 4, 8


def sides(*, rows=(N, M), masked=True):
    """Texts and clips of which some frames and words are padding, with NaN in their place."""
    rng = np.random.default_rng(2)
    n, m = rows
    text, words = rng.normal(size=(n, E)), rng.normal(size=(n, L, WORDS))
    frames, tokens = rng.normal(size=(m, T, E)), rng.normal(size=(m, T, SEEN))
    word, frame = (np.arange(size) < rng.integers(1, size + 1, (count, 1)) for size, count in ((L, n), (T, m)))
    one, other = (jnp.asarray(x, jnp.float32) for x in (text / np.linalg.norm(text, axis=1)[:, None], words))
    frames, tokens = (jnp.asarray(x, jnp.float32) for x in (frames, tokens))
    return Texts(one, other, jnp.asarray(word)), Clips(tokens, frames, jnp.asarray(frame) if masked else None)


@pytest.mark.parametrize("heads", [1, 2])
def test_x_pool_scores_all_pairs_as_loops_do_whatever_its_blocks(heads):
    head = randomised(XPool(embed_dim=E, heads=heads, block=2, rngs=nnx.Rngs(0)))
    texts, clips = sides()
    got = nnx.jit(lambda h: h.scores(texts, clips=clips))(head)
    wanted = [
        [joint_loops.x_pool(head, t, c[real]) for c, real in zip(clips.frames, clips.mask, strict=True)]
        for t in texts[0]
    ]
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    assert np.ptp(wanted) > 0.5
    program = str(jax.make_jaxpr(lambda text: head.scores(Texts(text), clips=clips))(texts.embedding))
    assert program.count("Precision.HIGHEST") >= 2  # TPUs would round both sides of the cosines to bfloat16
    pairs = jax.tree.map(lambda x: x[:M], texts)
    np.testing.assert_allclose(head(pairs, clips=clips), np.diagonal(np.asarray(wanted)), atol=2e-5)


def test_x_pool_on_devices_that_share_texts_and_clips():
    head, (texts, clips) = randomised(XPool(embed_dim=E, block=3, rngs=nnx.Rngs(0))), sides(rows=(8, 8), masked=False)
    graph, state = nnx.split(head)

    @jax.jit
    def run(state, text, frames):
        def loss(state, text, frames):
            made = nnx.merge(graph, state).scores(Texts(text), clips=Clips(frames, frames))
            return jnp.sum(jnp.square(made))

        return jax.value_and_grad(loss, argnums=(0, 1, 2))(state, text, frames)

    arrays, eight = (texts.embedding, clips.frames), mesh((2, 4, 1))
    wanted = run(state, *arrays)
    with jax.set_mesh(eight):
        got = run(state, *jax.device_put(arrays, jax.NamedSharding(eight, jax.P(("replica", "fsdp")))))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_x_pool_starts_as_attention_by_cosines():
    """All maps are the identity: the paper's code begins there."""
    head = XPool(embed_dim=E, rngs=nnx.Rngs(0))
    frames = jnp.eye(E, dtype=jnp.float32)[None, :4] * 3
    text = jnp.eye(E, dtype=jnp.float32)[:4]
    own = head.scores(Texts(text), clips=Clips(frames, frames))[:, 0]
    assert np.all(np.asarray(own) > 0.5)  # the frame that a text means stands out of the mean of four


def test_the_cross_encoder_scores_pairs_as_loops_do():
    sizes = {"text_width": WORDS, "video_width": SEEN, "width": 6, "depth": 2, "heads": 2}
    head = randomised(CrossEncoder(**sizes, rngs=nnx.Rngs(0)))
    texts, clips = sides(rows=(M, M))
    got = nnx.jit(lambda h: h(texts, clips=clips))(head)
    for pair in range(M):
        words, tokens = texts.tokens[pair][texts.mask[pair]], clips.tokens[pair][clips.mask[pair]]
        np.testing.assert_allclose(got[pair], joint_loops.cross_encoder(head, words, tokens), rtol=1e-4, atol=1e-4)
    assert np.ptp(got) > 0.1


def test_dropout_needs_keys():
    texts, clips = sides(rows=(M, M))
    sizes = {"text_width": WORDS, "video_width": SEEN, "depth": 1, "heads": 2}
    for head in (
        XPool(embed_dim=E, dropout=0.5, rngs=nnx.Rngs(0)),
        CrossEncoder(**sizes, dropout=0.5, rngs=nnx.Rngs(0)),
    ):
        plain, one, other = (
            np.asarray(head(texts, clips=clips, keys=None if seed is None else row_keys(jax.random.key(seed), rows=M)))
            for seed in (None, 1, 2)
        )
        assert np.all(np.isfinite(plain)) and np.abs(one - plain).max() > 1e-3 and np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda r: XPool(embed_dim=6, heads=4, rngs=r), "text_pooling.heads=4"),
        (lambda r: XPool(embed_dim=6, dropout=1.0, rngs=r), "text_pooling: dropout=1.0"),
        (lambda r: CrossEncoder(text_width=6, video_width=4, depth=0, rngs=r), "heads.matching: depth=0"),
        (lambda r: CrossEncoder(text_width=6, video_width=4, rngs=r), "config.model.heads.matching.width"),
    ],
)
def test_sizes_that_do_not_fit_are_named(make, field):
    with pytest.raises(UserError, match=field.replace(".", r"\.")):
        make(nnx.Rngs(0))
