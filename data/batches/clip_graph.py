"""How a clip becomes arrays: its frames drawn, then decoded and transformed, in NumPy. No tensorflow."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from ...base.errors import UserError
from ..options import SAMPLE_RATE, DataOptions
from ..transforms.preprocess import VideoTransform, parse_video
from ..transforms.sound import SoundTransform, parse_audio
from .sampling import Drawn, Sampler, frames_within, parse_sampler, sample_window, window_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipGraph:
    """How a clip becomes arrays; built and checked before any data is read.

    Attributes:
      transform: of the pixels.
      sound: of the sound's samples.
      sampler: of the frames.
      num_frames: T; 0 for batches without video.
      audio_samples: S; 0 for none.
      mask_frames: each frame that was drawn stands once, in its order; the last one fills up what is left of T.
      windows: V, windows of a clip, evenly spread if they are several.
      window_seconds: length of a window; 0 = the whole clip.
      train: whether windows, frames and pixels are drawn at random.
    """

    transform: VideoTransform
    sound: SoundTransform
    sampler: Sampler
    num_frames: int
    audio_samples: int
    mask_frames: bool
    windows: int
    window_seconds: float
    train: bool

    @classmethod
    def of(cls, data: DataOptions, *, train: bool) -> "ClipGraph":
        """Build from the `train_*` or `eval_*` options.

        Raises:
          UserError: an option is wrong, or evaluation would be random.
        """
        if data.input.audio_samples and data.input.audio_rate != SAMPLE_RATE:
            raise UserError(
                f"config.data.audio_rate={data.input.audio_rate}, but records hold sound of {SAMPLE_RATE} Hz; set "
                f"config.data.audio_rate={SAMPLE_RATE} (a tower of a higher rate takes it, too), or encode files"
            )
        which = "train" if train else "eval"
        declared, sampling = data.input.eval_video, data.input.eval_sampling
        if train:
            declared, sampling = data.augment.train_video or declared, data.augment.train_sampling or sampling
        field = f"config.data.{which}_video"
        graph = cls(
            transform=parse_video(declared, field=field),
            sound=parse_audio(data.augment.train_audio if train else "", field="config.data.train_audio"),
            sampler=parse_sampler(sampling, field=f"config.data.{which}_sampling"),
            num_frames=data.input.num_frames,
            audio_samples=data.input.audio_samples,
            mask_frames=data.input.mask_frames,
            windows=data.feed.train_clips if train else data.feed.eval_clips,
            window_seconds=data.feed.window_seconds,
            train=train,
        )
        if train and graph.transform.views > 1:
            raise UserError(f"{field}={declared!r} makes several views, which are for evaluation; use random_crop(n)")
        if not train and graph.transform.draws:
            raise UserError(
                f"{field}={declared!r} is random, which an evaluation must not be; use resize and center_crop"
            )
        if not train and graph.sampler.random:
            raise UserError(f"config.data.eval_sampling={sampling!r} is random; set it to 'uniform'")
        return graph

    @property
    def draws(self) -> int:
        """How many uniform random numbers a clip takes: T for the frames, one for the window, the transforms'."""
        return self.num_frames + 1 + self.transform.draws + self.sound.draws

    def draw(self, *, times: np.ndarray, duration_s: float, uniforms: np.ndarray) -> Drawn:
        """Draw the frames of a clip.

        Args:
          times: float [n], when each frame of the clip begins, seconds.
          duration_s: length of the clip in seconds.
          uniforms: float32 [draws], random numbers in [0, 1).

        Returns:
          int64 [V*T] indices, and the time from the start of the first window to the end of the last, in seconds.
        """
        parts = self.draw_windows(times=times, duration_s=duration_s, uniforms=uniforms)
        return Drawn(np.concatenate([part.frames for part in parts]), parts[0].start_s, parts[-1].end_s)

    def draw_windows(self, *, times: np.ndarray, duration_s: float, uniforms: np.ndarray) -> list[Drawn]:
        """Draw the frames of each of the V windows; see `draw` for the arguments."""
        return [
            self._draw_window(times, window=window, uniforms=uniforms)
            for window in self.windows_of(duration_s, uniform=float(uniforms[self.num_frames]))
        ]

    def _draw_window(self, times: np.ndarray, *, window: tuple[float, float], uniforms: np.ndarray) -> Drawn:
        """Draw T frames, then move them as the transform's operations in time say, within the window."""
        own, moving = uniforms[: self.num_frames], uniforms[self.num_frames + 1 :]
        drawn = sample_window(self.sampler, times=times, window=window, num_frames=self.num_frames, uniforms=own)
        low, high = frames_within(times, window=window)
        moved = self.transform.times(drawn.frames - low, num_available=high - low, uniforms=moving)
        return drawn._replace(frames=(_once(moved) if self.mask_frames else moved) + low)

    def real_frames(self, frames: np.ndarray) -> np.ndarray:
        """Tell which of the drawn frames are real and which only fill up a view, with `mask_frames`.

        Args:
          frames: int [V*T], of `draw`.

        Returns:
          bool of the leading axes of `shape`, `[T]` or `[V,T]`.
        """
        frames = frames.reshape(self.windows, self.num_frames)
        real = np.diff(frames, axis=1, prepend=-1) != 0
        return np.tile(real, (self.transform.views, 1)).reshape(self.shape[:-3])

    def windows_of(self, duration_s: float, *, uniform: float) -> list[tuple[float, float]]:
        """Return start and end of the V windows of a clip, in seconds; `uniform` places a single one of training."""
        if self.windows == 1:
            place = uniform if self.train else 0.5
            return [window_of(duration_s=duration_s, seconds=self.window_seconds, place=place)]
        seconds = self.window_seconds if 0 < self.window_seconds < duration_s else duration_s / self.windows
        places = [v / (self.windows - 1) for v in range(self.windows)]
        return [window_of(duration_s=duration_s, seconds=seconds, place=place) for place in places]

    def decode(
        self, encoded: Sequence[bytes], *, height: int, width: int, uniforms: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Decode and transform the drawn frames of a clip.

        Args:
          encoded: V*T frames, each as `Record.frames` returns it.
          height: of the pictures, pixels.
          width: likewise.
          uniforms: float32 [draws], those with which the frames were drawn.
          out: where the result goes, uint8 [*shape], contiguous; None = a new array.

        Returns:
          uint8 [T,H,W,3]; with V windows, or views, [V,T,H,W,3].

        Raises:
          ValueError: a frame is damaged or has another size.
        """
        out = np.empty(self.shape, np.uint8) if out is None else out
        size = {"height": height, "width": width}
        into = out.reshape(self.transform.shape(len(encoded)))
        self.transform(encoded, **size, uniforms=uniforms[self.num_frames + 1 :], out=into)
        return out

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a clip's video; the views, and within them the windows, share one axis."""
        views = self.windows * self.transform.views
        several = (views,) if views > 1 else ()
        return (*several, self.num_frames, self.transform.height, self.transform.width, 3)


def _once(frames: np.ndarray) -> np.ndarray:
    """Keep the first of equal frames, in their order, and fill up with the last."""
    kept = frames[np.sort(np.unique(frames, return_index=True)[1])]
    return np.pad(kept, (0, len(frames) - len(kept)), mode="edge")
