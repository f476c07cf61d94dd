"""Distillation: maps from the joint space of the model, or from its tokens, to those of its teacher."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.blocks import stacked
from ..layers.dense import linear
from ..layers.patches import PatchLayout


class TeacherProjection(nnx.Module):
    """A linear map from the joint space to a teacher's of another width (CLIP-KD, Yang et al. 2024, section 3.2).

    Embeddings of clips and of texts share it, as they share the space.

    Attributes:
      sees_words: False: it takes embeddings.
      width: of the teacher's joint space.
    """

    sees_words: ClassVar[bool] = False

    def __init__(self, *, embed_dim: int, width: int, rngs: nnx.Rngs):
        """Build the head.

        Args:
          embed_dim: E, of the model.
          width: of the teacher's joint space.
          rngs: source of the initial values.

        Raises:
          UserError: a width below 1.
        """
        if width < 1:
            raise UserError(f"config.model.heads.distillation.width must be at least 1, got {width}")
        self.width = width
        self.out = linear(embed_dim, width, dtype=jnp.float32, rngs=rngs)

    def __call__(self, embedding: Float[Array, "n E"]) -> Float[Array, "n F"]:
        """Map embeddings, float32; the result is not normalised."""
        return self.out(embedding)


class TokenProjections(nnx.Module):
    """A linear map of the patch tokens of each of several layers to a teacher's (UMT, Li et al. 2023, section 3.2).

    Attributes:
      sees_words: False: it takes tokens of clips.
      depth: layers k.
    """

    sees_words: ClassVar[bool] = False

    def __init__(self, *, layout: PatchLayout | None, width: int, layers: int = 1, rngs: nnx.Rngs):
        """Build the maps.

        Args:
          layout: of the video tower's patches; None = the tower cannot encode a part of them.
          width: F, of the teacher's tokens.
          layers: k.
          rngs: source of the initial values.

        Raises:
          UserError: a number below 1, or a tower without such patches.
        """
        if layout is None:
            raise UserError(
                "config.model.heads.distillation of the kind 'tokens' needs a video tower that can encode some patches "
                "without the others: 'joint', 'frames' with a ViT, or 'vivit' without conv"
            )
        if width < 1 or layers < 1:
            raise UserError(f"config.model.heads.distillation: width={width} and layers={layers} must be at least 1")
        self.depth = layers
        make = {"dtype": jnp.float32}
        self.layers = stacked(lambda r: linear(layout.width, width, **make, rngs=r), depth=layers, rngs=rngs)

    def __call__(self, tokens: Float[Array, "B T N k D"]) -> Float[Array, "B T N k F"]:
        """Map the tokens of each layer, float32."""
        kernel, bias = self.layers.kernel[...], self.layers.bias[...]
        made = jnp.einsum("btnkd,kdf->btnkf", tokens.astype(jnp.float32), kernel)
        return made + bias[None, None, None]
