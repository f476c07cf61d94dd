"""Render the moving shapes of the demo data set and its tones, in numpy only, as pure functions of their arguments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int16, UInt8

SAMPLE_RATE = 16_000  # Hz

COLOURS = {  # sRGB, chosen far apart after 4:2:0 chroma subsampling
    "red": (225, 30, 35),
    "orange": (250, 140, 15),
    "yellow": (245, 235, 50),
    "green": (35, 175, 55),
    "cyan": (60, 220, 230),
    "blue": (45, 75, 240),
    "purple": (140, 50, 225),
    "pink": (255, 105, 200),
    "brown": (150, 85, 35),
    "grey": (145, 145, 150),
    "white": (245, 245, 245),
}
RADII = {"small": 0.16, "large": 0.26}  # of the picture's side
TEXTURES = ("plain", "striped", "dotted")
MOTIONS = ("slides left", "slides right", "falls", "rises", "turns", "grows", "shrinks", "fades")
PITCHES = {"low": (220.0, 440.0), "high": (1200.0, 2400.0)}  # Hz, the lower and the upper end of a glide
TONE_MOTIONS = ("rises", "falls", "beeps", "stays")

_DIRECTIONS = {"slides left": (-1, 0), "slides right": (1, 0), "falls": (0, 1), "rises": (0, -1)}  # x right, y down
_SCALES = {"grows": (0.35, 1.2), "shrinks": (1.2, 0.3)}
_TEXTURE_PERIOD = 0.11  # of the picture's side
_DARKENING = 0.75  # of the colour's light, in stripes and dots
_RIM = 0.02  # of the picture's side: the outline stays free of stripes and dots, so that the shape stays visible


@dataclass(frozen=True, kw_only=True)
class Event:
    """One shape that does one thing for `frames` frames; `seed` determines place, speed and shade."""

    shape: str
    colour: str
    size: str
    texture: str
    motion: str
    frames: int
    seed: int

    @property
    def attributes(self) -> tuple[str, str, str, str, str]:
        """The attributes that captions mention: size, texture, colour, shape, motion."""
        return (self.size, self.texture, self.colour, self.shape, self.motion)


@dataclass(frozen=True, kw_only=True)
class Tone:
    """The sound of a clip: `pitch` of `PITCHES`, `motion` of `TONE_MOTIONS`; `seed` detunes it a little."""

    pitch: str
    motion: str
    seed: int


def render_clip(events: Sequence[Event], *, size: int, seed: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw the events one after another on one background.

    Args:
      events: in their order in time.
      size: side of the square picture in pixels.
      seed: determines the background.

    Returns:
      RGB frames, T the sum of the events' frames.
    """
    return np.concatenate([_render_event(event, size=size, seed=seed) for event in events])


def render_tone(tone: Tone, *, seconds: float) -> Int16[np.ndarray, " S"]:
    """Synthesise the tone for `seconds` at 16 kHz: a glide over an octave, beeps (four a second), or a steady note."""
    rng = np.random.default_rng(tone.seed)
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE  # [S], seconds
    low, high = np.multiply(PITCHES[tone.pitch], rng.uniform(0.94, 1.06))
    start, stop = {"rises": (low, high), "falls": (high, low)}.get(tone.motion, (np.sqrt(low * high),) * 2)
    cycles = start * t + (stop - start) * t**2 / (2 * seconds)
    wave = np.sin((2 * np.pi * (cycles - np.floor(cycles))).astype(np.float32))
    gain = np.clip(np.minimum(t, seconds - t) / 0.02, 0, 1)  # 20 ms ramps: no clicks at the ends
    if tone.motion == "beeps":
        gain *= np.clip((np.sin(2 * np.pi * 4 * t) + 0.1) * 8, 0, 1)
    return np.round(0.35 * 32767 * gain * wave).astype(np.int16)


def _background(*, size: int, seed: int) -> Float32[np.ndarray, "H W 3"]:
    """Return a nearly grey slope with a little fixed grain, in 0..255."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(-1, 1, size, dtype=np.float32)] * 2)
    angle = rng.uniform(0, 2 * np.pi)
    slope = rng.uniform(4, 14) * (x * np.cos(angle) + y * np.sin(angle))
    grain = np.kron(rng.normal(0, 2.5, (size // 4 + 1,) * 2), np.ones((4, 4)))[:size, :size]
    shade = rng.uniform(40, 85) + rng.uniform(-8, 8, 3)  # [3]
    return np.clip(shade + (slope + grain)[..., None], 0, 255).astype(np.float32)


def _render_event(event: Event, *, size: int, seed: int) -> UInt8[np.ndarray, "n H W 3"]:
    rng = np.random.default_rng(event.seed)
    x, y, radius, angle, opacity = _path(event, size=size, rng=rng)  # each [n]
    colour = np.asarray(COLOURS[event.colour], np.float32) * np.float32(rng.uniform(0.92, 1.0))
    background = _background(size=size, seed=seed)
    frames = np.repeat((background + 0.5).astype(np.uint8)[None], event.frames, axis=0)

    # Draw in a window just large enough for the whole path; star and triangle reach furthest (1.3 radii).
    reach = 1.3 * radius.max() + 2
    left, top = (max(int(c.min() - reach), 0) for c in (x, y))
    right, bottom = (min(int(c.max() + reach) + 1, size) for c in (x, y))
    px = np.arange(left, right, dtype=np.float32)[None, None, :] + np.float32(0.5)
    py = np.arange(top, bottom, dtype=np.float32)[None, :, None] + np.float32(0.5)
    dx, dy = px - x[:, None, None], py - y[:, None, None]  # [n,1,w] [n,h,1]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = cos * dx + sin * dy, cos * dy - sin * dx  # [n,h,w], pixels in the shape's own axes

    inside = 0.5 - SHAPES[event.shape](u, v, radius[:, None, None])
    cover = np.clip(inside, 0, 1) * opacity[:, None, None]
    lit = cover
    if event.texture != "plain":
        dark = np.clip(inside - np.float32(_RIM * size), 0, 1) * _PATTERNS[event.texture](u, v, _TEXTURE_PERIOD * size)
        lit = cover * (1 - np.float32(_DARKENING) * dark)
    for channel in range(3):
        behind = background[top:bottom, left:right, channel] + np.float32(0.5)
        frames[:, top:bottom, left:right, channel] = behind * (1 - cover) + colour[channel] * lit
    return frames


def _path(event: Event, *, size: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return x, y, radius (pixels), angle (radians) and opacity (0..1) of the shape in each frame, float32 [n]."""
    t = np.linspace(0, 1, event.frames)
    radius = RADII[event.size] * size * rng.uniform(0.93, 1.07) * np.ones_like(t)
    centre = rng.uniform(0.38, 0.62, 2)
    half = rng.uniform(0.2, 0.32)  # half of the way of a slide, of the picture's side
    spin = rng.choice([-1, 1]) * rng.uniform(2.6, 3.7)  # radians over the event
    angle = rng.uniform(-0.15, 0.15) * np.ones_like(t)
    opacity = np.ones_like(t)
    x, y = (np.full_like(t, c) for c in centre)
    if event.motion in _DIRECTIONS:
        axis, sign = (
            (0, _DIRECTIONS[event.motion][0]) if _DIRECTIONS[event.motion][0] else (1, _DIRECTIONS[event.motion][1])
        )
        way = 0.5 + rng.uniform(-0.05, 0.05) + sign * half * (2 * t - 1)
        x, y = (way, y) if axis == 0 else (x, way)
    elif event.motion == "turns":
        angle = angle + spin * t
    elif event.motion in _SCALES:
        start, stop = _SCALES[event.motion]
        radius = radius * (start + (stop - start) * t)
    elif event.motion == "fades":
        opacity = 1 - 0.93 * t
    return tuple(a.astype(np.float32) for a in (x * size, y * size, radius, angle, opacity))


# Patterns: how dark the paint is (0..1) at the shape's own coordinates u, v [n,h,w], with a period in pixels.


def _stripes(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    p = np.float32(period)
    return np.clip(0.5 + p / 4 - _fold(u / p) * p, 0, 1)


def _dots(u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    p = np.float32(period)
    return np.clip(0.5 + np.float32(0.34) * p - np.hypot(_fold(u / p) * p, _fold(v / p) * p), 0, 1)


def _fold(w: np.ndarray) -> np.ndarray:
    """Return the distance of w from the middle (k + 0.5) of its unit interval, 0..0.5."""
    return np.abs(w - np.floor(w) - np.float32(0.5))


# Signed distances in pixels to the outline (negative inside): float32 arrays u, v [n,h,w], radius [n,1,1].


def _disc(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return np.hypot(u, v) - radius


def _ring(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(u, v) - np.float32(0.74) * radius) - np.float32(0.28) * radius


def _square(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.86) * radius


def _triangle(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    slant = np.float32(np.sqrt(0.75)) * np.abs(u) - np.float32(0.5) * v  # point up: y runs down
    return np.maximum(slant, v) - np.float32(0.64) * radius


def _star(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    sector = np.float32(2 * np.pi / 5)
    angle = _fold(np.arctan2(u, -v) / sector + np.float32(0.5)) * sector
    rho = np.hypot(u, v)
    tip, notch = 1.25, 0.55  # radii of the points and of the inner corners
    along = np.array([notch * np.cos(np.pi / 5) - tip, notch * np.sin(np.pi / 5)])
    nx, ny = np.array([along[1], -along[0]], np.float32) / np.float32(np.linalg.norm(along))
    return nx * (rho * np.cos(angle) - np.float32(tip) * radius) + ny * rho * np.sin(angle)


def _cross(u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    arm = np.float32(0.4) * radius
    return np.minimum(np.maximum(a - radius, b - arm), np.maximum(b - radius, a - arm))


SHAPES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}
ROUND = ("disc", "ring")  # turning is invisible on these
_PATTERNS = {"striped": _stripes, "dotted": _dots}
