"""How a tower's vector gets into the joint space."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError, unknown
from .dense import Dense, linear
from .norm import LayerNorm


class NormedProjection(nnx.Module):
    """A LayerNorm, then a linear map with a bias."""

    def __init__(self, *, width: int, embed_dim: int, rngs: nnx.Rngs):
        """Build the map `[B,D] -> [B,E]`."""
        self.norm = LayerNorm(width, dtype=jnp.float32, rngs=rngs)
        self.out = linear(width, embed_dim, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B E"]:
        """Project rows, in float32."""
        return self.out(self.norm(x))


class ActivatedProjection(nnx.Module):
    """ReLU, then a linear map with a bias; or a linear map with a bias to E before both ("mlp")."""

    def __init__(self, *, width: int, embed_dim: int, hidden: bool, rngs: nnx.Rngs):
        """Build the map `[B,D] -> [B,E]`.

        Args:
          width: D.
          embed_dim: E.
          hidden: a linear map precedes ReLU.
          rngs: source of the initial values.
        """
        self.hidden = linear(width, embed_dim, dtype=jnp.float32, rngs=rngs) if hidden else None
        self.out = linear(embed_dim if hidden else width, embed_dim, dtype=jnp.float32, rngs=rngs)

    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B E"]:
        """Project rows, in float32."""
        x = x.astype(jnp.float32)
        return self.out(jax.nn.relu(x if self.hidden is None else self.hidden(x)))


Projection = Dense | NormedProjection | ActivatedProjection

PROJECTIONS = ("linear", "affine", "norm_affine", "relu_affine", "mlp", "none")
"""How a tower's vector gets into the joint space: a linear map (CLIP), with a bias (SigLIP's text), after a LayerNorm
(InternVideo2) or after ReLU (Frozen in Time's text), a hidden layer of width E with ReLU (CLAP), or as it is
(VideoPrism)."""


def make_projection(
    side: str, kinds: Mapping[str, str], *, width: int, embed_dim: int, rngs: nnx.Rngs
) -> Projection | None:
    """Build how one side gets into the joint space; None = as it is.

    Args:
      side: "video", "text", "audio" or "fusion".
      kinds: side -> one of `PROJECTIONS`; "linear" where nothing is said.
      width: D of its vectors.
      embed_dim: E.
      rngs: source of the initial values.

    Raises:
      UserError: an unknown kind, or "none" where the widths differ.
    """
    kind = kinds.get(side, "linear")
    if kind not in PROJECTIONS:
        raise unknown(f"config.model.projections.{side}", kind, PROJECTIONS)
    if kind == "none":
        if width != embed_dim:
            raise UserError(
                f"config.model.projections.{side}='none' needs a tower of width embed_dim={embed_dim}, got {width}"
            )
        return None
    if kind == "norm_affine":
        return NormedProjection(width=width, embed_dim=embed_dim, rngs=rngs)
    if kind in ("relu_affine", "mlp"):
        return ActivatedProjection(width=width, embed_dim=embed_dim, hidden=kind == "mlp", rngs=rngs)
    return linear(width, embed_dim, dtype=jnp.float32, bias=kind == "affine", rngs=rngs)
