"""Losses of labels: softmax and sigmoid cross-entropy, levels of an ordered scale, numbers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..base.errors import unknown
from .ties import share_won, top_of

NUMBER_LOSSES = ("l1", "l2", "huber")
"""Losses of numbers."""


def softmax_cross_entropy(
    *,
    logits: Float[Array, "B classes"],
    label: Int[Array, "B"],
    valid: Bool[Array, "B"] | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the cross-entropy of class scores with smoothed labels (Szegedy et al. 2016, section 7).

    Args:
      logits: scores, any range.
      label: the index of each row's class; rows with a negative one are left out as if not valid.
      valid: rows that take part. None = all.
      label_smoothing: share of the target that is spread evenly over all classes, 0..1.

    Returns:
      The loss in nats (float32 mean over the rows that take part) and the metric `accuracy` (share of them whose own
      class scores highest, 0..1; of several that tie for it, in expectation over their order: see `ties`). Both are 0
      if no row takes part.
    """
    taken = label >= 0 if valid is None else valid & (label >= 0)
    own = jnp.where(taken, label, 0)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=1)  # [B,classes]
    right = jnp.take_along_axis(log_p, own[:, None], axis=1)[:, 0]  # [B]
    per_row = -(1.0 - label_smoothing) * right - label_smoothing * jnp.mean(log_p, axis=1)
    weight = taken.astype(jnp.float32) / jnp.maximum(jnp.sum(taken, dtype=jnp.float32), 1.0)
    scores = jax.lax.stop_gradient(logits.astype(jnp.float32))
    is_own = jnp.arange(logits.shape[1], dtype=own.dtype)[None, :] == own[:, None]
    hit = share_won(top_of(scores, mask=is_own, axis=1), among=top_of(scores, mask=None, axis=1))
    return jnp.sum(weight * per_row), {"accuracy": jnp.sum(weight * hit)}


def soft_cross_entropy(
    *,
    logits: Float[Array, "B classes"],
    target: Float[Array, "B classes"],
    valid: Bool[Array, "B"],
    weights: Float[Array, "classes"] | None = None,
) -> Float[Array, ""]:
    """Compute the cross-entropy with targets that are distributions, as mixed or smoothed labels are, in nats.

    Args:
      logits: scores, any range.
      target: rows that sum to 1.
      valid: rows that take part.
      weights: of the classes; the loss is divided by the sum of the targets' weights (PyTorch). None = all 1.

    Returns:
      float32, the weighted mean over the rows that take part; 0 if none does.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=1)
    own = target if weights is None else target * weights[None]
    own = jnp.where(valid[:, None], own, 0)
    return -jnp.sum(own * log_p) / jnp.maximum(jnp.sum(own), jnp.float32(1e-6))


def multilabel_cross_entropy(
    *,
    logits: Float[Array, "B classes"],
    target: Float[Array, "B classes"],
    valid: Bool[Array, "B"],
    weights: Float[Array, "classes"] | None = None,
    label_smoothing: float = 0.0,
) -> Float[Array, ""]:
    """Compute the sigmoid cross-entropy of each class, in nats: the mean over classes and over the rows that take part.

    Args:
      logits: scores, any range.
      target: 0..1.
      valid: rows that take part.
      weights: of the positives of each class; None = all 1.
      label_smoothing: how far targets are drawn to 1/2, 0..1.

    Returns:
      float32; 0 if no row takes part.
    """
    logits = logits.astype(jnp.float32)
    soft = target * (1 - label_smoothing) + label_smoothing / 2
    positive = soft if weights is None else soft * weights[None]
    each = positive * jax.nn.softplus(-logits) + (1 - soft) * jax.nn.softplus(logits)
    share = valid.astype(jnp.float32) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), jnp.float32(1))
    return jnp.sum(share * jnp.mean(each, axis=1))


def ordinal_cross_entropy(
    *, logits: Float[Array, "B bounds"], level: Float[Array, "B"], valid: Bool[Array, "B"]
) -> Float[Array, ""]:
    """Compute the cross-entropy of "the level is above k" for each bound k of K levels (Niu et al. 2016), in nats.

    Args:
      logits: scores of the K - 1 bounds.
      level: 0 to K - 1.
      valid: rows that take part.

    Returns:
      float32, the mean over bounds and over the rows that take part; 0 if none does.
    """
    above = level[:, None] > jnp.arange(logits.shape[1], dtype=jnp.float32)[None]
    return multilabel_cross_entropy(logits=logits, target=above.astype(jnp.float32), valid=valid)


def number_loss(
    *, predicted: Float[Array, "B"], truth: Float[Array, "B"], valid: Bool[Array, "B"], kind: str = "l1"
) -> Float[Array, ""]:
    """Return the mean error of numbers over the rows that take part, float32; 0 if none does.

    Args:
      predicted: any range.
      truth: likewise.
      valid: rows that take part.
      kind: one of `NUMBER_LOSSES`; "huber" is quadratic up to an error of 1 (Huber 1964).

    Raises:
      UserError: an unknown kind.
    """
    if kind not in NUMBER_LOSSES:
        raise unknown("config.task.number_loss:", kind, NUMBER_LOSSES)
    error = jnp.abs(predicted.astype(jnp.float32) - truth.astype(jnp.float32))
    each = {"l1": error, "l2": error**2, "huber": jnp.where(error < 1, error**2 / 2, error - 0.5)}[kind]
    return jnp.sum(jnp.where(valid, each, 0)) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), jnp.float32(1))
