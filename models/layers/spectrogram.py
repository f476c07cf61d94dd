"""Log-mel spectrograms of int16 sound and SpecAugment, on the device: pure functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int16

_FLOOR = 1e-6  # power under the logarithm; full scale is 1


@functools.lru_cache(maxsize=16)
def mel_filters(*, sample_rate: int, fft: int, mels: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return triangular mel filters, float64 `[fft // 2 + 1, F]`, on the HTK scale, m = 2595 log10(1 + f / 700).

    Centres and edges are evenly spaced in mel; each triangle reaches 1 at its centre (no normalisation by area).

    Args:
      sample_rate: Hz.
      fft: length of the transform, samples.
      mels: number of filters F.
      low_hz: lower edge of the first filter.
      high_hz: upper edge of the last.
    """
    low, high = (2595 * np.log10(1 + f / 700) for f in (low_hz, high_hz))
    edges = 700 * (10 ** (np.linspace(low, high, mels + 2) / 2595) - 1)
    bins = np.arange(fft // 2 + 1)[:, None] * sample_rate / fft
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))


def log_mel(
    audio: Int16[Array, "b S"],
    *,
    sample_rate: int = 16_000,
    window: int = 400,
    hop: int = 160,
    fft: int = 512,
    mels: int = 80,
    low_hz: float = 20.0,
    high_hz: float = 8000.0,
) -> Float[Array, "b frames F"]:
    """Compute log-mel spectrograms.

    Frames lie wholly within the sound: there are `1 + (S - window) // hop`. Each is weighted with a periodic Hann
    window; the power of its Fourier transform goes through `mel_filters`.

    Args:
      audio: int16 `[b,S]`, full scale 32768.
      sample_rate: Hz.
      window: samples of a frame, at most `fft` and S.
      hop: samples from frame to frame.
      fft: length of the transform.
      mels: mel bins F.
      low_hz: lower edge of the first filter.
      high_hz: upper edge of the last, at most half the sample rate.

    Returns:
      float32 `[b,frames,F]`: natural logarithms of power, at least log(1e-6).

    Raises:
      ValueError: sizes that do not fit.
    """
    if not 0 < window <= min(fft, audio.shape[1]) or hop < 1 or not 0 <= low_hz < high_hz <= sample_rate / 2:
        raise ValueError(
            f"window={window} must be at most fft={fft} and the {audio.shape[1]} samples, hop={hop} at least 1 and "
            f"0 <= low_hz={low_hz} < high_hz={high_hz} <= {sample_rate / 2}"
        )
    frames = 1 + (audio.shape[1] - window) // hop
    places = np.arange(frames)[:, None] * hop + np.arange(window)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    pieces = audio.astype(jnp.float32)[:, places] / jnp.float32(32768.0)  # [b,frames,window]
    spectrum = jnp.fft.rfft(pieces * jnp.asarray(hann, jnp.float32)[None, None], n=fft)  # [b,frames,fft/2+1]
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    filters = mel_filters(sample_rate=sample_rate, fft=fft, mels=mels, low_hz=low_hz, high_hz=high_hz)
    mel = jnp.matmul(power, jnp.asarray(filters, jnp.float32), precision=jax.lax.Precision.HIGHEST)  # [b,frames,F]
    return jnp.log(jnp.maximum(mel, jnp.float32(_FLOOR)))


def spec_augment(
    key: jax.Array,
    *,
    mel: Float[Array, "b frames F"],
    time_masks: int = 2,
    time_width: int = 40,
    mel_masks: int = 2,
    mel_width: int = 15,
) -> Float[Array, "b frames F"]:
    """Mask stretches of time and bands of frequency (SpecAugment, arXiv:1904.08779, section 2), without warping.

    The width of each mask is uniform in 0 ... `*_width`, its place uniform among those that fit; each row of the batch
    draws its own. Masked values become the mean of the row.

    Args:
      key: of the random numbers.
      mel: float32 `[b,frames,F]`.
      time_masks: masks along time.
      time_width: the widest, frames; at most all of them.
      mel_masks: masks along frequency.
      mel_width: the widest, mel bins.
    """
    by_time, by_mel = jax.random.split(key)
    rows, frames, bins = mel.shape
    time = _masks(by_time, rows=rows, size=frames, count=time_masks, width=time_width)  # [b,frames]
    band = _masks(by_mel, rows=rows, size=bins, count=mel_masks, width=mel_width)  # [b,F]
    mean = jnp.mean(mel, axis=(1, 2), keepdims=True)
    return jnp.where(time[:, :, None] | band[:, None, :], mean, mel)


def _masks(key: jax.Array, *, rows: int, size: int, count: int, width: int) -> jax.Array:
    """Return bool [rows,size], True within any of `count` masks."""
    for_width, for_place = jax.random.split(key)
    widths = jax.random.randint(for_width, (rows, count, 1), 0, min(width, size) + 1)
    share = jax.random.uniform(for_place, (rows, count, 1))
    room = (size + 1 - widths).astype(jnp.float32)
    starts = jnp.minimum(jnp.floor(share * room).astype(jnp.int32), size - widths)
    places = jnp.arange(size)[None, None]
    return jnp.any((places >= starts) & (places < starts + widths), axis=1)
