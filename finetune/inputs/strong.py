"""A strongly changed view of the clips of a batch, on the device: pixels, or the tokens of a frozen tower."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key


def strong_view(x: Array, *, key: Key[Array, ""], strength: float) -> Array:
    """Change each row at random.

    Of pixels: brightness and contrast of the whole clip, and a grey box in the same place of all frames (Cutout,
    DeVries & Taylor 2017). Of tokens: noise in proportion to their spread, and features that are dropped. Neither the
    order of time nor left and right change, as labels may depend on them.

    Args:
      x: uint8 clips `[B,T,H,W,3]`, or tokens `[B,T,D]`.
      key: of the step.
      strength: 0 (nothing changes) to 1.

    Returns:
      The same shape and dtype.
    """
    return _pixels(x, key=key, strength=strength) if x.dtype == jnp.uint8 else _tokens(x, key=key, strength=strength)


def _tokens(x: Array, *, key: Key[Array, ""], strength: float) -> Array:
    noise, drop = jax.random.split(key)
    spread = jnp.std(x.astype(jnp.float32), axis=(1, 2), keepdims=True)
    noisy = x.astype(jnp.float32) + jnp.float32(strength) * spread * jax.random.normal(noise, x.shape, jnp.float32)
    rate = 0.6 * strength
    kept = jax.random.bernoulli(drop, 1 - rate, (x.shape[0], 1, x.shape[2]))
    return jnp.where(kept, noisy / jnp.float32(1 - rate), jnp.float32(0)).astype(x.dtype)


def _pixels(x: Array, *, key: Key[Array, ""], strength: float) -> Array:
    rows, height, width = x.shape[0], x.shape[2], x.shape[3]
    light, contrast, place = jax.random.split(key, 3)
    drawn = jax.random.uniform(jax.random.fold_in(light, 0), (rows, 1, 1, 1, 1), jnp.float32, -1, 1)
    other = jax.random.uniform(contrast, (rows, 1, 1, 1, 1), jnp.float32, -1, 1)
    pixels = x.astype(jnp.float32)
    mean = jnp.mean(pixels, axis=(1, 2, 3, 4), keepdims=True)
    changed = mean + (pixels - mean) * (1 + jnp.float32(0.5 * strength) * other) + jnp.float32(64 * strength) * drawn
    inside = jnp.ones((rows, height, width), bool)
    for axis, side in enumerate((height, width)):
        begin = jax.random.uniform(jax.random.fold_in(place, axis), (rows, 1), jnp.float32) * (1 - 0.5 * strength)
        at = (jnp.arange(side, dtype=jnp.float32)[None] + 0.5) / side
        within = (at >= begin) & (at < begin + jnp.float32(0.5 * strength))
        inside = inside & jnp.expand_dims(within, 2 - axis)
    boxed = jnp.where(inside[:, None, :, :, None], jnp.float32(127), changed)
    return jnp.clip(jnp.round(boxed), 0, 255).astype(jnp.uint8)
