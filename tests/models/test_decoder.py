"""The text decoder against float64 loops, step by step against all at once, and its bad options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import blocks_by_loops, drawn

from twinreel.base.errors import UserError
from twinreel.losses.captioning import next_token_loss
from twinreel.models.decoder import TextDecoder
from twinreel.models.layers.blocks import Context

V, B, L = 11, 3, 5
DRAW = np.random.default_rng(0)
TEXT = DRAW.integers(0, V, size=(B, L)).astype(np.int32)
CLIP = Context(jnp.asarray(DRAW.normal(size=(B, 4, 6)), jnp.float32), jnp.asarray([[1, 1, 1, 0]] * B, bool))
SMALL = {"vocab_size": V, "context_length": 12, "width": 8, "depth": 2, "heads": 2}
LOGITS = jax.jit(lambda decoder, text, **more: decoder(text, **more))
START = jax.jit(lambda decoder, padding, context: decoder.start(rows=B, places=L + 2, context=context, padding=padding))
DECODE = jax.jit(lambda decoder, text, state: decoder.decode(text, state=state))
ROTARY = {"position": "none", "tied": False, "block": {"rotary": "halves", "kv_heads": 1, "norm": "rmsnorm"}}


def built(**changes):
    return drawn(lambda: TextDecoder(**SMALL | changes, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("changes", [{"scale_embedding": True}, {"cross_width": 6, "tied": False}], ids=str)
def test_logits_equal_a_float64_loop(changes):
    decoder = built(**changes)
    context = CLIP if "cross_width" in changes else None
    got = np.asarray(LOGITS(decoder, TEXT, context=context))
    table, position = (np.asarray(x[...], np.float64) for x in (decoder.embedding, decoder.position))
    head = table.T if decoder.head is None else np.asarray(decoder.head.kernel[...], np.float64)
    for row in range(B):
        x = table[TEXT[row]] * (8**0.5 if "scale_embedding" in changes else 1) + position[:L]
        given = {}
        if context is not None:
            given = {
                "context": np.asarray(CLIP.tokens[row], np.float64),
                "context_seen": np.tile(CLIP.mask[row], (L, 1)),
            }
        wanted = blocks_by_loops(x, decoder.blocks, **given) @ head
        np.testing.assert_allclose(got[row], wanted, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("changes", [{"cross_width": 6}, ROTARY], ids=str)
def test_decoding_equals_all_at_once_also_behind_padding(changes):
    decoder = built(**changes)
    context = CLIP if "cross_width" in changes else None
    wanted = np.asarray(LOGITS(decoder, TEXT, context=context))
    padding = np.array([0, 2, 1], np.int32)
    shifted = _left_padded(TEXT, padding=padding)
    state = START(decoder, padding, context)
    first, state = DECODE(decoder, shifted[:, :4], state)
    parts = [first]
    for at in range(4, L + 2):
        y, state = DECODE(decoder, shifted[:, at : at + 1], state)
        parts.append(y)
    found = np.concatenate(parts, axis=1)
    for row, pad in enumerate(padding):
        np.testing.assert_allclose(found[row, pad : pad + L], wanted[row], atol=2e-5)


def _left_padded(text, *, padding):
    rows = np.zeros((len(text), text.shape[1] + 2), np.int32)
    for row, pad in enumerate(padding):
        rows[row, pad : pad + text.shape[1]] = text[row]
    return rows


def test_padding_on_the_right_is_not_seen_and_the_loss_counts_real_tokens():
    decoder = built()
    mask = np.arange(L)[None] < np.array([5, 3, 1])[:, None]
    logits = LOGITS(decoder, TEXT, mask=mask)
    other = LOGITS(decoder, np.where(mask, TEXT, 0), mask=mask)
    np.testing.assert_allclose(np.where(mask[..., None], logits, 0), np.where(mask[..., None], other, 0), atol=1e-6)
    for smoothing in (0.0, 0.1):
        given = {"logits": lambda x: x, "smoothing": smoothing, "most": B * V * 2}  # two places at a time
        loss, count = jax.jit(functools.partial(next_token_loss, **given))(logits, text=TEXT, mask=mask)
        assert count.tolist() == [4, 2, 0]
        for row in range(B):
            wanted = 0.0
            for at in range(1, count[row] + 1):
                x = np.asarray(logits[row, at - 1], np.float64)
                logp = x - np.log(np.exp(x).sum())
                target = (1 - smoothing) * np.eye(V)[TEXT[row, at]] + smoothing / V
                wanted -= (target * logp).sum()
            assert float(loss[row]) == pytest.approx(wanted, rel=1e-5)


def test_a_decoder_without_a_head_shares_its_table_with_the_logits():
    tied, free = (set(dict(nnx.to_flat_state(nnx.state(built(tied=t))))) for t in (True, False))
    assert {path[0] for path in free - tied} == {"head"}
    graph, params = nnx.split(built())

    @jax.jit
    @jax.grad
    def gradient(params):
        decoder = nnx.merge(graph, params)
        given = {"logits": decoder.logits, "text": jnp.asarray(TEXT), "mask": jnp.ones((B, L), bool)}
        return next_token_loss(decoder.states(TEXT), **given)[0].sum()

    found = gradient(params)["embedding"].get_value()
    assert np.abs(found).min() > 0  # of tokens that do not occur, too: they are scored


def test_what_does_not_fit_is_told():
    with pytest.raises(UserError, match="13 tokens, prompt included, do not fit into the decoder's context of 12"):
        built()(np.zeros((1, 13), np.int32))
    with pytest.raises(UserError, match="do not fit"):
        built().start(rows=1, places=13)
    with pytest.raises(UserError, match="position of a text decoder"):
        built(position="sinusoid")
    with pytest.raises(UserError, match="vocab_size of a text decoder must be at least 2, got 1"):
        built(vocab_size=1)
    with pytest.raises(UserError, match=r"config\.model\.decoder\.block"):
        built(block={"rotray": "halves"})
