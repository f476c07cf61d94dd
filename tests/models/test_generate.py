"""Texts that a decoder writes, against plain Python searches that run the whole decoder for every token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tower_loops import drawn

from twinreel.base.errors import UserError
from twinreel.models.decoder import TextDecoder
from twinreel.models.generate import GenerateOptions, generate, keep_likely
from twinreel.models.layers.blocks import Context
from twinreel.models.layers.draws import row_keys
from twinreel.models.prefixes import Prefixes

V, B, LIMIT, EOS, PAD = 12, 3, 6, 1, 0
DRAW = np.random.default_rng(3)
PROMPT = np.array([[2, 3], [4, 5], [6, 7]], np.int32)
CLIP = DRAW.normal(size=(B, 4, 6)).astype(np.float32)
TEXTS = [[3], [3, 4], [3, 4, 5], [8, 2, 2], [9, 10]]
WRITE = nnx.jit(generate, static_argnames=("options", "eos_id", "pad_id"))


@pytest.fixture(scope="module")
def decoder():
    sizes = {"vocab_size": V, "context_length": 8, "width": 8, "depth": 1, "heads": 2, "cross_width": 6}
    made = drawn(lambda: TextDecoder(**sizes, tied=False, rngs=nnx.Rngs(0)))
    made.head.kernel[...] = 3 * made.head.kernel[...]
    return made


@pytest.fixture(scope="module")
def likelihood(decoder):
    """Return (row, tokens after the prompt) -> float64 log-probabilities of the next token, without any cache."""
    forward = nnx.jit(lambda decoder, text, clip: decoder(text, context=Context(clip)))

    @functools.cache
    def of(row, tokens):
        text = np.zeros((1, 8), np.int32)
        text[0, : 2 + len(tokens)] = [*PROMPT[row], *tokens]
        x = np.asarray(forward(decoder, text, CLIP[row : row + 1])[0, 1 + len(tokens)], np.float64)
        return x - np.log(np.exp(x).sum())

    return of


def write(decoder, *, rows=slice(None), prefixes=None, key=None, **options):
    given = {"prompt": PROMPT[rows], "context": Context(jnp.asarray(CLIP[rows])), "prefixes": prefixes}
    given["keys"] = None if key is None else row_keys(key, rows=len(given["prompt"]))
    return WRITE(decoder, eos_id=EOS, pad_id=PAD, options=GenerateOptions(max_tokens=LIMIT, **options), **given)


def text_of(generated, row, rank=0):
    length = int(generated.lengths[row, rank])
    tokens = generated.tokens[row, rank].tolist()
    assert tokens[length:] == ([EOS] + [PAD] * (LIMIT - length - 1) if length < LIMIT else [])
    return tuple(tokens[:length])


def follows(tokens, texts):
    """Tokens that continue `tokens` to one of the texts."""
    return {(*text, EOS)[len(tokens)] for text in texts if tuple(text[: len(tokens)]) == tokens}


def greedy_by_loop(of, row, *, texts=None):
    tokens, score = (), 0.0
    while len(tokens) < LIMIT:
        logp = of(row, tokens)
        best = max(range(V) if texts is None else follows(tokens, texts), key=lambda token: logp[token])
        score += logp[best]
        if best == EOS:
            break
        tokens += (best,)
    return tokens, score


def beams_by_loop(of, row, *, beams, penalty, texts=None):
    """Beam search over lists of hypotheses; returns (score, tokens), the best first."""
    running, finished = [(0.0, ())], []
    for length in range(1, LIMIT + 1):
        grown = []
        for score, tokens in running:
            logp = of(row, tokens)
            for token in range(V) if texts is None else follows(tokens, texts):
                grown.append((score + logp[token], (*tokens, token)))
        grown = sorted(grown, reverse=True)[: 2 * beams]
        last = length == LIMIT
        finished += [(s / length**penalty, t) for s, t in grown[:beams] if t[-1] == EOS or last]
        finished = sorted(finished, reverse=True)[:beams]
        running = [(s, t) for s, t in grown if t[-1] != EOS][:beams]
        if not running or (len(finished) == beams and running[0][0] / length**penalty <= finished[-1][0]):
            break
    return [(score, tokens[:-1] if tokens[-1] == EOS else tokens) for score, tokens in finished]


@pytest.mark.parametrize("texts", [None, TEXTS])
def test_greedy_takes_the_likeliest_token_each_time(decoder, likelihood, texts):
    prefixes = texts and Prefixes.of(texts, eos_id=EOS)
    found = write(decoder, prefixes=prefixes)
    for row in range(B):
        tokens, score = greedy_by_loop(likelihood, row, texts=texts)
        assert text_of(found, row) == tokens
        assert float(found.scores[row, 0]) == pytest.approx(score, abs=1e-4)
        assert texts is None or list(tokens) in texts


@pytest.mark.parametrize(
    ("beams", "penalty", "texts"), [(3, 1.0, None), (6, -1.0, None), (2, 0.0, TEXTS), (6, 1.0, TEXTS)]
)
def test_beam_search_equals_a_search_over_lists(decoder, likelihood, beams, penalty, texts):
    prefixes = texts and Prefixes.of(texts, eos_id=EOS)
    found = write(decoder, prefixes=prefixes, method="beam", beams=beams, length_penalty=penalty)
    for row in range(B):
        wanted = beams_by_loop(likelihood, row, beams=beams, penalty=penalty, texts=texts)
        assert [text_of(found, row, rank) for rank in range(len(wanted))] == [tokens for _, tokens in wanted]
        np.testing.assert_allclose(found.scores[row, : len(wanted)], [score for score, _ in wanted], atol=1e-4)
        assert (np.asarray(found.scores[row, len(wanted) :]) < -1e8).all()  # fewer texts than beams


def test_one_beam_is_greedy_and_a_row_does_not_depend_on_the_others(decoder):
    alone, together = write(decoder, method="beam", beams=1), write(decoder)
    np.testing.assert_array_equal(alone.tokens, together.tokens)
    whole = write(decoder, method="beam", beams=3)
    for rows in ([1, 1, 0], [2, 0, 0], [0, 2, 1]):
        part = write(decoder, rows=rows, method="beam", beams=3)
        np.testing.assert_array_equal(part.tokens, whole.tokens[np.array(rows)])


def test_samples_have_the_probabilities_of_the_decoder(decoder, likelihood):
    """First tokens of 3,000 draws of one prompt: a chi-squared statistic of its likely tokens."""
    count = 3000
    prompt, clip = np.repeat(PROMPT[:1], count, axis=0), jnp.asarray(np.repeat(CLIP[:1], count, axis=0))
    options = GenerateOptions(method="sample", max_tokens=1, temperature=2.0, top_k=5)
    given = {"prompt": prompt, "context": Context(clip), "keys": row_keys(jax.random.key(0), rows=count)}
    tokens = WRITE(decoder, eos_id=EOS, pad_id=PAD, options=options, **given).tokens[:, 0, 0]
    logp = likelihood(0, ()) / 2
    kept = np.argsort(-logp)[:5]
    expected = count * np.exp(logp[kept]) / np.exp(logp[kept]).sum()
    seen = np.array([(np.asarray(tokens) == token).sum() for token in kept])
    assert seen.sum() == count
    assert ((seen - expected) ** 2 / expected).sum() < 18.5  # 4 degrees of freedom, p = 0.001


def test_sampling_repeats_by_key_and_needs_one(decoder):
    one, same, other = (write(decoder, method="sample", key=jax.random.key(n)).tokens for n in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (np.asarray(one) != np.asarray(other)).any()
    with pytest.raises(ValueError, match="needs keys, one for each row"):
        write(decoder, method="sample")


def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p():
    probabilities = np.array([[0.05, 0.4, 0.3, 0.15, 0.1]])
    logits = jnp.asarray(np.log(probabilities), jnp.float32)
    for top_p, top_k, wanted in (
        (0.4, 0, {1}),
        (0.41, 0, {1, 2}),
        (0.84, 0, {1, 2, 3}),
        (1.0, 3, {1, 2, 3}),
        (0.5, 2, {1}),
    ):
        kept = set(np.flatnonzero(np.asarray(keep_likely(logits, top_k=top_k, top_p=top_p))[0] > -1e8).tolist())
        assert kept == wanted, (top_p, top_k)


def test_top_k_alone_keeps_k_tokens_of_a_large_vocabulary():
    logits = jax.random.normal(jax.random.key(0), (64, 1000))  # sums of so many probabilities round to less than 1
    wanted = np.argsort(-np.asarray(logits), axis=1)[:, :40]
    kept = np.asarray(keep_likely(logits, top_k=40, top_p=1.0)) > -1e8
    assert (kept.sum(axis=1) == 40).all()
    assert np.take_along_axis(kept, wanted, axis=1).all()
    assert (np.asarray(keep_likely(logits, top_k=0, top_p=1.0)) == np.asarray(logits)).all()


def test_bad_options_are_told(decoder):
    for options, match in (
        ({"method": "beams"}, "generate.method.*beam"),
        ({"beams": 0}, r"generate\.beams must be at least 1, got 0"),
        ({"temperature": 0.0}, "greedy"),
        ({"top_p": 0.0}, "above 0 and at most 1"),
        ({"top_k": -1}, "0 for all"),
    ):
        with pytest.raises(UserError, match=match):
            GenerateOptions(**options)
    with pytest.raises(UserError, match="at most half of the vocabulary of 12"):
        write(decoder, method="beam", beams=7)
    with pytest.raises(UserError, match="at least one token, got 2 texts"):
        Prefixes.of([[3], []], eos_id=EOS)
