"""Writing texts with a decoder: greedy, by beam search or by nucleus sampling, freely or among given texts only.

Everything has a static shape and runs in one `lax.while_loop` with cached keys and values: one compiled program serves
all prompts of a length. A row's text does not depend on the other rows of its batch.
"""

import dataclasses
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..base.errors import UserError, unknown
from .decoder import DecoderState
from .layers.blocks import Cache, Context
from .layers.draws import RowKeys, fold
from .prefixes import Prefixes
from .shapes import Text, TextMask

METHODS = ("greedy", "beam", "sample")
"""How the next token is chosen."""
_NEVER = -1e9  # a score that is never chosen: adding to it keeps it finite


class Decodes(Protocol):
    """What can be generated with, such as `decoder.TextDecoder`."""

    vocab_size: int

    def start(
        self, *, rows: int, places: int, context: Context | None = None, padding: Int[Array, "B"] | None = None
    ) -> DecoderState:
        """See `decoder.TextDecoder.start`."""
        ...

    def decode(self, text: Text, *, state: DecoderState) -> tuple[Float[Array, "B L V"], DecoderState]:
        """See `decoder.TextDecoder.decode`."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How texts are written.

    Attributes:
      method: one of `METHODS`.
      max_tokens: the most tokens after the prompt, the end token included.
      beams: hypotheses of the beam search.
      length_penalty: a finished hypothesis scores its log-probability / tokens ** length_penalty: above 0 favours long
        texts, below 0 short ones.
      temperature: of sampling; below 1 sharpens.
      top_p: sample from the fewest tokens whose probabilities sum to at least this (nucleus, Holtzman et al. 2020).
      top_k: sample from the k likeliest tokens; 0 = all.
    """

    method: str = "greedy"
    max_tokens: int = 32
    beams: int = 4
    length_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self):
        """Raise UserError for an unknown method or a value out of its range."""
        if self.method not in METHODS:
            raise unknown("generate.method", self.method, METHODS)
        for field in ("max_tokens", "beams"):
            if getattr(self, field) < 1:
                raise UserError(f"generate.{field} must be at least 1, got {getattr(self, field)}")
        if not self.temperature > 0:
            raise UserError(
                f"generate.temperature must be above 0, got {self.temperature}; method='greedy' is its limit"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"generate.top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise UserError(f"generate.top_k must be a number of tokens, or 0 for all, got {self.top_k}")


class Generated(NamedTuple):
    """Texts, R for each row, the best first (R = 1 unless by beam search).

    Attributes:
      tokens: int32 `[B,R,L]`, the end token included, then padding.
      lengths: int32 `[B,R]`, tokens before the end token or the limit.
      scores: float32 `[B,R]`, log-probabilities in nats; of a beam search divided by tokens ** length_penalty.
    """

    tokens: Int[Array, "B R L"]
    lengths: Int[Array, "B R"]
    scores: Float[Array, "B R"]


def generate(
    decoder: Decodes,
    *,
    prompt: Text,
    eos_id: int,
    pad_id: int,
    options: GenerateOptions,
    mask: TextMask | None = None,
    context: Context | None = None,
    prefixes: Prefixes | None = None,
    keys: RowKeys | None = None,
) -> Generated:
    """Continue prompts; to be called in `jax.jit`.

    Args:
      decoder: a causal decoder.
      prompt: token ids `[B,P]`, P >= 1, padded on the LEFT, so that all rows end together.
      eos_id: the token that ends a text.
      pad_id: what follows it.
      options: how.
      mask: True where a token of the prompt is real; None = all are.
      context: tokens of the clips, for a decoder with cross-attention.
      prefixes: the texts (after the prompt) that may be written; None = any.
      keys: one random key for each row, for sampling.

    Raises:
      UserError: prompt and new tokens do not fit into the decoder's context.
      ValueError: sampling without keys.
    """
    rows, length = prompt.shape
    padding = None if mask is None else length - mask.sum(axis=1, dtype=jnp.int32)
    state = decoder.start(rows=rows, places=length + options.max_tokens, context=context, padding=padding)
    logits, state = decoder.decode(prompt, state=state)
    run = _Run(decoder, eos_id=eos_id, pad_id=pad_id, options=options, prefixes=prefixes)
    if options.method == "beam":
        return _beam_search(run, logits[:, -1], state=state)
    if options.method == "sample" and keys is None:
        raise ValueError("sampling needs keys, one for each row")
    return _one_each(run, logits[:, -1], state=state, keys=keys)


@dataclasses.dataclass(frozen=True, kw_only=False)
class _Run:
    """What stays the same from token to token."""

    decoder: Decodes
    eos_id: int
    pad_id: int
    options: GenerateOptions
    prefixes: Prefixes | None

    def log_probabilities(self, logits: Float[Array, "B V"], *, node: Int[Array, "B"]) -> Float[Array, "B V"]:
        """Return those of the next tokens; a token that no allowed text has here is never chosen."""
        logp = jax.nn.log_softmax(logits, axis=-1)
        if self.prefixes is None:
            return logp
        return jnp.where(self.prefixes.allowed(node, vocab_size=logits.shape[-1]), logp, jnp.float32(_NEVER))

    def follow(self, node: Int[Array, "B"], *, token: Int[Array, "B"]) -> Int[Array, "B"]:
        """Return the nodes after these tokens."""
        return node if self.prefixes is None else self.prefixes.follow(node, token=token)

    def empty(self, *shape: int) -> Int[Array, "..."]:
        """Return texts without a token."""
        return jnp.full((*shape, self.options.max_tokens), self.pad_id, jnp.int32)


class _Single(NamedTuple):
    step: Int[Array, ""]
    tokens: Int[Array, "B L"]
    lengths: Int[Array, "B"]
    scores: Float[Array, "B"]
    done: Bool[Array, "B"]
    node: Int[Array, "B"]
    logits: Float[Array, "B V"]
    state: DecoderState


def _one_each(run: _Run, logits: Float[Array, "B V"], *, state: DecoderState, keys: RowKeys | None) -> Generated:
    rows, limit = logits.shape[0], run.options.max_tokens
    zeros = jnp.zeros(rows, jnp.int32)
    start = _Single(jnp.int32(0), run.empty(rows), zeros, zeros.astype(jnp.float32), zeros > 0, zeros, logits, state)

    def body(now: _Single) -> _Single:
        logp = run.log_probabilities(now.logits, node=now.node)
        token = jnp.argmax(logp, axis=-1).astype(jnp.int32)
        if run.options.method == "sample":
            assert keys is not None
            own = fold(keys, now.step)
            kept = keep_likely(
                logp / jnp.float32(run.options.temperature), top_k=run.options.top_k, top_p=run.options.top_p
            )
            token = jax.vmap(lambda key, row: jax.random.categorical(key, row))(own, kept).astype(jnp.int32)
        gain = jnp.take_along_axis(logp, token[:, None], axis=1)[:, 0]
        token = jnp.where(now.done, jnp.int32(run.pad_id), token)
        done = now.done | (token == run.eos_id)
        logits, state = run.decoder.decode(token[:, None], state=now.state)
        return _Single(
            step=now.step + jnp.int32(1),
            tokens=now.tokens.at[:, now.step].set(token),
            lengths=now.lengths + (~done).astype(jnp.int32),
            scores=now.scores + jnp.where(now.done, jnp.float32(0), gain),
            done=done,
            node=run.follow(now.node, token=token),
            logits=logits[:, 0],
            state=state,
        )

    last = jax.lax.while_loop(lambda now: (now.step < limit) & ~now.done.all(), body, start)
    return Generated(last.tokens[:, None], last.lengths[:, None], last.scores[:, None])


def keep_likely(logits: Float[Array, "B V"], *, top_k: int, top_p: float) -> Float[Array, "B V"]:
    """Set all logits to -1e9 but those of the `top_k` likeliest tokens, and of these all but the nucleus of `top_p`.

    The nucleus is the fewest tokens whose probabilities sum to at least `top_p` (Holtzman et al. 2020). Ties stay.
    """
    ordered = jnp.sort(logits, axis=-1, descending=True)
    kept = jnp.broadcast_to(jnp.arange(logits.shape[-1]) < (top_k or logits.shape[-1]), logits.shape)
    if top_p < 1:  # otherwise sums that are rounded would decide
        probability = jax.nn.softmax(jnp.where(kept, ordered, jnp.float32(_NEVER)), axis=-1)
        kept &= jnp.cumsum(probability, axis=-1) - probability < top_p
    last = jnp.where(kept, ordered, jnp.float32(jnp.inf)).min(axis=-1, keepdims=True)
    return jnp.where(logits >= last, logits, jnp.float32(_NEVER))


class _Beams(NamedTuple):
    step: Int[Array, ""]
    tokens: Int[Array, "B R L"]
    scores: Float[Array, "B R"]
    node: Int[Array, "B R"]
    logits: Float[Array, "B R V"]
    state: DecoderState
    done: Bool[Array, "B"]
    finished: Int[Array, "B R L"]
    finished_scores: Float[Array, "B R"]


def _beam_search(run: _Run, logits: Float[Array, "B V"], *, state: DecoderState) -> Generated:
    """Keep the R likeliest unfinished texts of each row, and the R best finished ones.

    Of the 2R likeliest continuations, those among the first R that end are finished. A row is done when it has R
    finished texts and no unfinished one scores better than the worst of them at its present length, as in transformers.
    """
    (rows, vocabulary), beams, limit = logits.shape, run.options.beams, run.options.max_tokens
    if 2 * beams > vocabulary:
        raise UserError(f"generate.beams={beams} must be at most half of the vocabulary of {vocabulary} tokens")
    first = jnp.where(jnp.arange(beams) == 0, jnp.float32(0), jnp.float32(_NEVER))
    spread = jnp.broadcast_to(logits[:, None], (rows, beams, vocabulary))
    none = jnp.full((rows, beams), _NEVER, jnp.float32)
    start = _Beams(
        step=jnp.int32(0),
        tokens=run.empty(rows, beams),
        scores=jnp.broadcast_to(first, (rows, beams)),
        node=jnp.zeros((rows, beams), jnp.int32),
        logits=spread,
        state=_repeated(state, beams),
        done=jnp.zeros(rows, bool),
        finished=run.empty(rows, beams),
        finished_scores=none,
    )
    last = jax.lax.while_loop(
        lambda now: (now.step < limit) & ~now.done.all(), lambda now: _next_beams(run, now), start
    )
    ends = last.finished == run.eos_id
    place = jnp.argmax(ends, axis=-1).astype(jnp.int32)
    return Generated(last.finished, jnp.where(ends.any(axis=-1), place, jnp.int32(limit)), last.finished_scores)


def _next_beams(run: _Run, now: _Beams) -> _Beams:
    rows, beams, vocabulary = now.logits.shape
    logp = run.log_probabilities(now.logits.reshape(rows * beams, -1), node=now.node.reshape(-1))
    total = now.scores[..., None] + logp.reshape(rows, beams, vocabulary)
    scores, at = jax.lax.top_k(total.reshape(rows, -1), 2 * beams)  # [B,2R]
    beam, token = at // vocabulary, (at % vocabulary).astype(jnp.int32)
    tokens = _pick(now.tokens, beam).at[:, :, now.step].set(token)  # [B,2R,L]
    node = run.follow(_pick(now.node, beam).reshape(-1), token=token.reshape(-1)).reshape(token.shape)

    length = (now.step + 1).astype(jnp.float32)
    ends = (token == run.eos_id) | (now.step + 1 == run.options.max_tokens)
    counted = ends & (jnp.arange(2 * beams) < beams)[None] & (scores > _NEVER / 2) & ~now.done[:, None]
    penalty = length ** jnp.float32(run.options.length_penalty)
    ended = jnp.where(counted, scores / penalty, jnp.float32(_NEVER))
    finished_scores, best = jax.lax.top_k(jnp.concatenate([now.finished_scores, ended], axis=1), beams)
    finished = _pick(jnp.concatenate([now.finished, tokens], axis=1), best)

    running, kept = jax.lax.top_k(jnp.where(ends, jnp.float32(_NEVER), scores), beams)  # [B,R]
    full = (finished_scores > _NEVER / 2).all(axis=1)
    done = now.done | (full & (running[:, 0] / penalty <= finished_scores[:, -1])) | (running[:, 0] <= _NEVER / 2)
    source = jnp.arange(rows)[:, None] * beams + _pick(beam, kept)
    chosen = _pick(token, kept)
    logits, state = run.decoder.decode(chosen.reshape(-1, 1), state=_continued(now.state, source.reshape(-1)))
    return _Beams(
        step=now.step + jnp.int32(1),
        tokens=_pick(tokens, kept),
        scores=running,
        node=_pick(node, kept),
        logits=logits.reshape(rows, beams, vocabulary),
        state=state,
        done=done,
        finished=finished,
        finished_scores=finished_scores,
    )


def _pick(x: Array, at: Int[Array, "B R"]) -> Array:
    """Choose along the second axis, row by row."""
    return jnp.take_along_axis(x, at.reshape(*at.shape, *(1,) * (x.ndim - 2)), axis=1)


def _repeated(state: DecoderState, times: int) -> DecoderState:
    """Return the states of rows of which each stands `times` times, one copy after another."""

    def rows(x: Array, axis: int) -> Array:
        return jnp.repeat(x, times, axis=axis)

    cache, padding = state
    context = None if cache.context is None else (rows(cache.context[0], 1), rows(cache.context[1], 1))
    mask = None if cache.context_mask is None else rows(cache.context_mask, 0)
    keys, values = rows(cache.keys, 1), rows(cache.values, 1)
    return DecoderState(Cache(keys, values, cache.index, context=context, context_mask=mask), rows(padding, 0))


def _continued(state: DecoderState, source: Int[Array, "B"]) -> DecoderState:
    """Return the states after the texts of other hypotheses of the same rows, whose clip and padding are the same."""
    cache = state.cache
    return state._replace(cache=cache._replace(keys=cache.keys[:, source], values=cache.values[:, source]))
