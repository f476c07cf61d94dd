"""The tensorflow graph from one serialized record to the pixels and the sound of a batch row."""

import dataclasses
from collections.abc import Callable

from ..configs.errors import UserError
from .options import ClipData
from .preprocess import VideoTransform, parse_video
from .records import parse_example
from .sampling import RANDOM, check_sampler, sample_frames
from .tf_cpu import tf

SAMPLE_RATE = 16_000  # Hz, of the sound in the records


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
            audio_samples=round(SAMPLE_RATE * data.audio_seconds),
        )
        if data.num_frames < 1 or data.audio_seconds < 0:
            raise UserError(
                f"num_frames={data.num_frames} must be at least 1 and audio_seconds={data.audio_seconds} at least 0; "
                "set config.data.num_frames and config.data.audio_seconds"
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

    def row(
        self, serialized: tf.Tensor, *, uniforms: tf.Tensor, order: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Return `video` uint8 [T,H,W,3] and, with sound, `audio` int16 [S], `audio_mask` bool of a record.

        Args:
          serialized: string scalar.
          uniforms: float32 [draws], random numbers in [0, 1).
          order: int32 [T], a permutation of the drawn frames; None leaves them in order.
        """
        parsed = parse_example(serialized)
        jpegs, start = self._draw(parsed["frames"], uniforms=uniforms, order=order)
        made = {"video": self._pixels(jpegs, height=parsed["height"], width=parsed["width"], uniforms=uniforms)}
        if self.audio_samples:
            sound = tf.io.decode_raw(parsed["audio"], tf.int16)
            start = tf.cast(tf.round(parsed["timestamps_s"][start] * SAMPLE_RATE), tf.int32)
            sound = sound[start : start + self.audio_samples]
            made["audio"] = tf.ensure_shape(
                tf.pad(sound, [[0, self.audio_samples - tf.size(sound)]]), [self.audio_samples]
            )
            made["audio_mask"] = parsed["has_audio"] & (tf.size(sound) > 0)
        return made

    def drawn_jpegs(self, serialized: tf.Tensor, *, uniforms: tf.Tensor) -> tf.Tensor:
        """Return the JPEG files, string [T], that `row` would decode."""
        return self._draw(parse_example(serialized)["frames"], uniforms=uniforms, order=None)[0]

    def frames_function(self) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
        """Return the graph (JPEGs string [n], height, width int32) -> uint8 [T,H,W,3] of a deterministic transform."""

        def frames(jpegs: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
            uniforms = tf.zeros([self.draws])
            drawn, _ = self._draw(jpegs, uniforms=uniforms, order=None)
            return self._pixels(drawn, height=height, width=width, uniforms=uniforms)

        side = tf.TensorSpec([], tf.int32)
        return tf.function(frames, input_signature=[tf.TensorSpec([None], tf.string), side, side])

    def _draw(self, jpegs: tf.Tensor, *, uniforms: tf.Tensor, order: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the T drawn JPEGs, and the index of the frame with which the time window starts."""
        drawn = sample_frames(
            self.sampling,
            num_available=tf.size(jpegs),
            num_frames=self.num_frames,
            uniforms=uniforms[: self.num_frames],
        )
        indices = drawn.frames if order is None else tf.gather(drawn.frames, order)
        return tf.gather(jpegs, indices), drawn.window_start

    def _pixels(self, jpegs: tf.Tensor, *, height: tf.Tensor, width: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        # One node per frame: a loop inside the graph would cost more than it saves, T is small.
        frames = tf.unstack(jpegs, num=self.num_frames)
        return self.transform(frames, height=height, width=width, uniforms=uniforms[self.num_frames + 1 :])


def uniforms_of(*, seed: int, epoch: tf.Tensor, record: tf.Tensor, count: int) -> tf.Tensor:
    """Return float32 [count] in [0, 1): the random numbers of a record in an epoch of a run.

    Args:
      seed: of the run, 0 to 2**31 - 1.
      epoch: int64 scalar.
      record: int64 scalar.
      count: how many; the first ones do not depend on it.
    """
    key = tf.stack([tf.constant(seed << 32, tf.int64) + epoch, record])
    return tf.random.stateless_uniform([count], seed=key, alg="philox")
