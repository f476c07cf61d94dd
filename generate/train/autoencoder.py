"""The first stage: the autoencoder learns to paint single frames, if wanted against a critic."""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ...models.layers.dense import compute_dtype
from ...models.shapes import Scalar
from ..models.autoencoder import FrameAutoencoder, drawn_latents, kl_to_normal, signed
from ..models.critic import FrameCritic, critic_loss, maker_loss, unchanged
from ..models.generator import GeneratorSpec
from .options import LossOptions


class AutoencoderStage(nnx.Module):
    """What the first stage trains: the autoencoder, and a critic if the loss has one."""

    def __init__(self, spec: GeneratorSpec, *, critic: bool, rngs: nnx.Rngs):
        """Build both."""
        options = spec.autoencoder_options
        self.autoencoder = FrameAutoencoder(options, rngs=rngs)
        self.critic = FrameCritic(dtype=compute_dtype(options.dtype), rngs=rngs) if critic else None


class AutoencoderObjective:
    """The objective of the first stage, for `engine.loop.train`.

    Attributes:
      trainable: (): all is trained.
    """

    trainable: tuple[str, ...] = ()

    def __init__(self, spec: GeneratorSpec, *, options: LossOptions):
        """Describe the model; nothing is allocated until `init`."""
        self.spec, self.options = spec, options

    def init(self, rngs: nnx.Rngs) -> AutoencoderStage:
        """Build the model with fresh parameters."""
        return AutoencoderStage(self.spec, critic=self.options.adversarial > 0, rngs=rngs)

    def loss(
        self, model: AutoencoderStage, batch: dict[str, Any], *, rngs: nnx.Rngs
    ) -> tuple[Scalar, dict[str, jax.Array]]:
        """Return the loss of the frames of the valid rows of a batch, and its terms.

        It is the mean of |error| and of its square (frames -1..1), plus `kl` times the divergence of the latents. With
        a critic the frames are also paid by its score, with weight `adversarial`, and the critic by its own hinge loss:
        neither gets gradients of the other's loss, so that one step trains both.
        """
        video = batch["video"]
        frames = rearrange(video, "b t h w c -> (b t) h w c")
        weights = jnp.repeat(batch["valid"].astype(jnp.float32), video.shape[1])
        mean, logvar = model.autoencoder.encode(frames)
        made, wanted = model.autoencoder.decode(drawn_latents(mean, logvar, key=rngs())), signed(frames)
        error = made - wanted
        parts = {"reconstruction": jnp.abs(error) + jnp.square(error), "kl": kl_to_normal(mean, logvar)}
        if model.critic is not None:
            parts["adversarial"] = maker_loss(unchanged(model.critic)(made))
            parts["critic"] = critic_loss(model.critic(wanted), model.critic(jax.lax.stop_gradient(made)))
        terms = {name: weighted(_by_frame(part), weights=weights) for name, part in parts.items()}
        total = terms["reconstruction"] + self.options.kl * terms["kl"]
        if model.critic is not None:
            total = total + self.options.adversarial * terms["adversarial"] + terms["critic"]
        return total, terms


def weighted(values: Float[Array, "B"], *, weights: Float[Array, "B"]) -> Scalar:
    """Return the mean of values of rows, those that are not valid left out; 0 of no row."""
    return jnp.sum(values * weights) / jnp.maximum(jnp.sum(weights), 1.0)


def _by_frame(values: Float[Array, "B *rest"]) -> Float[Array, "B"]:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))
