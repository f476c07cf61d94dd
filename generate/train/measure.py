"""What is measured during training, and the statistics of the latents."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx

from ...encode.devices.rows import apply_to_rows, mesh_of, rounded_up
from ...engine.keeping.transfer import fill
from ...engine.sharding.mesh import make_mesh
from ...models.layers.draws import numbered_keys
from ..flow.path import point_at, velocity_loss
from ..models.autoencoder import AutoencoderOptions, FrameAutoencoder, signed
from ..models.generator import Generator
from .autoencoder import AutoencoderStage

Batches = Callable[[int], Iterator[dict[str, np.ndarray]]]
"""Rows of a global batch -> this process's batches of a split, each clip once."""
PER_ROW = Callable[[Any, dict[str, jax.Array]], dict[str, jax.Array]]
_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)


def mean_of_rows(model: nnx.Module, *, batches: Batches, batch_size: int, function: PER_ROW) -> dict[str, float]:
    """Return the means, over the valid rows of a split, of what a function gives for each row.

    Args:
      model: on the devices that it was trained on.
      batches: of the split; all processes must call.
      batch_size: rows of a global batch, rounded up to a multiple of the devices.
      function: (model, rows) -> arrays [B]; of a module, so that it compiles once.
    """
    mesh = mesh_of(model) or make_mesh()
    graph, state = nnx.split(model)
    sums: dict[str, float] = {}
    rows = 0.0
    for batch in batches(rounded_up(batch_size, mesh=mesh)):
        given = {key: batch[key] for key in ("video", "text", "text_mask", "valid")}
        given["clip_index"] = batch["clip_index"].astype(np.int32)
        found = apply_to_rows(graph, state, given, function=function, mesh=mesh)
        valid = found.pop("valid")
        rows += float(valid.sum())
        for name, values in found.items():
            sums[name] = sums.get(name, 0.0) + float((values * valid).sum())
    return {name: total / max(rows, 1.0) for name, total in sums.items()}


def painted(model: AutoencoderStage, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return by clip how well its frames are painted from the means of their latents: `psnr`, dB."""
    video = rows["video"]
    frames = rearrange(video, "b t h w c -> (b t) h w c")
    made = model.autoencoder.decode(model.autoencoder.encode(frames)[0])
    error = jnp.mean(jnp.square(jnp.clip(made, -1, 1) - signed(frames)), axis=(1, 2, 3))
    psnr = 10 * jnp.log10(4 / jnp.maximum(error, 1e-8))
    return {"psnr": psnr.reshape(video.shape[:2]).mean(axis=1), "valid": rows["valid"]}


def flow_error(model: Generator, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return by clip the mean error of the velocity at fixed times, with noise that depends on the clip alone."""
    cue = model.condition.of_text(rows["text"], mask=rows["text_mask"])
    data = model.latents(rows["video"])
    keys = numbered_keys(jax.random.key(0), numbers=rows["clip_index"])
    noise = jax.vmap(lambda key: jax.random.normal(key, data.shape[1:], jnp.float32))(keys)

    def error(at: jax.Array) -> jax.Array:
        time = jnp.full((len(data),), at)
        found = model.velocity(point_at(noise, data, time=time), time=time, cue=cue)
        return velocity_loss(found, noise=noise, data=data)

    errors = jax.lax.map(error, jnp.asarray(_TIMES, jnp.float32))  # one after another: one time in memory
    return {"velocity_error": jnp.mean(errors, axis=0), "valid": rows["valid"]}


def latent_statistics(
    params: Mapping[str, np.ndarray], *, options: AutoencoderOptions, videos: Iterator[np.ndarray]
) -> dict[str, np.ndarray]:
    """Measure mean and deviation of each channel of the latents, on this process's first device.

    Args:
      params: of the autoencoder, by path.
      options: its sizes.
      videos: uint8 [b,T,H,W,3].

    Returns:
      `latent_mean` and `latent_std`, float32 [C].
    """
    autoencoder = FrameAutoencoder(options, rngs=nnx.Rngs(0))
    fill(autoencoder, values=params)
    graph, state = nnx.split(autoencoder)
    encode = jax.jit(lambda frames: nnx.merge(graph, state).encode(frames)[0])
    found = [np.asarray(encode(rearrange(video, "b t h w c -> (b t) h w c")), np.float64) for video in videos]
    values = np.concatenate([one.reshape(-1, one.shape[-1]) for one in found])
    std = np.maximum(values.std(axis=0), 1e-3)  # a channel without content stays near 0
    return {"latent_mean": values.mean(axis=0).astype(np.float32), "latent_std": std.astype(np.float32)}
