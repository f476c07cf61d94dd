"""Heads that turn a tower's tokens into class scores, and the classifier: a video tower and a head."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from ..layers.draws import RowKeys, dropout, fold
from ..layers.options import BlockOptions
from ..layers.pooling import AttentionPool, cells, masked_mean, statistics
from ..shapes import Video
from .distillation import TeacherProjection


class LinearHead(nnx.Module):
    """Mean over tokens, dropout, one dense layer: the linear probe of CLIP (Radford et al. 2021, section 3.2)."""

    def __init__(self, *, width: int, num_classes: int, dropout: float = 0.0, rngs: nnx.Rngs):
        """Build the head.

        Args:
          width: D of the tokens.
          num_classes: how many scores.
          dropout: rate on the pooled token.
          rngs: source of the initial values.
        """
        self.dropout = dropout
        self.scores = _scores(width, num_classes, rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B classes"]:
        """Score classes, float32; tokens where `mask` is False do not count; without `keys` dropout is off."""
        pooled = masked_mean(tokens, mask=mask)  # [B,D]
        return self.scores(dropout(pooled, rate=self.dropout, keys=keys))

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return how a head of fewer classes is taken over; see `_more_classes`."""
        return _more_classes(self.scores)


class StatisticsHead(nnx.Module):
    """LayerNorm, then what the tokens are on average and how they change over time; dropout and a dense layer follow.

    Statistics pooling (Snyder et al. 2018, x-vectors: mean and standard deviation over time) with the mean absolute
    differences of first and second order between neighbours: for few clips, and for towers that see single frames,
    whose mean does not say what moves.
    """

    def __init__(self, *, width: int, num_classes: int, dropout: float = 0.0, rngs: nnx.Rngs):
        """Build the head.

        Args:
          width: D of the tokens, which are in the order of time.
          num_classes: how many scores.
          dropout: rate on the statistics.
          rngs: source of the initial values.
        """
        self.dropout = dropout
        self.norm = BlockOptions(width=width, heads=1, tower="head").make_norm(rngs=rngs)
        self.scores = _scores(4 * width, num_classes, rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B classes"]:
        """Score classes, float32; tokens where `mask` is False do not count; without `keys` dropout is off."""
        pooled = statistics(self.norm(tokens), mask=mask)  # [B,4D]
        return self.scores(dropout(pooled, rate=self.dropout, keys=keys))

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return how a head of fewer classes is taken over; see `_more_classes`."""
        return _more_classes(self.scores)


class AttentiveHead(nnx.Module):
    """A learned query attends to all tokens; LayerNorm, dropout and a dense layer follow.

    Attentional pooling of CoCa (Yu et al. 2022, section 3.2) in the form of VideoPrism's classifiers (Zhao et al.
    2024): unlike the mean it can select the moments that matter, by what they show and, with `positions`, when.
    """

    def __init__(
        self,
        *,
        width: int,
        num_classes: int,
        heads: int = 4,
        positions: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """Build the head.

        Args:
          width: D of the tokens; a multiple of `heads`, with `positions` even.
          num_classes: how many scores.
          heads: attention heads K.
          positions: add sinusoids of the tokens' places in time.
          dropout: rate on the pooled token.
          rngs: source of the initial values.

        Raises:
          UserError: `heads` does not divide `width`, or it is odd with `positions`.
        """
        if width % heads:
            raise UserError(
                f"the tower's width={width} must be a multiple of heads={heads}; set config.task.heads to a divisor"
            )
        options = BlockOptions(width=width, heads=heads, tower="head")
        layers = {"norm_tokens": True, "positions": positions, "norm_pooled": True}
        self.pool = AttentionPool(options, **layers, rngs=rngs)
        self.dropout = dropout
        self.scores = _scores(width, num_classes, rngs=rngs)

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B classes"]:
        """Score classes, float32; tokens where `mask` is False are not seen; without `keys` dropout is off."""
        pooled = self.pool(tokens, mask=mask)[:, 0]  # [B,D]
        return self.scores(dropout(pooled, rate=self.dropout, keys=keys))

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return how a head of fewer classes is taken over; see `_more_classes`."""
        return _more_classes(self.scores)


class QueryHead(nnx.Module):
    """A learned query for each class attends to all tokens, an MLP follows, and a vector for each class scores it.

    ML-Decoder (Ridnik et al. 2021, arXiv:2111.12933) without groups and self-attention: for clips with several labels,
    each of which may show at other times.
    """

    def __init__(
        self,
        *,
        width: int,
        num_classes: int,
        heads: int = 4,
        positions: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        """Build the head; for the arguments and errors see `AttentiveHead`."""
        if width % heads:
            raise UserError(
                f"the tower's width={width} must be a multiple of heads={heads}; set config.task.heads to a divisor"
            )
        options = BlockOptions(width=width, heads=heads, tower="head")
        layers = {"norm_tokens": True, "positions": positions, "norm_pooled": True, "mlp": True}
        self.pool = AttentionPool(options, queries=num_classes, **layers, rngs=rngs)
        self.dropout = dropout
        self.kernel = nnx.Param(jnp.zeros((num_classes, width), jnp.float32))
        self.bias = nnx.Param(jnp.zeros((num_classes,), jnp.float32))

    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        *,
        mask: Bool[Array, "B L"] | None = None,
        keys: RowKeys | None = None,
    ) -> Float[Array, "B classes"]:
        """Score classes, float32; tokens where `mask` is False are not seen; without `keys` dropout is off."""
        pooled = dropout(self.pool(tokens, mask=mask), rate=self.dropout, keys=keys)  # [B,classes,D]
        return jnp.sum(pooled.astype(jnp.float32) * self.kernel[...][None], axis=-1) + self.bias[...][None]

    def position_resizers(self) -> dict[str, Callable[[Array], Array | None]]:
        """Return how a head of fewer classes is taken over.

        The scores of further classes start at zero, their queries as the mean of those that are known.
        """
        count = self.bias.shape[0]

        def grown(old: Array) -> Array | None:
            return _with_rows(old, count=count, row=jnp.zeros_like(old[0]))

        def queries(old: Array) -> Array | None:
            return _with_rows(old, count=count, row=jnp.mean(old, axis=0))

        return {"kernel": grown, "bias": grown, "pool/query": queries}


Head = LinearHead | StatisticsHead | AttentiveHead | QueryHead

HEADS: dict[str, type[LinearHead] | type[StatisticsHead] | type[AttentiveHead] | type[QueryHead]] = {
    "linear": LinearHead,
    "statistics": StatisticsHead,
    "attentive": AttentiveHead,
    "queries": QueryHead,
}
"""Name of a head in `config.task.head` -> class."""


class Classifier(nnx.Module):
    """A video tower and a head on its time tokens, or on those of patches.

    Attributes:
      patch_grid: 0 = time tokens; else the patches of each time step, averaged over so many cells a side.
    """

    def __init__(self, *, video: Any, head: Head, teacher: TeacherProjection | None = None, patch_grid: int = 0):
        """Join a tower and a head.

        Args:
          video: a tower of `models/towers`; its `features` give `[B,T,D]` for clips.
          head: turns tokens into scores.
          teacher: maps the mean token to the embeddings of a teacher, in training; None = there is none.
          patch_grid: what the head sees; see the attribute.
        """
        self.video, self.head, self.teacher, self.patch_grid = video, head, teacher, patch_grid

    def __call__(self, video: Video, *, keys: RowKeys | None = None, frozen: bool = False) -> Float[Array, "B classes"]:
        """Score clips.

        Args:
          video: uint8 `[B,T,H,W,3]`.
          keys: one for each row; turns dropout on, never patch dropout.
          frozen: the tower is not trained: no gradient flows into it and its dropout stays off.

        Returns:
          float32 scores `[B,classes]`.
        """
        return self.score(self.tokens(video, keys=keys, frozen=frozen), keys=keys)

    def tokens(self, video: Video, *, keys: RowKeys | None = None, frozen: bool = False) -> Float[Array, "B L D"]:
        """Return the tower's tokens of clips that the head sees, L = T or T * grid * grid; see `__call__`."""
        found = self.video.outputs(video, keys=None if frozen else fold(keys, 0), drop_patches=False)
        tokens = found.steps
        if self.patch_grid:
            assert found.patches is not None  # `zoo.build` has looked
            tokens = cells(found.patches, grid=self.patch_grid)
        return jax.lax.stop_gradient(tokens) if frozen else tokens

    def score(self, tokens: Float[Array, "B L D"], *, keys: RowKeys | None = None) -> Float[Array, "B classes"]:
        """Score the tower's tokens, such as those of a frozen tower that were computed before."""
        return self.head(tokens, keys=fold(keys, 1))


def _scores(width: int, num_classes: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Build the last layer; it starts at zero, so the first loss is log(classes) and no class is favoured."""
    return nnx.Linear(width, num_classes, kernel_init=nnx.initializers.zeros, param_dtype=jnp.float32, rngs=rngs)


def _with_rows(old: Array, *, count: int, row: Array) -> Array | None:
    """Return `old` with copies of `row` behind it, `count` rows in all; None if it has more than that."""
    more = count - old.shape[0]
    return None if more < 0 else jnp.concatenate([old, jnp.broadcast_to(row, (more, *row.shape))])


def _more_classes(scores: nnx.Linear) -> dict[str, Callable[[Array], Array | None]]:
    """Return parameter -> function from the last layer of fewer classes to this one: the further ones start at zero."""
    count = scores.out_features

    def grown(old: Array) -> Array | None:
        more = count - old.shape[-1]
        return None if more < 0 else jnp.pad(old, [(0, 0)] * (old.ndim - 1) + [(0, more)])

    return {"scores/kernel": grown, "scores/bias": grown}
