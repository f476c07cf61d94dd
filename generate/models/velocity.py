"""The velocity field of a rectified flow over the latents of all frames of a clip.

Sources: diffusion transformers with adaptive norms that start as the identity (adaLN-Zero), Peebles & Xie 2023
(arXiv:2212.09748); cross-attention to a sequence of condition tokens, Chen et al. 2023 (PixArt, arXiv:2310.00426); a
network that predicts the data, of which the velocity follows, Li & He 2025 (arXiv:2511.13720).
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Bool, Float

from ...base.errors import UserError
from ...models.layers.attention import Attention, AttentionInputs
from ...models.layers.blocks import stacked
from ...models.layers.dense import compute_dtype, linear
from ...models.layers.mlp import Mlp
from ...models.layers.options import BlockOptions
from ...models.layers.positions import sinusoids
from ...models.layers.remat import rematerialised

_LEAST = 0.05  # of the way that is left: nearer to the data the error of a prediction would be magnified
_RATES = 128  # sines, and as many cosines, that the time is turned into
_SHORTEST = 10_000.0  # ratio of the longest to the shortest wavelength of them


@dataclasses.dataclass(frozen=True, kw_only=True)
class VelocityOptions:
    """`config.flow`: sizes of `VelocityField`.

    Attributes:
      width: D, a multiple of 4.
      depth: blocks.
      heads: attention heads K; they divide D.
      mlp_ratio: hidden width of the MLPs / D.
      patch: frames, rows and columns of the latent grid that make one token.
      remat: what the backward pass computes again, a policy of `models.layers.remat`.
      unroll: blocks in one turn of the loop over them; 0 = all, no loop.
      dtype: compute dtype, float32 or bfloat16; velocities are float32.
    """

    width: int = 256
    depth: int = 6
    heads: int = 4
    mlp_ratio: float = 4.0
    patch: tuple[int, int, int] = (1, 2, 2)
    remat: str = "none"
    unroll: int = 1
    dtype: str = "float32"

    def __post_init__(self):
        object.__setattr__(self, "patch", tuple(int(side) for side in self.patch))
        if len(self.patch) != 3 or min(self.patch) < 1:
            raise UserError(f"config.flow.patch must be frames, rows and columns of at least 1, got {self.patch}")
        if self.width % 4:
            raise UserError(f"config.flow.width={self.width} must be a multiple of 4, for positions in space")
        if self.depth < 1:
            raise UserError(f"config.flow.depth must be at least 1, got {self.depth}")
        self.block()

    def block(self) -> BlockOptions:
        """Return the options of the attention layers and MLPs."""
        given = {"width": self.width, "heads": self.heads, "mlp_ratio": self.mlp_ratio}
        given |= {"remat": self.remat, "unroll": self.unroll}
        return BlockOptions(tower="flow", dtype=compute_dtype(self.dtype), qk_norm="head", **given)

    def tokens(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the tokens along each axis of latents of `shape`, [T,h,w].

        Raises:
          UserError: a patch that does not divide the latents.
        """
        if any(whole % side for whole, side in zip(shape, self.patch, strict=True)):
            raise UserError(
                f"config.flow.patch={self.patch} must divide the latents of a clip, {shape[0]} frames of {shape[1]} x "
                f"{shape[2]} places (config.data.num_frames, config.autoencoder)"
            )
        t, h, w = (whole // side for whole, side in zip(shape, self.patch, strict=True))
        return t, h, w


class VelocityField(nnx.Module):
    """Noisy latents, time and condition to velocities.

    The transformer predicts the data x at the end of the path; the velocity is `(x - point) / (1 - time)`. Clips fill a
    small part of the space of all latents, and noise fills all of it: a token as wide as the network could not carry
    the noise of its patch, which a prediction of the velocity itself would have to.
    """

    def __init__(
        self,
        options: VelocityOptions,
        *,
        shape: tuple[int, int, int, int],
        context_width: int,
        rngs: nnx.Rngs,
    ):
        """Build the network.

        Args:
          options: sizes.
          shape: of a clip's latents, [T,h,w,C].
          context_width: channels of the condition's tokens and of its vector.
          rngs: source of the initial values.
        """
        block = options.block()
        self.options, self.shape, dtype = options, shape, block.dtype
        t, h, w = self.grid = options.tokens(shape[:3])
        width, values = options.width, shape[3] * math.prod(options.patch)
        self.patches = linear(values, width, dtype=dtype, rngs=rngs)
        places = sinusoids(t, width=width)[:, None] + sinusoids(h, w, width=width)[None]
        self.position = nnx.Param(jnp.asarray(places.reshape(-1, width), jnp.float32))
        self.time = linear(2 * _RATES, width, dtype=dtype, rngs=rngs)
        self.summary = linear(context_width, width, dtype=dtype, rngs=rngs)
        self.mixed = linear(width, width, dtype=dtype, rngs=rngs)
        make = lambda r: _Block(block, context_width=context_width, rngs=r)  # noqa: E731
        self.layers = stacked(make, depth=options.depth, rngs=rngs)
        self.last = _Modulation(width, parts=2, dtype=dtype, rngs=rngs)
        self.out = nnx.Linear(
            width, values, dtype=jnp.float32, param_dtype=jnp.float32, rngs=rngs,
            kernel_init=nnx.initializers.zeros_init(),
        )  # fmt: skip

    def __call__(
        self,
        latents: Float[Array, "B T h w C"],
        *,
        time: Float[Array, "B"],
        tokens: Float[Array, "B M E"],
        mask: Bool[Array, "B M"],
        vector: Float[Array, "B E"],
    ) -> Float[Array, "B T h w C"]:
        """Return the velocity at points of the flow, float32.

        Args:
          latents: the points.
          time: 0 = noise, 1 = data.
          tokens: of the condition.
          mask: True where a token is real.
          vector: the condition as one vector.
        """
        t, h, w = self.options.patch
        how = {"t": t, "h": h, "w": w}
        cut = "b (T t) (H h) (W w) c -> b (T H W) (t h w c)"
        x = self.patches(rearrange(latents, cut, **how).astype(self.options.block().dtype))
        x = x + self.position[...].astype(x.dtype)[None]
        state = jax.nn.silu(self.mixed(jax.nn.silu(self.time(waves(time)) + self.summary(vector))))
        graph, params = nnx.split(self.layers)

        def layer(x: Array, params: nnx.State) -> tuple[Array, None]:
            return nnx.merge(graph, params)(x, state=state, tokens=tokens, mask=mask), None

        unroll = min(self.options.unroll or self.options.depth, self.options.depth)
        body = rematerialised(layer, policy=self.options.remat, looped=unroll < self.options.depth)
        x, _ = jax.lax.scan(body, x, params, unroll=unroll)
        scale, shift = self.last(state)
        y = self.out((_standard(x) * (1 + scale) + shift).astype(jnp.float32))
        steps, rows, columns = self.grid
        back = "b (T H W) (t h w c) -> b (T t) (H h) (W w) c"
        data = rearrange(y, back, T=steps, H=rows, W=columns, **how)
        return (data - latents) / jnp.maximum(1 - time, _LEAST)[:, None, None, None, None]


class _Block(nnx.Module):
    """A transformer block whose norms and branches a state of the clip scales, shifts and weighs."""

    def __init__(self, options: BlockOptions, *, context_width: int, rngs: nnx.Rngs):
        self.modulation = _Modulation(options.width, parts=6, dtype=options.dtype, rngs=rngs)
        self.attention = Attention(options, rngs=rngs)
        self.norm = options.make_norm(rngs=rngs)
        self.cross = Attention(options, context_width=context_width, rngs=rngs)
        self.mlp = Mlp(options, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        *,
        state: Float[Array, "B D"],
        tokens: Float[Array, "B M E"],
        mask: Bool[Array, "B M"],
    ) -> Float[Array, "B N D"]:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(state)
        x = x + gate1 * self.attention(_standard(x) * (1 + scale1) + shift1)
        keys, values = self.cross.context(tokens.astype(x.dtype))
        x = x + self.cross.cross(self.norm(x), keys=keys, values=values, inputs=AttentionInputs(mask=mask))
        return x + gate2 * self.mlp(_standard(x) * (1 + scale2) + shift2)


class _Modulation(nnx.Module):
    """Scales, shifts and gates `[B,1,D]` from a state; all start as zero (Peebles & Xie 2023, adaLN-Zero)."""

    def __init__(self, width: int, *, parts: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.parts = parts
        self.dense = linear(width, parts * width, dtype=dtype, rngs=rngs)
        self.dense.kernel[...] = jnp.zeros_like(self.dense.kernel[...])

    def __call__(self, state: Float[Array, "B D"]) -> list[Float[Array, "B 1 D"]]:
        return jnp.split(self.dense(state)[:, None], self.parts, axis=-1)


def _standard(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """LayerNorm (Ba et al. 2016) without parameters, in float32."""
    y = jax.nn.standardize(x.astype(jnp.float32), axis=-1, epsilon=1e-6)
    return y.astype(x.dtype)


def waves(time: Float[Array, "B"]) -> Float[Array, "B F"]:
    """Return sines and cosines of times 0..1, float32: wavelengths from 1/1000 to 10 (Vaswani et al. 2017)."""
    rates = 1000.0 * _SHORTEST ** (-np.arange(_RATES) / _RATES)
    angles = time[:, None] * jnp.asarray(rates, jnp.float32)[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
