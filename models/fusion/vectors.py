"""Fusion of one vector per modality: concatenation, sum, attention, and late fusion."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array

from ...base.errors import UserError, unknown
from ..layers.dense import linear
from ..layers.draws import RowKeys
from ..layers.norm import unit_rows
from .interface import Features, Fused, Fusion, Tokens, chosen, fused, mean_of_present, softmax_of_present

LATE_WEIGHTS = ("mean", "learned")
"""How late fusion weights the modalities."""


class ConcatFusion(Fusion):
    """Feature-level fusion by concatenation (multimodal deep learning, Ngiam et al. 2011).

    z = W2 gelu(W1 [q_1; ...; q_M] + b1) + b2, with q_m the projected vector of modality m. W1's share of the modalities
    that a row lacks is left out, and the rest is multiplied by M / (number of modalities present).
    """

    def __init__(self, *, widths: Mapping[str, int], width: int, hidden: int | None = None, rngs: nnx.Rngs):
        """Build the layers.

        Args:
          widths: modality -> width D_m of its vector.
          width: the common width D.
          hidden: width of the hidden layer; None = 2 D.
          rngs: source of the initial values.

        Raises:
          UserError: a width below 1.
        """
        super().__init__(widths=widths, width=width, rngs=rngs)
        size = 2 * width if hidden is None else hidden
        if size < 1:
            raise UserError(f"config.model.fusion.hidden must be at least 1, got {hidden}")
        self.up = linear(len(widths) * width, size, dtype=jnp.float32, rngs=rngs)
        self.down = linear(size, width, dtype=jnp.float32, rngs=rngs)

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; nothing is random."""
        q, present = self.vectors(features)  # [B,M,D]
        count = jnp.maximum(jnp.sum(present, axis=1, dtype=jnp.float32), jnp.float32(1))
        together = rearrange(q, "b m d -> b (m d)") * (q.shape[1] / count)[:, None]
        return fused(self.down(jax.nn.gelu(self.up(together))), tokens=Tokens(q, present))


class AddFusion(Fusion):
    """Feature-level fusion by addition.

    z = (M / number of modalities present) * sum of the projected vectors q_m that a row has: the plain sum for a row
    with all M modalities.
    """

    def __init__(self, *, widths: Mapping[str, int], width: int, rngs: nnx.Rngs):
        """Build the projections; see `Fusion`."""
        super().__init__(widths=widths, width=width, rngs=rngs)

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; nothing is random."""
        q, present = self.vectors(features)
        return fused(q.shape[1] * mean_of_present(q, present=present), tokens=Tokens(q, present))


class AttentionFusion(Fusion):
    """Attention over modalities (attention-based multimodal fusion, Hori et al. 2017).

    z = sum_i alpha_i q_i with alpha = softmax_i(u . q_i / sqrt(D)) over the modalities that a row has; u is a learned
    query, q_i the projected vector of modality i.
    """

    def __init__(self, *, widths: Mapping[str, int], width: int, rngs: nnx.Rngs):
        """Build projections and query; see `Fusion`. The query starts at N(0, 1)."""
        super().__init__(widths=widths, width=width, rngs=rngs)
        self.query = nnx.Param(jax.random.normal(rngs.params(), (width,), jnp.float32))

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; nothing is random."""
        q, present = self.vectors(features)
        scores = jnp.einsum("bmd,d->bm", q, self.query[...]) / jnp.float32(math.sqrt(self.width))
        alpha = softmax_of_present(scores, present=present)
        return fused(jnp.einsum("bm,bmd->bd", alpha, q), tokens=Tokens(q, present))


class LateFusion(Fusion):
    """Late fusion: the weighted mean of the embeddings of a row's modalities (Snoek et al. 2005).

    z = sum_m w_m e_m, where e_m is the embedding of modality m in the joint space, of unit length, so the score of z
    with a text is the weighted mean of the modalities' cosines with it. The weights are equal over the modalities that
    a row has ("mean"), or a softmax over them of one learned number for each ("learned", equal at the start).
    """

    sees = "embeddings"

    def __init__(self, *, widths: Mapping[str, int], width: int, weights: str = "mean", rngs: nnx.Rngs):
        """Build the weights.

        Args:
          widths: modality -> E; all are `width`.
          width: E.
          weights: one of `LATE_WEIGHTS`.
          rngs: not used.

        Raises:
          UserError: an unknown name, or another width than that of the joint space.
        """
        del rngs
        if weights not in LATE_WEIGHTS:
            raise unknown("config.model.fusion.weights", weights, LATE_WEIGHTS)
        [size] = set(widths.values())
        if width != size:
            raise UserError(
                f"config.model.fusion.width={width}: late fusion averages embeddings and has the width of the joint "
                f"space, config.model.embed_dim={size}; leave config.model.fusion.width out"
            )
        self.modalities, self.width, self.dtype = tuple(widths), width, jnp.float32
        self.logits = nnx.Param(jnp.zeros((len(widths),), jnp.float32)) if weights == "learned" else None

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse; nothing is random."""
        present = jnp.stack([features[side].present for side in self.modalities], axis=1)
        rows = jnp.stack([self._embedding(features[side]) for side in self.modalities], axis=1)  # [B,M,E]
        scores = jnp.zeros(present.shape, jnp.float32)
        if self.logits is not None:
            scores = jnp.broadcast_to(self.logits[...][None], present.shape)
        weights = softmax_of_present(scores, present=present)
        return fused(jnp.einsum("bm,bme->be", weights, rows), tokens=Tokens(rows, present))

    def _embedding(self, features: Features) -> Array:
        assert features.vector is not None
        return unit_rows(chosen(features.present, features.vector))
