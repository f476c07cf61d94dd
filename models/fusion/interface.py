"""What every fusion takes and returns; masks for modalities that a row lacks.

A missing modality is masked, not replaced by zeros: sums, means and softmaxes run over the modalities that a row has.
The result of a row never depends on the arrays of a modality that it lacks, NaN included, and neither do gradients.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from ..layers.dense import linear
from ..layers.draws import RowKeys
from ..layers.pooling import masked_mean

_HIDDEN = -1e30  # score of a modality that is not there


class Features(NamedTuple):
    """What a fusion sees of one modality; `Fusion.sees` tells whether that is `vector` or `tokens`.

    Attributes:
      present: bool `[B]`, True where a row has the modality.
      vector: float `[B,D_m]`, one vector per row.
      tokens: float `[B,N_m,D_m]`.
      mask: bool `[B,N_m]`, True where a token is real; None = all are.
    """

    present: Bool[Array, "B"]
    vector: Float[Array, "B D"] | None = None
    tokens: Float[Array, "B N D"] | None = None
    mask: Bool[Array, "B N"] | None = None


class Fused(NamedTuple):
    """What a fusion returns.

    Attributes:
      vector: float32 `[B,D]`; zeros for a row that has none of the modalities.
      tokens: `[B,N,D]` for heads; zeros where `mask` is False.
      mask: bool `[B,N]`, True where a token is real.
      losses: name -> float32 `[B]`, what the fusion adds to the loss of each row ("kl"); often empty.
    """

    vector: Float[Array, "B D"]
    tokens: Float[Array, "B N D"]
    mask: Bool[Array, "B N"]
    losses: dict[str, Float[Array, "B"]]


class Tokens(NamedTuple):
    """Tokens of one modality or of several, projected to the common width.

    Attributes:
      x: `[B,N,D]`, zeros where `mask` is False.
      mask: bool `[B,N]`.
    """

    x: Float[Array, "B N D"]
    mask: Bool[Array, "B N"]

    @property
    def present(self) -> Bool[Array, "B"]:
        """Tell which rows have at least one real token."""
        return jnp.any(self.mask, axis=1)

    def mean(self) -> Float[Array, "B D"]:
        """Average the real tokens of each row, float32; zeros where there are none."""
        return masked_mean(self.x, mask=self.mask)


class Fusion(nnx.Module):
    """A fusion of modalities: a linear map of each modality to a common width, and what a subclass does with them.

    Attributes:
      sees: "vectors" (each tower's vector), "tokens" (its tokens) or "embeddings" (its vector in the joint space).
    """

    sees: ClassVar[str] = "vectors"

    def __init__(self, *, widths: Mapping[str, int], width: int, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        """Build the projections.

        Args:
          widths: modality -> width D_m of its features, in the order in which they are fused.
          width: the common width D.
          dtype: compute dtype of tokens; vectors are float32.
          rngs: source of the initial values.

        Raises:
          UserError: a width below 1.
        """
        if width < 1:
            raise UserError(f"config.model.fusion.width must be at least 1, got {width}")
        self.modalities, self.width, self.dtype = tuple(widths), width, dtype
        self.inputs = nnx.Dict({side: linear(size, width, dtype=dtype, rngs=rngs) for side, size in widths.items()})

    def __call__(self, features: Mapping[str, Features], *, keys: RowKeys | None = None) -> Fused:
        """Fuse the features of all modalities; `keys`, one per row, turns on what is random in training."""
        raise NotImplementedError

    def vectors(self, features: Mapping[str, Features]) -> tuple[Float[Array, "B M D"], Bool[Array, "B M"]]:
        """Project the vector of each modality; zeros where a row lacks it."""
        rows, present = [], []
        for side in self.modalities:
            vector, there = features[side].vector, features[side].present
            assert vector is not None, side
            rows.append(chosen(there, self.inputs[side](chosen(there, vector.astype(jnp.float32)))))
            present.append(there)
        return jnp.stack(rows, axis=1), jnp.stack(present, axis=1)

    def sequences(self, features: Mapping[str, Features]) -> dict[str, Tokens]:
        """Project the tokens of each modality; zeros where they are not real or a row lacks the modality."""
        made = {}
        for side in self.modalities:
            x, mask, there = features[side].tokens, features[side].mask, features[side].present[:, None]
            assert x is not None, side
            real = jnp.broadcast_to(there, x.shape[:2]) if mask is None else mask & there
            made[side] = Tokens(chosen(real, self.inputs[side](chosen(real, x.astype(self.dtype)))), real)
        return made


def chosen(there: Bool[Array, "*B"], x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """Return `x` where it is there and zeros elsewhere, whatever stands there; the gradient of the rest is 0."""
    return jnp.where(there[..., None], x, jnp.zeros((), x.dtype))


def joined(parts: Sequence[Tokens]) -> Tokens:
    """Concatenate sequences along their tokens."""
    return Tokens(jnp.concatenate([part.x for part in parts], 1), jnp.concatenate([part.mask for part in parts], 1))


def mean_of_present(rows: Float[Array, "B M D"], *, present: Bool[Array, "B M"]) -> Float[Array, "B D"]:
    """Average over the modalities that a row has, float32; zeros where it has none."""
    return masked_mean(rows, mask=present)


def softmax_of_present(scores: Float[Array, "*B M"], *, present: Bool[Array, "*B M"]) -> Float[Array, "*B M"]:
    """Softmax over the modalities that a row has, float32; zeros for all others."""
    weights = jax.nn.softmax(jnp.where(present, scores.astype(jnp.float32), jnp.float32(_HIDDEN)), axis=-1)
    return jnp.where(present, weights, jnp.float32(0))


def fused(
    vector: Float[Array, "B D"], *, tokens: Tokens, losses: Mapping[str, Float[Array, "B"]] | None = None
) -> Fused:
    """Return the result of a fusion, with zeros for rows without any real token."""
    there = tokens.present
    zero = jnp.float32(0)
    terms = {name: jnp.where(there, value, zero) for name, value in (losses or {}).items()}
    return Fused(chosen(there, vector.astype(jnp.float32)), chosen(tokens.mask, tokens.x), tokens.mask, terms)
