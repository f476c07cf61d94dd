"""A head that scores each time step of a bag of windows, and the model around it: anomalies from weak labels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ..layers.dense import linear
from ..layers.draws import RowKeys, dropout, fold, fold_each
from ..layers.norm import LayerNorm
from ..shapes import Video
from .timeline import new_scores

HIDDEN = 4
"""The last hidden layer is this many times narrower than the head."""


class Scored(NamedTuple):
    """What a head says of N time steps.

    Attributes:
      logits: float32 `[B,N]`, of "abnormal".
      magnitudes: float32 `[B,N]`, root mean square of the features of each step, at least 0.
    """

    logits: Float[Array, "B N"]
    magnitudes: Float[Array, "B N"]


class StepHead(nnx.Module):
    """A score for each time step from its token and those up to `reach` steps before and after it.

    The dilated convolutions and feature magnitudes of RTFM (Tian et al. 2021, arXiv:2101.10030) and the multilayer
    perceptron of Sultani et al. (2018, arXiv:1801.04264), then a mean over neighbouring steps: without it, weak labels
    single out a few steps of an event. RTFM's attention over the whole video is left out: the reach is finite, so a
    film of any length is scored as a stream, with the scores that it would have as a whole.
    """

    def __init__(
        self,
        *,
        video_width: int,
        width: int = 128,
        dilations: tuple[int, ...] = (1, 2, 4),
        smooth: int = 2,
        dropout: float = 0.3,
        rngs: nnx.Rngs,
    ):
        """Build the layers.

        Args:
          video_width: of the time tokens.
          width: D of the head, a multiple of `HIDDEN`.
          dilations: of parallel convolutions over time, each of three steps; () = none.
          smooth: logits and magnitudes are means over so many steps before and after each; 0 = each by itself.
          dropout: rate on the features of the steps and on the hidden layer.
          rngs: source of the initial values.
        """
        self.dropout, self._smooth = dropout, smooth
        self.reach = reach_of(dilations, smooth=smooth)
        make = {"dtype": jnp.float32, "rngs": rngs}
        self.norm, self.project = LayerNorm(video_width, **make), linear(video_width, width, **make)
        self.context = nnx.List([_conv(width, dilation=dilation, rngs=rngs) for dilation in dilations])
        self.join = linear(len(dilations) * width, width, **make) if dilations else None
        self.hidden = linear(width, width // HIDDEN, **make)
        self.scores = new_scores(width // HIDDEN, 1, prior=0.5, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "B N D"], *, mask: Bool[Array, "B N"] | None = None, keys: RowKeys | None = None
    ) -> Scored:
        """Score steps.

        Args:
          tokens: in order of time.
          mask: True where a step is real; the others count as beyond the ends of the film.
          keys: one for each row; turns dropout on.
        """
        x = jax.nn.gelu(self.project(self.norm(tokens.astype(jnp.float32))))
        if mask is not None:
            x = jnp.where(mask[..., None], x, jnp.float32(0))
        if self.join is not None:
            around = jnp.concatenate([jax.nn.gelu(conv(x)) for conv in self.context], axis=-1)
            x = x + self.join(around)  # [B,N,D]
        magnitudes = jnp.sqrt(jnp.mean(jnp.square(x), axis=-1) + jnp.float32(1e-12))
        hidden = jax.nn.gelu(self.hidden(dropout(x, rate=self.dropout, keys=fold(keys, 0))))
        logits = self.scores(dropout(hidden, rate=self.dropout, keys=fold(keys, 1)))[..., 0]
        around = {"mask": jnp.ones(logits.shape, bool) if mask is None else mask, "radius": self._smooth}
        return Scored(_mean_around(logits.astype(jnp.float32), **around), _mean_around(magnitudes, **around))


class StepModel(nnx.Module):
    """A video tower and a head on the time tokens of several windows of a film."""

    def __init__(self, *, video: Any, head: StepHead):
        """Join them; the tower's `features` give `[B,T,D]` for clips."""
        self.video, self.head = video, head

    def __call__(self, video: Video, *, keys: RowKeys | None = None, frozen: bool = False) -> Scored:
        """Score the time tokens of bags of windows in order of time.

        Args:
          video: uint8 `[B,V,T,H,W,3]`; `[B,T,H,W,3]` is one window.
          keys: one for each row; turns dropout on.
          frozen: the tower is not trained: no gradient flows into it and its dropout stays off.
        """
        bags = video if video.ndim == 6 else video[:, None]
        rows, windows = bags.shape[:2]
        own = None if frozen else fold_each(fold(keys, 0), windows)
        tokens = self.video.features(bags.reshape(rows * windows, *bags.shape[2:]), keys=own, drop_patches=False)
        return self.score(tokens.reshape(rows, windows, *tokens.shape[1:]), keys=keys, frozen=frozen)

    def score(self, tokens: Float[Array, "B *V T D"], *, keys: RowKeys | None = None, frozen: bool = False) -> Scored:
        """Score the tower's time tokens, such as those of a frozen tower that were computed before."""
        tokens = jax.lax.stop_gradient(tokens) if frozen else tokens
        return self.head(tokens.reshape(tokens.shape[0], -1, tokens.shape[-1]), keys=fold(keys, 1))


def reach_of(dilations: Sequence[int], *, smooth: int) -> int:
    """Return how many steps before and after it a step's score depends on."""
    return max(dilations, default=0) + smooth


STEP_HEADS: dict[str, type[StepHead]] = {"steps": StepHead}
"""`kind` of a head on bags of windows in a spec -> class."""


def _conv(width: int, *, dilation: int, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(width, width, kernel_size=(3,), kernel_dilation=(dilation,), param_dtype=jnp.float32, rngs=rngs)


def _mean_around(values: Float[Array, "B N"], *, mask: Bool[Array, "B N"], radius: int) -> Float[Array, "B N"]:
    """Return the mean of the real values at most `radius` steps from each."""
    if not radius:
        return values
    pair = jnp.stack([jnp.where(mask, values, jnp.float32(0)), mask.astype(jnp.float32)])  # [2,B,N]
    wide = jnp.pad(pair, ((0, 0), (0, 0), (radius, radius)))
    shifted = [wide[..., shift : shift + values.shape[1]] for shift in range(2 * radius + 1)]
    sums = jnp.sum(jnp.stack(shifted), axis=0)
    return sums[0] / jnp.maximum(sums[1], jnp.float32(1))
