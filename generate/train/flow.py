"""The second stage: the velocity field, and the condition's own parameters, over latents of a frozen autoencoder."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ...models.layers.draws import fold, row_keys
from ...models.shapes import Scalar
from ..flow.path import draw_times, point_at, velocity_loss
from ..models.condition import Cue, either, without
from ..models.generator import Generator, GeneratorSpec, build_generator
from .autoencoder import weighted
from .options import LossOptions

_ROWS, _TIMES, _NOISE, _NOTHING, _CLIPS = range(5)  # numbers of the draws


class FlowObjective:
    """The objective of the second stage, for `engine.loop.train`.

    Attributes:
      trainable: regexes over parameter paths: the flow and the condition, without a tower that the latter holds.
    """

    trainable: tuple[str, ...] = ("^flow/", "^condition/(?!tower/)")

    def __init__(self, spec: GeneratorSpec, *, options: LossOptions, clips: float = 0.0):
        """Describe the model; nothing is allocated until `init`.

        Args:
          spec: of the generator.
          options: `config.loss`.
          clips: share of the rows whose condition is the embedding of the clip instead of its caption.
        """
        self.spec, self.options, self.clips = spec, options, clips

    def init(self, rngs: nnx.Rngs) -> Generator:
        """Build the generator; autoencoder, statistics of the latents and towers are filled in afterwards."""
        return build_generator(self.spec, rngs=rngs)

    def loss(self, model: Generator, batch: dict[str, Any], *, rngs: nnx.Rngs) -> tuple[Scalar, dict[str, jax.Array]]:
        """Return the mean square of the error of the velocities, over the valid rows, at one time of each clip."""
        key, rows = rngs(), batch["video"].shape[0]
        keys = [jax.random.fold_in(key, number) for number in range(5)]
        cue = self._cue(model, batch, key=keys[_CLIPS], rows_key=keys[_ROWS])
        dropped = jax.random.bernoulli(keys[_NOTHING], self.options.drop_condition, (rows,))
        cue = without(cue, nothing=model.condition.nothing[...], rows=dropped)
        options = self.options
        time = draw_times(keys[_TIMES], rows=rows, mean=options.time_mean, spread=options.time_spread)
        data = jax.lax.stop_gradient(model.latents(batch["video"]))
        noise = jax.random.normal(keys[_NOISE], data.shape, jnp.float32)
        found = model.velocity(point_at(noise, data, time=time), time=time, cue=cue)
        error = velocity_loss(found, noise=noise, data=data)
        return weighted(error, weights=batch["valid"].astype(jnp.float32)), {}

    def _cue(self, model: Generator, batch: dict[str, Any], *, key: jax.Array, rows_key: jax.Array) -> Cue:
        """Return the condition of each row: its caption or, for a share of the rows, its clip's own embedding."""
        rows = batch["text"].shape[0]
        keys = fold(row_keys(rows_key, rows=rows), 0)
        cue = model.condition.of_text(batch["text"], mask=batch["text_mask"], keys=keys)
        if not self.clips:
            return cue
        chosen = jax.random.bernoulli(key, self.clips, (rows,))
        return either(chosen, cue=model.condition.of_video(batch["video"]), other=cue)
