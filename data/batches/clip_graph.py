"""How a clip becomes arrays: its frames drawn in NumPy, then decoded and transformed in a tensorflow graph."""

import dataclasses
from collections.abc import Callable

import numpy as np

from ...configs.errors import UserError
from ..options import ClipData
from ..tf_cpu import tf
from ..transforms.preprocess import VideoTransform, parse_video
from .sampling import Drawn, Sampler, parse_sampler, sample_window, window_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipGraph:
    """How a clip becomes arrays; built and checked before any data is read.

    Attributes:
      transform: of the pixels.
      sampler: of the frames.
      num_frames: T; 0 for batches without video.
      audio_samples: S; 0 for none.
      windows: V, windows of a clip; above 1 for evaluation only.
      window_seconds: length of a window; 0 = the whole clip.
      train: whether windows, frames and pixels are drawn at random.
    """

    transform: VideoTransform
    sampler: Sampler
    num_frames: int
    audio_samples: int
    windows: int
    window_seconds: float
    train: bool

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
            sampler=parse_sampler(sampling, field=f"config.data.{which}_sampling"),
            num_frames=data.num_frames,
            audio_samples=data.audio_samples,
            windows=1 if train else data.eval_clips,
            window_seconds=data.window_seconds,
            train=train,
        )
        for name, least in (
            *(("num_frames", 0), ("audio_seconds", 0), ("window_seconds", 0), ("eval_clips", 1)),
            *(("num_threads", 0), ("prefetch", 0), ("max_bad_fraction", 0)),
        ):
            if getattr(data, name) < least:
                raise UserError(f"{name}={getattr(data, name)} must be at least {least}; set config.data.{name}")
        if not train and graph.transform.draws:
            raise UserError(
                f"{field}={declared!r} is random, which an evaluation must not be; use resize and center_crop"
            )
        if not train and graph.sampler.random:
            raise UserError(f"config.data.eval_sampling={sampling!r} is random; set it to 'uniform'")
        return graph

    @property
    def draws(self) -> int:
        """How many uniform random numbers a clip takes: T for the frames, one for the window, the transform's."""
        return self.num_frames + 1 + self.transform.draws

    def draw(self, *, times: np.ndarray, duration_s: float, uniforms: np.ndarray) -> Drawn:
        """Draw the frames of a clip.

        Args:
          times: float [n], when each frame of the clip begins, seconds.
          duration_s: length of the clip in seconds.
          uniforms: float32 [draws], random numbers in [0, 1).

        Returns:
          int64 [V*T] indices, and the first window in seconds.
        """
        parts = [
            sample_window(
                self.sampler,
                times=times,
                window=window,
                num_frames=self.num_frames,
                uniforms=uniforms[: self.num_frames],
            )
            for window in self.windows_of(duration_s, uniform=float(uniforms[self.num_frames]))
        ]
        return Drawn(np.concatenate([part.frames for part in parts]), parts[0].start_s, parts[0].end_s)

    def windows_of(self, duration_s: float, *, uniform: float) -> list[tuple[float, float]]:
        """Return start and end of the V windows of a clip, in seconds; `uniform` places the one of training."""
        if self.windows == 1:
            place = uniform if self.train else 0.5
            return [window_of(duration_s=duration_s, seconds=self.window_seconds, place=place)]
        seconds = self.window_seconds if 0 < self.window_seconds < duration_s else duration_s / self.windows
        places = [v / (self.windows - 1) for v in range(self.windows)]
        return [window_of(duration_s=duration_s, seconds=seconds, place=place) for place in places]

    def pixels(self, jpegs: tf.Tensor, *, height: tf.Tensor, width: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """Return uint8 [T,H,W,3] of the drawn JPEG files, string [T], of `height` x `width` pixels (int32 scalars).

        With V windows: string [V*T] to [V,T,H,W,3].
        """
        # One node per frame: a loop inside the graph would cost more than it saves, T is small.
        frames = tf.unstack(jpegs, num=self.windows * self.num_frames)
        video = self.transform(frames, height=height, width=width, uniforms=uniforms[self.num_frames + 1 :])
        return tf.reshape(video, self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a clip's video."""
        several = (self.windows,) if self.windows > 1 else ()
        return (*several, self.num_frames, self.transform.height, self.transform.width, 3)

    def frames_function(self) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
        """Return the graph (drawn JPEGs string [V*T], height, width int32) -> uint8 of a deterministic transform."""

        def frames(jpegs: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
            return self.pixels(jpegs, height=height, width=width, uniforms=tf.zeros([self.draws]))

        side = tf.TensorSpec([], tf.int32)
        return tf.function(frames, input_signature=[tf.TensorSpec([None], tf.string), side, side])
