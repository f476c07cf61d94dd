"""Heads that find moments: anchor-free over several scales, frame labels with a CRF, and saliency."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.draws import RowKeys
from ..layers.norm import LayerNorm
from ..shapes import FrameFeatures, TextMask
from .timeline import Timeline, new_scores


class Moments(NamedTuple):
    """Spans of all time steps of all scales.

    Attributes:
      scores: float32 `[B,P,C]`, logits of the classes.
      spans: float32 `[B,P,2]`, start and end as fractions of the clip; not cut to 0 and 1.
    """

    scores: Float[Array, "B P C"]
    spans: Float[Array, "B P 2"]


class Steps(NamedTuple):
    """The time steps of all scales, as fractions of the clip: float32 [P] each.

    Attributes:
      centre: the middle of the step.
      stride: its length.
      low: the step stands for spans whose further end lies at least so far from its middle...
      high: ... and less than so far.
    """

    centre: np.ndarray
    stride: np.ndarray
    low: np.ndarray
    high: np.ndarray


def steps_of(times: int, *, levels: int, reach: float = 4.0) -> Steps:
    """Return the time steps of a pyramid whose scale l has `ceil(times / 2**l)` steps.

    Args:
      times: time tokens T of the clip.
      levels: scales.
      reach: the farthest end that a step of scale l predicts, in strides of that scale; the last scale has no limit.
    """
    columns = []
    for level in range(levels):
        count, stride = -(-times // 2**level), 2**level / times
        low = 0.0 if level == 0 else reach * stride / 2
        high = np.inf if level == levels - 1 else reach * stride
        columns.append([((t + 0.5) * stride, stride, low, high) for t in range(count)])
    return Steps(*np.array([row for column in columns for row in column], np.float32).T)


class MomentHead(nnx.Module):
    """Scores and both ends of a span at each time step of several scales, without anchors.

    After ActionFormer (Zhang et al. 2022): a pyramid over the encoded tokens, with one classifier and one regressor,
    each of two convolutions, for all scales. Ends are predicted as distances from the middle of the step, in strides.
    """

    def __init__(self, *, labels: int, times: int, levels: int = 3, rngs: nnx.Rngs, **timeline):
        """Build the head.

        Args:
          labels: classes C; 1 for queries.
          times: time tokens T of a clip.
          levels: scales; each has half the steps of the one before.
          rngs: source of the initial values.
          **timeline: arguments of `Timeline`.

        Raises:
          UserError: no scale, or more than the tokens allow; see `Timeline`.
        """
        if levels < 1 or 2 ** (levels - 1) > times:
            raise UserError(
                f"config.task.levels={levels} must be at least 1, and 2 ** (levels - 1) at most the {times} time "
                "tokens of a clip; set config.data.num_frames higher, or fewer levels"
            )
        self.timeline = Timeline(**timeline, rngs=rngs)
        self.times, self.levels, width = times, levels, self.timeline.width
        self.down = nnx.List([_conv(width, stride=2, rngs=rngs) for _ in range(levels - 1)])
        self.norms = nnx.List([LayerNorm(width, dtype=jnp.float32, rngs=rngs) for _ in range(levels - 1)])
        self.classify, self.regress = (nnx.List([_conv(width, stride=1, rngs=rngs)]) for _ in range(2))
        self.scores = new_scores(width, labels, prior=0.05, rngs=rngs)
        self.ends = new_scores(width, 2, prior=0.8, rngs=rngs)  # the first distances are near a stride

    @property
    def steps(self) -> Steps:
        """The time steps of all scales."""
        return steps_of(self.times, levels=self.levels)

    def __call__(
        self,
        tokens: FrameFeatures,
        *,
        query: Float[Array, "B L C"] | None = None,
        query_mask: TextMask | None = None,
        keys: RowKeys | None = None,
    ) -> Moments:
        """Predict; for the arguments see `Timeline`. A distance is at least -1/2 stride: spans shorter than a step."""
        x = self.timeline(tokens, query=query, query_mask=query_mask, keys=keys)
        scales = [x]
        for conv, norm in zip(self.down, self.norms, strict=True):
            scales.append(norm(jax.nn.gelu(conv(scales[-1]))))
        scores, distances = (
            jnp.concatenate([last(_through(convs, x)) for x in scales], axis=1)
            for convs, last in ((self.classify, self.scores), (self.regress, self.ends))
        )
        reach = (jax.nn.softplus(distances.astype(jnp.float32)) - 0.5) * jnp.asarray(self.steps.stride)[None, :, None]
        centre = jnp.asarray(self.steps.centre)[None, :]
        spans = jnp.stack([centre - reach[..., 0], centre + reach[..., 1]], axis=-1)
        return Moments(scores.astype(jnp.float32), spans)


class Labels(NamedTuple):
    """Scores of a linear-chain CRF: `emissions` float32 `[B,T,C+1]`, 0 = background; `start`, `transitions`, `end`."""

    emissions: Float[Array, "B T K"]
    start: Float[Array, "K"]
    transitions: Float[Array, "K K"]
    end: Float[Array, "K"]


class LabellingHead(nnx.Module):
    """Scores of the label of each time step, and of neighbouring labels (BiLSTM-CRF, Huang et al. 2015)."""

    def __init__(self, *, labels: int, times: int, rngs: nnx.Rngs, **timeline):
        """Build the head; for the arguments see `MomentHead`. Label 0 is the background."""
        del times
        self.timeline = Timeline(**timeline, rngs=rngs)
        count = labels + 1
        self.emissions = new_scores(self.timeline.width, count, prior=0.5, rngs=rngs)
        self.start, self.end = (nnx.Param(jnp.zeros((count,), jnp.float32)) for _ in range(2))
        self.transitions = nnx.Param(jnp.zeros((count, count), jnp.float32))

    def __call__(
        self,
        tokens: FrameFeatures,
        *,
        query: Float[Array, "B L C"] | None = None,
        query_mask: TextMask | None = None,
        keys: RowKeys | None = None,
    ) -> Labels:
        """Score labels; for the arguments see `Timeline`."""
        x = self.timeline(tokens, query=query, query_mask=query_mask, keys=keys)
        emissions = self.emissions(x).astype(jnp.float32)
        return Labels(emissions, self.start[...], self.transitions[...], self.end[...])


class SaliencyHead(nnx.Module):
    """One score per time step: how much it is a highlight, for the query or by itself."""

    def __init__(self, *, labels: int, times: int, rngs: nnx.Rngs, **timeline):
        """Build the head; `labels` is 1. For the arguments see `MomentHead`."""
        del labels, times
        self.timeline = Timeline(**timeline, rngs=rngs)
        self.scores = new_scores(self.timeline.width, 1, prior=0.5, rngs=rngs)

    def __call__(
        self,
        tokens: FrameFeatures,
        *,
        query: Float[Array, "B L C"] | None = None,
        query_mask: TextMask | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B T"]:
        """Return logits, float32; for the arguments see `Timeline`."""
        x = self.timeline(tokens, query=query, query_mask=query_mask, keys=keys)
        return self.scores(x).astype(jnp.float32)[..., 0]


TIMELINE_HEADS: dict[str, type[MomentHead] | type[LabellingHead] | type[SaliencyHead]] = {
    "moments": MomentHead,
    "crf": LabellingHead,
    "saliency": SaliencyHead,
}
"""`kind` of a head along time in a spec -> class."""


def _conv(width: int, *, stride: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(width, width, kernel_size=(3,), strides=(stride,), param_dtype=jnp.float32, rngs=rngs)


def _through(convs: nnx.List, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    for conv in convs:
        x = jax.nn.gelu(conv(x))
    return x
