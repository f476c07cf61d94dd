"""Softmax over identities with a margin: ArcFace and CosFace, for embeddings that are compared by their cosine."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..base.errors import unknown
from .classification import softmax_cross_entropy

MARGINS = ("arcface", "cosface")
"""Where the margin is: on the angle (Deng et al. 2019), or on its cosine (Wang et al. 2018)."""
_EPS = 1e-6  # of the squared sine: its root has a gradient


def margin_logits(
    cosine: Float[Array, "B classes"], *, label: Int[Array, "B"], kind: str, margin: float, scale: float
) -> Float[Array, "B classes"]:
    """Return scaled cosines in which that of each row's own class is made smaller.

    "arcface": s cos(θ + m) (Deng et al. 2019, arXiv:1801.07698, equation 3). Beyond θ = π - m, where cos(θ + m) would
    grow again, it is s (cos θ - m sin m), as in the authors' code. "cosface": s (cos θ - m) (Wang et al. 2018,
    arXiv:1801.09414, equation 4).

    Args:
      cosine: of the embeddings and the vectors of the classes, -1..1.
      label: the own class of each row; a row with a negative one has no margin.
      kind: one of `MARGINS`.
      margin: m, in radians of "arcface".
      scale: s.

    Returns:
      float32.

    Raises:
      UserError: an unknown kind.
    """
    if kind not in MARGINS:
        raise unknown("config.task.loss:", kind, MARGINS)
    cosine = cosine.astype(jnp.float32)
    if kind == "cosface":
        harder = cosine - jnp.float32(margin)
    else:
        sine = jnp.sqrt(jnp.maximum(1 - jnp.square(cosine), jnp.float32(_EPS)))
        turned = cosine * jnp.float32(np.cos(margin)) - sine * jnp.float32(np.sin(margin))
        beyond = cosine - jnp.float32(margin * np.sin(margin))
        harder = jnp.where(cosine > jnp.float32(np.cos(np.pi - margin)), turned, beyond)
    own = label[:, None] == jnp.arange(cosine.shape[1], dtype=label.dtype)[None]
    return jnp.float32(scale) * jnp.where(own, harder, cosine)


def margin_cross_entropy(
    cosine: Float[Array, "B classes"],
    *,
    label: Int[Array, "B"],
    valid: Bool[Array, "B"],
    kind: str,
    margin: float,
    scale: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the cross-entropy of `margin_logits` in nats.

    Args:
      cosine: see `margin_logits`, as for the other arguments.
      label: likewise.
      valid: rows that take part.
      kind: likewise.
      margin: likewise.
      scale: likewise.

    Returns:
      The float32 mean over the rows that take part; and the metrics `accuracy`, the share of rows whose own class has
      the highest cosine, without the margin, and `own_cosine`, the mean cosine of the own class. All are 0 if no row
      takes part.
    """
    taken = valid & (label >= 0)
    loss, _ = softmax_cross_entropy(
        logits=margin_logits(cosine, label=label, kind=kind, margin=margin, scale=scale), label=label, valid=taken
    )
    _, metrics = softmax_cross_entropy(logits=cosine, label=label, valid=taken)
    weight = taken.astype(jnp.float32) / jnp.maximum(jnp.sum(taken, dtype=jnp.float32), jnp.float32(1))
    own = jnp.take_along_axis(cosine.astype(jnp.float32), jnp.where(taken, label, 0)[:, None], axis=1)[:, 0]
    return loss, {**metrics, "own_cosine": jax.lax.stop_gradient(jnp.sum(weight * own))}
