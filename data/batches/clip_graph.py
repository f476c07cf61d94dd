"""The tensorflow graph of a clip: frames drawn, then decoded and transformed; sound cut to its length."""

import dataclasses
from collections.abc import Callable

from ...configs.errors import UserError
from ..options import ClipData
from ..tf_cpu import tf
from ..transforms.preprocess import VideoTransform, parse_video
from .sampling import RANDOM, Drawn, check_sampler, sample_frames


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipGraph:
    """How a clip becomes arrays; built and checked before any data is read.

    Attributes:
      transform: of the pixels.
      sampling: name of the sampler of frames.
      num_frames: T.
      audio_samples: S; 0 for none.
    """

    transform: VideoTransform
    sampling: str
    num_frames: int
    audio_samples: int

    @classmethod
    def of(cls, data: ClipData, *, train: bool) -> "ClipGraph":
        """Build from the `train_*` or `eval_*` options.

        Raises:
          UserError: an option is wrong, or evaluation would be random.
        """
        which = "train" if train else "eval"
        declared, sampling = (data.train_video, data.train_sampling) if train else (data.eval_video, data.eval_sampling)
        field = f"config.data.{which}_video"
        graph = cls(
            transform=parse_video(declared, field=field),
            sampling=check_sampler(sampling, field=f"config.data.{which}_sampling"),
            num_frames=data.num_frames,
            audio_samples=data.audio_samples,
        )
        if data.num_frames < 1 or data.audio_seconds < 0:
            raise UserError(
                f"num_frames={data.num_frames} must be at least 1 and audio_seconds={data.audio_seconds} at least 0; "
                "set config.data.num_frames and config.data.audio_seconds"
            )
        if data.num_threads < 0 or data.prefetch < 0:
            raise UserError(
                f"num_threads={data.num_threads} and prefetch={data.prefetch} must be at least 0; "
                "set config.data.num_threads and config.data.prefetch"
            )
        if not train and graph.transform.draws:
            raise UserError(
                f"{field}={declared!r} is random, which an evaluation must not be; use resize and center_crop"
            )
        if not train and sampling in RANDOM:
            raise UserError(f"config.data.eval_sampling={sampling!r} is random; set it to 'uniform'")
        return graph

    @property
    def draws(self) -> int:
        """How many uniform random numbers a clip takes: T for the frames, one for the caption, the transform's."""
        return self.num_frames + 1 + self.transform.draws

    def choose_caption(self, uniforms: tf.Tensor, *, count: tf.Tensor) -> tf.Tensor:
        """Return the number of the caption, int32 in [0, count), or -1 if there is none."""
        drawn = tf.cast(uniforms[self.num_frames] * tf.cast(count, tf.float32), tf.int32)
        return tf.minimum(drawn, count - 1)

    def draw(self, *, num_available: tf.Tensor, uniforms: tf.Tensor) -> Drawn:
        """Draw the T frames of a clip that has `num_available` (int32 scalar)."""
        return sample_frames(
            self.sampling,
            num_available=num_available,
            num_frames=self.num_frames,
            uniforms=uniforms[: self.num_frames],
        )

    def pixels(self, jpegs: tf.Tensor, *, height: tf.Tensor, width: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """Return uint8 [T,H,W,3] of the drawn JPEG files, string [T], of `height` x `width` pixels (int32 scalars)."""
        # One node per frame: a loop inside the graph would cost more than it saves, T is small.
        frames = tf.unstack(jpegs, num=self.num_frames)
        return self.transform(frames, height=height, width=width, uniforms=uniforms[self.num_frames + 1 :])

    def sound(self, raw: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return `audio` int16 [S], zeros where `raw` (little-endian int16) ends sooner, and `audio_mask` bool."""
        samples = tf.io.decode_raw(raw, tf.int16)[: self.audio_samples]
        padded = tf.pad(samples, [[0, self.audio_samples - tf.size(samples)]])
        return {"audio": tf.ensure_shape(padded, [self.audio_samples]), "audio_mask": tf.size(samples) > 0}

    def frames_function(self) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
        """Return the graph (JPEGs string [n], height, width int32) -> uint8 [T,H,W,3] of a deterministic transform."""

        def frames(jpegs: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
            uniforms = tf.zeros([self.draws])
            drawn = self.draw(num_available=tf.size(jpegs), uniforms=uniforms)
            return self.pixels(tf.gather(jpegs, drawn.frames), height=height, width=width, uniforms=uniforms)

        side = tf.TensorSpec([], tf.int32)
        return tf.function(frames, input_signature=[tf.TensorSpec([None], tf.string), side, side])


def uniforms_of(*, seed: int, epoch: tf.Tensor, record: tf.Tensor, count: int) -> tf.Tensor:
    """Return float32 [count] in [0, 1): the random numbers of a record in an epoch of a run.

    Args:
      seed: of the run, 0 to 2**31 - 1.
      epoch: int64 scalar.
      record: int64 scalar.
      count: how many.
    """
    key = tf.stack([tf.constant(seed << 32, tf.int64) + epoch, record])
    return tf.random.stateless_uniform([count], seed=key, alg="philox")
