"""Which T of a clip's n frames are used: samplers, drawn before any frame is decoded."""

from collections.abc import Callable
from typing import NamedTuple

from ...configs.errors import unknown
from ..tf_cpu import tf


class Drawn(NamedTuple):
    """What a sampler drew: frame indices int32 [T], and the index of the frame with which the time window starts."""

    frames: tf.Tensor
    window_start: tf.Tensor


Sampler = Callable[..., Drawn]


def sample_frames(name: str, *, num_available: tf.Tensor, num_frames: int, uniforms: tf.Tensor) -> Drawn:
    """Draw T frame indices of a clip, never falling in time.

    A clip of n <= T frames gives the same with every sampler: all its frames in order, repeated as evenly as possible.

    Args:
      name: a name of `SAMPLERS`.
      num_available: int32 scalar n, at least 1.
      num_frames: T.
      uniforms: float32 [T], random numbers in [0, 1); deterministic samplers ignore them.

    Raises:
      UserError: no such sampler.
    """
    sampler = SAMPLERS[check_sampler(name, field="sampling")]
    drawn = sampler(num_available, num_frames=num_frames, uniforms=uniforms)
    few = num_available <= num_frames
    spread = uniform(num_available, num_frames=num_frames, uniforms=uniforms)
    return Drawn(tf.where(few, spread.frames, drawn.frames), tf.where(few, spread.window_start, drawn.window_start))


def check_sampler(name: str, *, field: str) -> str:
    """Return `name`, a sampler's.

    Raises:
      UserError: there is none of that name; `field` is the config field that is named.
    """
    if name not in SAMPLERS:
        raise unknown(f"sampler in {field}:", name, SAMPLERS)
    return name


def uniform(n: tf.Tensor, *, num_frames: int, uniforms: tf.Tensor) -> Drawn:
    """Take the middle frame of each of T equal segments of the clip (TSN, arXiv:1608.00859, at test time)."""
    del uniforms
    twice = 2 * tf.range(num_frames, dtype=tf.int32) + 1
    return Drawn(twice * n // (2 * num_frames), tf.constant(0))  # floor((i + 1/2) n / T), in whole numbers


def uniform_jitter(n: tf.Tensor, *, num_frames: int, uniforms: tf.Tensor) -> Drawn:
    """Take a random frame of each of T equal segments of the clip (TSN, arXiv:1608.00859, in training)."""
    place = tf.range(num_frames, dtype=tf.float64) + tf.cast(uniforms, tf.float64)  # float32 would reach i + 1
    drawn = tf.cast(place * tf.cast(n, tf.float64) / num_frames, tf.int32)
    return Drawn(tf.minimum(drawn, n - 1), tf.constant(0))


def first(n: tf.Tensor, *, num_frames: int, uniforms: tf.Tensor) -> Drawn:
    """Take the first T frames, one after the other."""
    del n, uniforms
    return Drawn(tf.range(num_frames, dtype=tf.int32), tf.constant(0))


def middle(n: tf.Tensor, *, num_frames: int, uniforms: tf.Tensor) -> Drawn:
    """Take T frames, one after the other, from the middle of the clip."""
    del uniforms
    start = (n - num_frames) // 2
    return Drawn(start + tf.range(num_frames, dtype=tf.int32), start)


SAMPLERS: dict[str, Sampler] = {
    "uniform": uniform,
    "uniform_jitter": uniform_jitter,
    "first": first,
    "middle": middle,
}
RANDOM = {"uniform_jitter"}  # the samplers that use their random numbers
