"""Distillation: a map from the joint space of the model to that of its teacher."""

from typing import ClassVar

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..layers.dense import linear


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
