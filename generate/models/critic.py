"""A critic of frames, for the adversarial loss of the autoencoder.

Source: a convolutional network that judges patches, Isola et al. 2017 (PatchGAN, arXiv:1611.07004); hinge loss, Lim &
Ye 2017 (arXiv:1705.02894).
"""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .autoencoder import conv

_WIDTHS = (32, 64, 128)


class FrameCritic(nnx.Module):
    """Frames to scores of their patches: high = looks real."""

    def __init__(self, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        """Build the network: convolutions of stride 2, leaky ReLU, no norms."""
        widths = (3, *_WIDTHS)
        self.layers = nnx.List(
            [conv(a, b, side=4, stride=2, dtype=dtype, rngs=rngs) for a, b in itertools.pairwise(widths)]
        )
        self.out = conv(widths[-1], 1, side=3, dtype=dtype, rngs=rngs)

    def __call__(self, frames: Float[Array, "B H W 3"]) -> Float[Array, "B h w"]:
        """Judge frames -1..1; float32."""
        x = frames
        for layer in self.layers:
            x = jax.nn.leaky_relu(layer(x), 0.2)
        return self.out(x)[..., 0].astype(jnp.float32)


def critic_loss(real: Float[Array, "*B"], made: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Return of each patch the hinge loss of a critic by its scores of a real frame and of the one that was made."""
    return jax.nn.relu(1 - real) + jax.nn.relu(1 + made)


def maker_loss(made: Float[Array, "*B"]) -> Float[Array, "*B"]:
    """Return of each patch the loss of what made the frames by the critic's scores of them."""
    return -made


def unchanged(module: nnx.Module) -> nnx.Module:
    """Return the module with parameters that get no gradient; its input still does."""
    graph, state = nnx.split(module)
    return nnx.merge(graph, jax.lax.stop_gradient(state))
