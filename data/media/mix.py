"""Several channels of sound to one: the usual mono mix, except where the channels cancel each other out."""

import functools
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.filter import Graph

from ..options import SAMPLE_RATE

_CANCELS = 0.1  # power of the mix, as a share of what independent channels would give, below which they cancel (-10 dB)
_BLOCK_S = 0.25  # stretches that are judged one by one
_LEAST_S = 0.05  # shorter stretches are mixed as the one before: too short to tell
_FADE_S = 0.01  # from the gains of one stretch to those of the next
_HEARD = 8 / 32768  # a channel without any louder sample is silent, give or take the noise of rounding
_PROBE = 16384
_PLANES = 8  # channels whose planes PyAV hands out

CANCELLED = "channels of the sound cancel out in mono: one of them taken there"
OUTSIDE = "sound only in a channel that a mono mix leaves out: that channel taken there"


class Mixer:
    """Mixes the frames of one run of sound, all of one format, to mono.

    The mix is the one of libswresample (ITU-R BS.775 for surround). Where its power is more than 10 dB below that of
    independent channels, or only a channel that it leaves out (LFE) sounds, the loudest channel takes its place.

    Attributes:
      notes: `CANCELLED`, `OUTSIDE`: what was done, for the clip's notes.
    """

    def __init__(self, layout: str, *, channels: int):
        """Make the mixer.

        Args:
          layout: name of the channel layout.
          channels: their number C.
        """
        self.notes: set[str] = set()
        self._gains = mono_gains(layout, channels)
        self._last: np.ndarray | None = None  # gains of the stretch before

    def __call__(self, frame: Any) -> av.AudioFrame:
        """Return a frame of float samples in one channel."""
        samples = as_float(frame)
        rate = frame.sample_rate
        mixed = np.empty(samples.shape[1], np.float32)
        step = max(1, round(_BLOCK_S * rate))
        for begin in range(0, len(mixed), step):
            block = samples[:, begin : begin + step]
            if block.shape[1] >= _LEAST_S * rate:
                gains = self._choose(block)
            else:
                gains = self._gains if self._last is None else self._last
            mixed[begin : begin + step] = _faded(block, before=self._last, gains=gains, fade=round(_FADE_S * rate))
            self._last = gains
        out = av.AudioFrame.from_ndarray(mixed[None], format="fltp", layout="mono")
        out.sample_rate = rate
        return out

    def _choose(self, block: np.ndarray) -> np.ndarray:
        """Return the gains float32 [C] for a stretch float32 [C,n]."""
        power = np.mean(np.square(block), axis=1)
        mixed = self._gains @ block
        expected = float(np.square(self._gains) @ power)
        audible = np.abs(block).max(axis=1) > _HEARD
        in_mix = audible & (self._gains != 0)
        if in_mix.any():
            if float(np.mean(np.square(mixed))) >= _CANCELS * expected:
                return self._gains
            self.notes.add(CANCELLED)
        elif audible.any():
            self.notes.add(OUTSIDE)
        else:
            return self._gains
        loudest = int(np.argmax(power * (in_mix if in_mix.any() else 1)))
        taken = np.flatnonzero(self._gains if self._last is None else self._last)
        if len(taken) == 1 and power[taken[0]] >= power[loudest] / 2:
            loudest = int(taken[0])  # stay with a channel as long as it is loud enough
        return np.eye(len(power), dtype=np.float32)[loudest]


def as_float(frame: Any) -> np.ndarray:
    """Return the samples of a PyAV frame as float32 [C,n], full scale = 1."""
    if frame.format.is_planar and frame.layout.nb_channels > _PLANES:
        packer = av.AudioResampler(format="flt", layout=frame.layout.name, rate=frame.sample_rate)
        [frame] = packer.resample(frame)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)


@functools.lru_cache(32)
def mono_gains(layout: str, channels: int) -> np.ndarray:
    """Return the gain of each channel in the mono mix, float32 [C], sum 1.

    These are the gains of libswresample. A channel to which it gives none, such as those above the listener, gets the
    smallest of the others, unless it is an LFE channel. Channels without a known order ("3 channels") weigh the same.
    """
    equal = np.full(channels, 1 / channels, np.float32)
    if channels == 1 or layout.endswith(" channels"):
        return equal
    found = _probe(layout, channels)
    if not found.any():
        return equal
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    left_out = (found == 0) & np.array([not name.startswith("LFE") for name in names])
    found[left_out] = found[found > 0].min()
    return found / found.sum()


def _probe(layout: str, channels: int) -> np.ndarray:
    """Return what libswresample makes of a sample that is in one channel alone, for each channel, float32 [C]."""
    samples = np.eye(channels, dtype=np.int16) * _PROBE
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
    frame.sample_rate = SAMPLE_RATE
    graph = Graph()
    graph.threads = 1
    form = {"sample_rate": str(SAMPLE_RATE), "sample_fmt": "s16", "channel_layout": layout}
    source = graph.add("abuffer", **form, time_base=f"1/{SAMPLE_RATE}")
    target = graph.add("aformat", sample_fmts="s16", channel_layouts="mono")
    sink = graph.add("abuffersink")
    source.link_to(target)
    target.link_to(sink)
    try:
        graph.configure()
        graph.push(frame)
        mixed = graph.pull().to_ndarray().reshape(-1)
    except FFmpegError:  # there is no mix of these channels
        return np.zeros(channels, np.float32)
    return mixed.astype(np.float32) / _PROBE


def _faded(block: np.ndarray, *, before: np.ndarray | None, gains: np.ndarray, fade: int) -> np.ndarray:
    """Mix float32 [C,n] to [n] with `gains`, reached from `before` within the first `fade` samples."""
    mixed = gains @ block
    if before is not None and (before != gains).any():
        ramp = np.minimum(np.arange(1, block.shape[1] + 1, dtype=np.float32) / max(fade, 1), 1)
        mixed = ramp * mixed + (1 - ramp) * (before @ block)
    return mixed
