"""Linear-chain conditional random field over time steps (Lafferty et al. 2001): likelihood, best path, marginals.

A path y of T labels scores start[y_0] + Σ_t emissions[t, y_t] + Σ_t transitions[y_t, y_t+1] + end[y_T-1]; its
probability is exp(score) over the sum of that of all K^T paths. Real steps come first in each row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Emissions = Float[Array, "B T K"]
StepMask = Bool[Array, "B T"]


class Chain(NamedTuple):
    """Scores of neighbouring labels.

    Attributes:
      start: [K], of the first label.
      transitions: [K,K], of a label (row) followed by a label (column).
      end: [K], of the last label.
    """

    start: Float[Array, "K"]
    transitions: Float[Array, "K K"]
    end: Float[Array, "K"]


def log_partition(emissions: Emissions, *, chain: Chain, mask: StepMask | None = None) -> Float[Array, "B"]:
    """Return the log of the sum over all paths of exp(score), by the forward recursion, float32.

    Args:
      emissions: scores of the labels at each step.
      chain: scores of neighbours.
      mask: True where a step is real; None = all. The first step of a row is real.
    """
    x, real = _by_time(emissions, mask=mask)

    def step(alpha: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        scores, real = at
        new = jax.nn.logsumexp(alpha[:, :, None] + chain.transitions[None], axis=1) + scores
        return jnp.where(real[:, None], new, alpha), None

    alpha, _ = jax.lax.scan(step, chain.start[None] + x[0], (x[1:], real[1:]))
    return jax.nn.logsumexp(alpha + chain.end[None], axis=1)


def path_score(
    emissions: Emissions, *, path: Int[Array, "B T"], chain: Chain, mask: StepMask | None = None
) -> Float[Array, "B"]:
    """Return the score of one path per row, float32; labels on padding are not looked at."""
    real = jnp.ones(path.shape, bool) if mask is None else mask
    path = jnp.where(real, path, 0)
    own = jnp.take_along_axis(emissions.astype(jnp.float32), path[:, :, None], axis=2)[:, :, 0]  # [B,T]
    pairs = chain.transitions[path[:, :-1], path[:, 1:]]  # [B,T-1]
    last = jnp.take_along_axis(path, jnp.sum(real, axis=1, dtype=jnp.int32)[:, None] - 1, axis=1)[:, 0]
    steps = jnp.sum(jnp.where(real, own, 0), axis=1) + jnp.sum(jnp.where(real[:, 1:], pairs, 0), axis=1)
    return steps + chain.start[path[:, 0]] + chain.end[last]


def crf_loss(
    emissions: Emissions,
    *,
    path: Int[Array, "B T"],
    chain: Chain,
    mask: StepMask | None = None,
    valid: Bool[Array, "B"] | None = None,
) -> Float[Array, ""]:
    """Return the negative log-likelihood of the true paths in nats per step, the mean over the rows that take part.

    Args:
      emissions: scores of the labels at each step.
      path: the true labels, 0 to K - 1.
      chain: scores of neighbours.
      mask: True where a step is real; None = all.
      valid: rows that take part; None = all. 0 if none does.
    """
    total = log_partition(emissions, chain=chain, mask=mask)
    steps = jnp.full(path.shape[:1], path.shape[1]) if mask is None else jnp.sum(mask, axis=1)
    each = (total - path_score(emissions, path=path, chain=chain, mask=mask)) / steps.astype(jnp.float32)
    taken = jnp.ones(each.shape, jnp.float32) if valid is None else valid.astype(jnp.float32)
    return jnp.sum(each * taken) / jnp.maximum(jnp.sum(taken), jnp.float32(1))


def viterbi(emissions: Emissions, *, chain: Chain, mask: StepMask | None = None) -> Int[Array, "B T"]:
    """Return the path with the highest score of each row (Viterbi 1967), int32; -1 on padding."""
    x, real = _by_time(emissions, mask=mask)
    stay = jnp.arange(x.shape[2], dtype=jnp.int32)[None]

    def forward(best: Array, at: tuple[Array, Array]) -> tuple[Array, Array]:
        scores, real = at
        through = best[:, :, None] + chain.transitions[None]  # [B,K from,K to]
        before = jnp.argmax(through, axis=1).astype(jnp.int32)
        best = jnp.where(real[:, None], jnp.max(through, axis=1) + scores, best)
        return best, jnp.where(real[:, None], before, stay)

    best, before = jax.lax.scan(forward, chain.start[None] + x[0], (x[1:], real[1:]))
    last = jnp.argmax(best + chain.end[None], axis=1).astype(jnp.int32)

    def backward(label: Array, before: Array) -> tuple[Array, Array]:
        earlier = jnp.take_along_axis(before, label[:, None], axis=1)[:, 0]
        return earlier, earlier

    _, path = jax.lax.scan(backward, last, before, reverse=True)
    path = jnp.concatenate([path, last[None]])  # [T,B]; padding repeats the last real label
    return jnp.where(real, path, -1).T


def marginals(emissions: Emissions, *, chain: Chain, mask: StepMask | None = None) -> Float[Array, "B T K"]:
    """Return the probability of each label at each step over all paths, float32; zeros on padding.

    It is the gradient of the log-partition with respect to the emissions.
    """
    return jax.grad(lambda x: jnp.sum(log_partition(x, chain=chain, mask=mask)))(emissions.astype(jnp.float32))


def _by_time(emissions: Emissions, *, mask: StepMask | None) -> tuple[Float[Array, "T B K"], Bool[Array, "T B"]]:
    x = jnp.moveaxis(emissions.astype(jnp.float32), 1, 0)
    return x, jnp.ones(x.shape[:2], bool) if mask is None else mask.T
