"""Losses of anchor-free moment localisation: which time step stands for which span, focal and distance-IoU losses.

Times are fractions of the clip, 0 to 1. Sources: one prediction per time step of several scales, with centre sampling
and a range of lengths for each scale, ActionFormer (Zhang et al. 2022) after FCOS (Tian et al. 2019); focal loss, Lin
et al. 2017; distance-IoU, Zheng et al. 2020.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..base.errors import unknown

REGRESSIONS = ("diou", "l1")


class Points(NamedTuple):
    """The time steps of all scales, each of which may predict a span.

    Attributes:
      centre: float32 [P], the middle of the step.
      stride: float32 [P], its length.
      low: float32 [P], the step stands for spans whose further end lies at least so far from its middle...
      high: float32 [P], ... and less than so far.
    """

    centre: np.ndarray
    stride: np.ndarray
    low: np.ndarray
    high: np.ndarray


def assign_spans(
    points: Points, *, spans: Float[Array, "B M 2"], mask: Bool[Array, "B M"], radius: float = 1.5
) -> Int[Array, "B P"]:
    """Return which span each step has to predict, int32; -1 = none.

    A step takes a span that contains its middle, whose centre is at most `radius` strides away and whose further end
    is in the step's range; of several the shortest. A span that no step takes, such as one shorter than a step, goes
    to the step of its range that is nearest to its centre.

    Args:
      points: the steps.
      spans: start and end.
      mask: True where a span is real.
      radius: of centre sampling, strides.
    """
    centre, stride = (jnp.asarray(side)[None, :, None] for side in (points.centre, points.stride))  # [1,P,1]
    low, high = (jnp.asarray(side)[None, :, None] for side in (points.low, points.high))
    start, end = spans[:, None, :, 0], spans[:, None, :, 1]  # [B,1,M]
    length, away = end - start, jnp.abs(centre - (start + end) / 2)  # [B,1,M] [B,P,M]
    reach = jnp.maximum(centre - start, end - centre)
    fits = (centre >= start) & (centre <= end) & (away <= radius * stride) & (reach >= low) & (reach < high)
    fits = fits & mask[:, None]
    half = length / 2
    off_range = jnp.where((half >= low) & (half < high), 0.0, 10.0).astype(jnp.float32)  # centres are 0 to 1 apart
    nearest = jnp.argmin(away + off_range, axis=1)  # [B,M]
    alone = mask & ~jnp.any(fits, axis=1)
    steps = jnp.arange(points.centre.shape[0])[None, :, None]
    fits = fits | ((steps == nearest[:, None]) & alone[:, None])
    shortest = jnp.argmin(jnp.where(fits, length, jnp.inf), axis=2).astype(jnp.int32)
    return jnp.where(jnp.any(fits, axis=2), shortest, -1)


def focal_loss(
    logits: Float[Array, "*n"], *, target: Float[Array, "*n"], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Array, "*n"]:
    """Return the sigmoid focal loss of each value in nats, float32.

    Args:
      logits: scores.
      target: 0 or 1.
      alpha: weight of the positives, 0..1; the negatives have 1 - alpha. Below 0: no weights.
      gamma: how far well-classified values count less; 0 = binary cross-entropy.
    """
    logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
    p = jax.nn.sigmoid(logits)
    cross = jax.nn.softplus(logits) - logits * target
    wrong = p * (1 - target) + (1 - p) * target
    weight = 1.0 if alpha < 0 else alpha * target + (1 - alpha) * (1 - target)
    return weight * wrong**gamma * cross


def diou_loss(predicted: Float[Array, "*n 2"], *, truth: Float[Array, "*n 2"]) -> Float[Array, "*n"]:
    """Return 1 - IoU + (distance of the centres / length of the hull)² of spans, float32, 0 to 2.

    Args:
      predicted: start and end; an end before its start is a span without overlap.
      truth: start and end, the end after the start.
    """
    start = jnp.maximum(predicted[..., 0], truth[..., 0])
    end = jnp.minimum(predicted[..., 1], truth[..., 1])
    inside = jnp.maximum(end - start, 0)
    own, wanted = predicted[..., 1] - predicted[..., 0], truth[..., 1] - truth[..., 0]
    union = jnp.maximum(own, 0) + wanted - inside
    low = jnp.minimum(jnp.min(predicted, axis=-1), truth[..., 0])
    high = jnp.maximum(jnp.max(predicted, axis=-1), truth[..., 1])
    tiny = jnp.float32(1e-6)
    away = (jnp.sum(predicted, axis=-1) - jnp.sum(truth, axis=-1)) / 2
    return 1 - inside / jnp.maximum(union, tiny) + (away / jnp.maximum(high - low, tiny)) ** 2


class Found(NamedTuple):
    """What a head says at each step: `scores` [B,P,C] logits of the classes, `spans` [B,P,2] start and end."""

    scores: Float[Array, "B P C"]
    spans: Float[Array, "B P 2"]


class Wanted(NamedTuple):
    """The true spans.

    Attributes:
      spans: start and end.
      mask: True where a span is real.
      label: 0 to C - 1.
      valid: rows that take part.
    """

    spans: Float[Array, "B M 2"]
    mask: Bool[Array, "B M"]
    label: Int[Array, "B M"]
    valid: Bool[Array, "B"]


def localisation_loss(
    found: Found, *, wanted: Wanted, points: Points, regression: str = "diou", radius: float = 1.5
) -> dict[str, Float[Array, ""]]:
    """Return the terms `focal` and `regression`, each a sum over the batch divided by the number of positive steps.

    Args:
      found: predictions of all steps.
      wanted: the true spans.
      points: the steps.
      regression: "diou", or "l1" of both ends, in strides.
      radius: see `assign_spans`.

    Raises:
      UserError: an unknown regression.
    """
    if regression not in REGRESSIONS:
        raise unknown("config.task.regression:", regression, REGRESSIONS)
    mask = wanted.mask & wanted.valid[:, None]
    taken = assign_spans(points, spans=wanted.spans, mask=mask, radius=radius)  # [B,P]
    positive, place = taken >= 0, jnp.maximum(taken, 0)
    truth = jnp.take_along_axis(wanted.spans, place[:, :, None], axis=1)  # [B,P,2]
    label = jnp.where(positive, jnp.take_along_axis(wanted.label, place, axis=1), -1)
    target = (label[:, :, None] == jnp.arange(found.scores.shape[2])[None, None]).astype(jnp.float32)
    focal = jnp.sum(focal_loss(found.scores, target=target), axis=(1, 2))
    if regression == "diou":
        each = diou_loss(found.spans, truth=truth)
    else:
        each = jnp.sum(jnp.abs(found.spans - truth), axis=-1) / jnp.asarray(points.stride)[None]
    count = jnp.maximum(jnp.sum(positive, dtype=jnp.float32), jnp.float32(1))
    return {
        "focal": jnp.sum(jnp.where(wanted.valid, focal, 0)) / count,
        "regression": jnp.sum(jnp.where(positive, each, 0)) / count,
    }
