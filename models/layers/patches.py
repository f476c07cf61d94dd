"""From pixels to tokens."""

import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ...base.errors import UserError
from ..shapes import Video
from .basics import ACTIVATIONS, LayerNorm, linear


class PatchEmbedding(nnx.Module):
    """Embed tubelets of `tubelet` frames x `patch` x `patch` pixels (ViT, ViViT).

    With `stem`, each tubelet is first cut into cells of `stem` x `stem` pixels, embedded by one shared non-linear map,
    before the tubelet's own linear map: features that do not depend on where in the patch an edge lies make small
    towers learn much faster (early convolutions, Xiao et al. 2021, here without overlap).
    """

    def __init__(
        self,
        *,
        patch: int,
        tubelet: int,
        stem: int,
        width: int,
        activation: str,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        if stem and patch % stem:
            raise UserError(f"config.model.video.patch={patch} must be a multiple of stem={stem} (stem=0: none)")
        self.patch, self.tubelet, self.activation, self.dtype = patch, tubelet, activation, dtype
        self.cell = stem or patch
        pixels = tubelet * self.cell**2 * 3
        self.stem = linear(pixels, width // 2, dtype=dtype, rngs=rngs) if stem else None
        self.norm = LayerNorm(width // 2, dtype=dtype, rngs=rngs) if stem else None
        cells = (patch // self.cell) ** 2
        self.out = linear(cells * (width // 2) if stem else pixels, width, dtype=dtype, rngs=rngs)

    def __call__(self, video: Video) -> Float[Array, "B T N D"]:
        """Embed uint8 RGB 0..255, scaled to -1..1; T is the number of tubelets in time."""
        x = rearrange(
            video,
            "b (t u) (h i p) (w j q) c -> b t (h w) (i j) (u p q c)",
            u=self.tubelet,
            i=self.patch // self.cell,
            j=self.patch // self.cell,
            p=self.cell,
            q=self.cell,
        )
        x = x.astype(self.dtype) * jnp.asarray(2 / 255, self.dtype) - jnp.asarray(1, self.dtype)
        if self.stem is not None and self.norm is not None:
            x = ACTIVATIONS[self.activation](self.norm(self.stem(x)))  # [B,T,N,cells,D/2]
        return self.out(rearrange(x, "b t n k d -> b t n (k d)"))
