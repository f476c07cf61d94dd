"""Losses that pull a model's embeddings to those of a teacher (Hinton et al. 2015)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .ties import FLOOR
from .tiles import PRECISION

DISTANCES = ("cosine", "mse")
"""How far an embedding is from the teacher's: 1 - cosine, or the mean squared error."""


def embedding_distance(
    student: Float[Array, "B F"], *, teacher: Float[Array, "B F"], valid: Bool[Array, "B"], distance: str
) -> Float[Array, ""]:
    """Compute the mean distance of embeddings to those of a teacher over the valid rows.

    "mse" is the feature distillation of CLIP-KD (Yang et al. 2024, section 3.2), "cosine" has the gradient of the
    squared error of unit vectors.

    Args:
      student: in the teacher's space, of any length.
      teacher: rows of unit length.
      valid: rows that take part.
      distance: one of `DISTANCES`.
    """
    if distance == "mse":
        each = jnp.square(student - teacher).mean(axis=1)
    else:
        length = jnp.sqrt(jnp.sum(jnp.square(student), axis=1) + jnp.float32(1e-12))
        each = jnp.float32(1) - jnp.sum(student * teacher, axis=1) / length
    return _mean(each, over=valid)


def token_distance(student: Float[Array, "*B F"], *, teacher: Float[Array, "*B F"]) -> Float[Array, "*B"]:
    """Compute the squared distance of tokens, each divided by its length (UMT, Li et al. 2023, equation 2).

    Args:
      student: in the teacher's space, of any length.
      teacher: of any length.
    """
    units = [
        x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + jnp.float32(1e-12))
        for x in (student, teacher)
    ]
    return jnp.sum(jnp.square(units[0] - units[1]), axis=-1)


def similarity_divergence(
    student: Float[Array, "B B"], *, teacher: Float[Array, "B B"], taken: Bool[Array, "B B"]
) -> Float[Array, ""]:
    """Compute KL(teacher || student) of the softmax over each row of two matrices of logits, nats, mean over the rows.

    The affinity mimicking of TinyCLIP (Wu et al. 2023, section 3.1); the contrastive relational distillation of
    CLIP-KD.

    Args:
      student: logits.
      teacher: logits.
      taken: pairs that take part; rows without any do not.
    """
    logq, logp = (jax.nn.log_softmax(jnp.where(taken, x, jnp.float32(FLOOR)), axis=1) for x in (student, teacher))
    each = jnp.sum(jnp.where(taken, jnp.exp(logp) * (logp - logq), jnp.float32(0)), axis=1)
    return _mean(each, over=jnp.any(taken, axis=1))


def similarities(x: Float[Array, "B E"], *, y: Float[Array, "B E"]) -> Float[Array, "B B"]:
    """Return the cosines of all rows of unit length, float32."""
    return jnp.matmul(x, y.T, precision=PRECISION)


def _mean(x: Float[Array, "B"], *, over: Bool[Array, "B"]) -> Float[Array, ""]:
    count = jnp.maximum(jnp.sum(over, dtype=jnp.float32), jnp.float32(1))
    return jnp.sum(jnp.where(over, x, jnp.float32(0))) / count
