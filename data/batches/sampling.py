"""Which T of a clip's frames are used: time windows and samplers, drawn before any frame is decoded. No tensorflow.

The same code draws for training, evaluation and `encode`. Times are seconds from the clip's start; the frame "at" a
time is the one on display then. A sampler that spans the clip uses every stored frame of a clip that has no more than
T; the frames shown longest are repeated to make T.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from ...base.errors import UserError
from ..transforms.declare import parse

_SLACK_S = 1e-4  # stamps are float32: a frame that begins this late is still at its time


class Drawn(NamedTuple):
    """What was drawn: frame indices int64 [T], never falling, and the window in seconds that they stand for."""

    frames: np.ndarray
    start_s: float
    end_s: float


class Sampler(Protocol):
    """Draws T frames; its arguments are its fields.

    Attributes:
      random: whether it uses its random numbers.
    """

    random: bool

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw from frames that begin at `times` float64 [n], with T numbers in [0, 1)."""
        ...


@dataclasses.dataclass(frozen=True)
class Uniform:
    """The frame at the middle of each of T equal segments (TSN, arXiv:1608.00859, at test time).

    Of a clip with at most T frames every frame is used, even one that is on display between two middles.
    """

    random = False

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw."""
        del uniforms
        middles = (np.arange(num_frames) + 0.5) * (duration_s / num_frames)
        frames = _at(times, middles)
        return Drawn(_each_once(frames, count=len(times)) if len(times) <= num_frames else frames, 0.0, duration_s)


@dataclasses.dataclass(frozen=True)
class SegmentStarts:
    """Frame `int(i * n / T)` of a clip's n, i = 0 ... T - 1, by number and not by time (VideoPrism).

    Of a clip of fewer than T frames some are used several times.
    """

    random = False

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw."""
        del uniforms
        return Drawn(np.linspace(0, len(times), num_frames, endpoint=False).astype(np.int64), 0.0, duration_s)


@dataclasses.dataclass(frozen=True)
class SegmentMiddles:
    """The middle frame, by number, of each of T parts of a clip's n frames (InternVideo2); the earlier one of two.

    Part i begins at frame `int(i * n / T)`. A clip of fewer than T frames is used whole, its last frame repeated.
    """

    random = False

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw."""
        del uniforms
        edges = np.linspace(0, len(times), min(num_frames, len(times)) + 1).astype(np.int64)
        frames = (edges[:-1] + edges[1:] - 1) // 2
        return Drawn(np.pad(frames, (0, num_frames - len(frames)), mode="edge"), 0.0, duration_s)


@dataclasses.dataclass(frozen=True)
class Strides:
    """Frame `i * (n // T)` of a clip's n frames, by number (ViCLIP); the end of the clip may be left out.

    A clip of fewer than T frames is used whole, its last frame repeated; ViCLIP's own code refuses it.
    """

    random = False

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw."""
        del uniforms
        frames = np.arange(num_frames) * max(len(times) // num_frames, 1)
        return Drawn(np.minimum(frames, len(times) - 1), 0.0, duration_s)


@dataclasses.dataclass(frozen=True)
class Endpoints:
    """Frame `int(i * (n - 1) / (T - 1))` of a clip's n frames, by number: first and last are used (PE-core)."""

    random = False

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw."""
        del uniforms
        frames = np.arange(num_frames) * (len(times) - 1) // max(num_frames - 1, 1)
        return Drawn(frames, 0.0, duration_s)


@dataclasses.dataclass(frozen=True)
class UniformJitter:
    """The frame at a random time of each of T equal segments (TSN, arXiv:1608.00859, in training)."""

    random = True

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw."""
        if len(times) <= num_frames:  # jitter would only drop some of the few frames
            return Uniform()(times, duration_s=duration_s, num_frames=num_frames, uniforms=uniforms)
        within = (np.arange(num_frames) + uniforms.astype(np.float64)) * (duration_s / num_frames)
        return Drawn(_at(times, within, slack=0.0), 0.0, duration_s)


@dataclasses.dataclass(frozen=True)
class Dense:
    """T frames of the record, `stride` apart, from a random place.

    Attributes:
      place: share of the room that is left before the first frame; None = at random.
    """

    stride: int = 1
    place: ClassVar[float | None] = None
    random: ClassVar[bool] = True

    def __post_init__(self):
        if isinstance(self.stride, int) and self.stride < 1:
            raise ValueError(f"stride must be at least 1, got {self.stride}")

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw; from a clip with too few frames for that, draw as `Uniform` does."""
        span = (num_frames - 1) * self.stride + 1
        room = len(times) - span
        if room < 0:
            return Uniform()(times, duration_s=duration_s, num_frames=num_frames, uniforms=uniforms)
        first = min(int(float(uniforms[0]) * (room + 1)), room) if self.place is None else int(self.place * room)
        frames = first + self.stride * np.arange(num_frames)
        after = frames[-1] + 1
        begin = float(times[first]) if first else 0.0
        return Drawn(frames, begin, float(times[after]) if after < len(times) else duration_s)


@dataclasses.dataclass(frozen=True)
class First(Dense):
    """The first T frames, `stride` apart."""

    place = 0.0
    random = False


@dataclasses.dataclass(frozen=True)
class Middle(Dense):
    """T frames, `stride` apart, from the middle."""

    place = 0.5
    random = False


@dataclasses.dataclass(frozen=True)
class Fps:
    """T frames at `rate` per second, by time, from a random one; after the end of a shorter clip its last frame stays.

    Attributes:
      place: share of the room that is left before the window; None = at random.
    """

    rate: float
    place: ClassVar[float | None] = None
    random: ClassVar[bool] = True

    def __post_init__(self):
        if isinstance(self.rate, (int, float)) and not 0 < self.rate <= 1000:
            raise ValueError(f"rate must be above 0 and at most 1000 frames per second, got {self.rate}")

    def __call__(self, times: np.ndarray, *, duration_s: float, num_frames: int, uniforms: np.ndarray) -> Drawn:
        """Draw: the frame at the middle of each 1/rate of the window."""
        span = num_frames / self.rate
        place = float(uniforms[0]) if self.place is None else self.place
        begin = place * max(duration_s - span, 0.0)
        frames = _at(times, begin + (np.arange(num_frames) + 0.5) / self.rate)
        return Drawn(frames, begin, min(begin + span, duration_s))


@dataclasses.dataclass(frozen=True)
class FpsFirst(Fps):
    """T frames at `rate` per second, from the clip's start."""

    place = 0.0
    random = False


@dataclasses.dataclass(frozen=True)
class FpsMiddle(Fps):
    """T frames at `rate` per second, from the clip's middle."""

    place = 0.5
    random = False


SAMPLERS: dict[str, type] = {
    "uniform": Uniform,
    "segment_starts": SegmentStarts,
    "segment_middles": SegmentMiddles,
    "strides": Strides,
    "endpoints": Endpoints,
    "uniform_jitter": UniformJitter,
    "dense": Dense,
    "first": First,
    "middle": Middle,
    "fps": Fps,
    "fps_first": FpsFirst,
    "fps_middle": FpsMiddle,
}


def parse_sampler(declared: str, *, field: str) -> Sampler:
    """Parse a sampler such as `"uniform"`, `"dense(2)"` or `"fps(4)"`.

    Args:
      declared: one of `SAMPLERS`, with its arguments.
      field: the config field that holds the string, named in errors.

    Raises:
      UserError: an unknown name, or arguments that do not fit.
    """
    made: list[Any] = parse(declared, table=SAMPLERS, field=field)
    if len(made) != 1:
        raise UserError(f"{field}={declared!r} must name one sampler; known: {', '.join(SAMPLERS)}")
    return made[0]


def window_of(*, duration_s: float, seconds: float, place: float) -> tuple[float, float]:
    """Return start and end of a window of `seconds` (0 or more than there are = all) at `place` 0 ... 1 of the room."""
    if not 0 < seconds < duration_s:
        return 0.0, duration_s
    start = place * (duration_s - seconds)
    return start, start + seconds


def crop_within(window: tuple[float, float], *, seconds: float, place: float) -> tuple[float, float]:
    """Return start and end of `seconds` within a window, at `place` 0 ... 1 of the room; at most all of the window."""
    start, end = window_of(duration_s=window[1] - window[0], seconds=seconds, place=place)
    return window[0] + start, window[0] + end


def sample_window(
    sampler: Sampler,
    *,
    times: np.ndarray,
    window: tuple[float, float],
    num_frames: int,
    uniforms: np.ndarray,
) -> Drawn:
    """Draw T frames of those that are on display within a window.

    Args:
      sampler: from `parse_sampler`.
      times: float [n], when each frame of the clip begins, rising from about 0; n at least 1.
      window: start and end in seconds.
      num_frames: T.
      uniforms: float32 [T], random numbers in [0, 1); a sampler that is not random ignores them.
    """
    start, end = window
    times = np.asarray(times, np.float64)
    low, high = frames_within(times, window=window)
    inner = np.maximum(times[low:high] - start, 0.0)
    drawn = sampler(inner, duration_s=end - start, num_frames=num_frames, uniforms=uniforms)
    return Drawn(drawn.frames + low, start + drawn.start_s, start + drawn.end_s)


def frames_within(times: np.ndarray, *, window: tuple[float, float]) -> tuple[int, int]:
    """Return the first frame on display within a window, and the one after the last."""
    times = np.asarray(times, np.float64)
    low = int(_at(times, np.array([window[0]]))[0])
    return low, max(low + 1, int(np.searchsorted(times, window[1] - _SLACK_S, side="left")))


def _each_once(frames: np.ndarray, *, count: int) -> np.ndarray:
    """Give every frame of a clip a place: those drawn most often give way to those that were not drawn.

    Args:
      frames: drawn indices, int64 [T].
      count: number of frames of the clip, at most T.
    """
    places = np.maximum(np.bincount(frames, minlength=count), 1)
    while places.sum() > len(frames):
        places[np.argmax(places)] -= 1
    return np.repeat(np.arange(count), places)


def _at(times: np.ndarray, wanted: np.ndarray, *, slack: float = _SLACK_S) -> np.ndarray:
    """Index int64 [m] of the frame on display at each of the times `wanted` [m]; the first one before it begins."""
    return np.maximum(np.searchsorted(times, wanted + slack, side="right") - 1, 0)
