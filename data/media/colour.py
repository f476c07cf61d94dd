"""Colours to 8-bit sRGB: tone mapping of HDR (PQ, HLG) and of wide gamuts, with tables and NumPy.

Standard dynamic range with BT.709 primaries, or without tags, is left to the scaler (libswscale), which honours the
matrix and range that the frame states, and takes BT.601, limited range, where it states none, whatever the size.
"""

import functools
import struct
from typing import Any

import numpy as np
from av.sidedata.sidedata import Type as SideData
from av.video.reformatter import ColorPrimaries, ColorTrc

WHITE_NITS = 203.0  # HDR reference white (ITU-R BT.2408), mapped to white of the SDR picture
PEAK_NITS = 1000.0  # peak of HLG, and of PQ whose metadata states none
CODE_WHITE = 65280.0  # libswscale's 16-bit RGB has white at 255 * 256

# Chromaticities of red, green, blue (x, y); white is D65.
_PRIMARIES = {
    ColorPrimaries.BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    ColorPrimaries.BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    ColorPrimaries.SMPTE432: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),  # Display P3
}
_WHITE = (0.3127, 0.3290)
_GAMMA = 2.4  # of an SDR display (BT.1886)
_STEPS = 65535  # of the tables from light to signal and to gain, which go by its root: most steps lie in the dark
_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128  # SMPTE ST 2084
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def pq_to_nits(signal: np.ndarray) -> np.ndarray:
    """Return the light in cd/m² of PQ signals in [0, 1] (SMPTE ST 2084, EOTF)."""
    power = np.power(np.clip(signal, 0, 1), 1 / _M2)
    return 10_000 * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)


def nits_to_pq(nits: np.ndarray) -> np.ndarray:
    """Return the PQ signal in [0, 1] of light in cd/m² (SMPTE ST 2084, inverse EOTF)."""
    power = np.power(np.clip(nits, 0, 10_000) / 10_000, _M1)
    return np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)


def hlg_to_scene(signal: np.ndarray) -> np.ndarray:
    """Return the scene light in [0, 1] of HLG signals in [0, 1] (ITU-R BT.2100, inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    signal = np.clip(signal, 0, 1)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def eetf(nits: np.ndarray, *, peak: float) -> np.ndarray:
    """Compress light of a source of that peak to that of a display of `WHITE_NITS` (ITU-R BT.2390, EETF, black at 0).

    Args:
      nits: light in cd/m²; beyond `peak` it is as `peak`.
      peak: brightest light of the source in cd/m², at least `WHITE_NITS`.
    """
    top = nits_to_pq(np.asarray(peak))
    limit = nits_to_pq(np.asarray(WHITE_NITS)) / top
    knee = 1.5 * limit - 0.5
    signal = np.minimum(nits_to_pq(nits) / top, 1)
    t = np.clip((signal - knee) / max(1 - knee, 1e-9), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * limit
    return pq_to_nits(np.where(signal < knee, signal, spline) * top)


def to_srgb(light: np.ndarray) -> np.ndarray:
    """Return the sRGB signal in [0, 1] of light in [0, 1] (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)


def to_bt709(primaries: int) -> np.ndarray:
    """Return the float64 [3,3] matrix from linear RGB of those primaries to linear RGB of BT.709."""
    return np.linalg.inv(_to_xyz(ColorPrimaries.BT709)) @ _to_xyz(primaries)


def _to_xyz(primaries: int) -> np.ndarray:
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in _PRIMARIES[ColorPrimaries(primaries)]]).T
    white = np.array([_WHITE[0] / _WHITE[1], 1, (1 - sum(_WHITE)) / _WHITE[1]])
    return columns * np.linalg.solve(columns, white)


class Colours:
    """Maps the pictures of one stream to sRGB, as its first frame states them.

    Attributes:
      note: how colours are mapped, for the clip's notes; "" = not at all.
      is_bt2020: whether the matrix to RGB is that of BT.2020, even if the frame does not state it.
    """

    def __init__(self, frame: Any):
        transfer, primaries = int(frame.color_trc), int(frame.color_primaries)
        self._hdr = {int(ColorTrc.SMPTE2084): "PQ", int(ColorTrc.ARIB_STD_B67): "HLG"}.get(transfer, "")
        self.is_bt2020 = bool(self._hdr) and int(frame.colorspace) == 2
        if primaries not in _PRIMARIES:
            primaries = ColorPrimaries.BT2020 if self._hdr else ColorPrimaries.BT709
        self._primaries = int(primaries)
        self._peak = min(max(stated_peak(frame) or PEAK_NITS, WHITE_NITS), 10_000.0) if self._hdr == "PQ" else PEAK_NITS
        self.note = ""
        if self._hdr:
            self.note = f"HDR ({self._hdr}) mapped to SDR"
        elif primaries != ColorPrimaries.BT709:
            self.note = "wide gamut mapped to sRGB"

    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Return uint8 [H,W,3] of uint16 [H,W,3], RGB in the stream's own colours with white at `CODE_WHITE`."""
        light = np.take(_light_table(self._hdr), rgb)
        if self._hdr == "HLG":  # BT.2100 OOTF: from scene to display, by luminance
            luminance = light @ _to_xyz(self._primaries)[1].astype(np.float32)
            light *= (PEAK_NITS * np.power(np.maximum(luminance, 1e-6), 0.2))[..., None]
        light = np.maximum(light @ to_bt709(self._primaries).T.astype(np.float32), 0)
        if not self._hdr:
            return _lookup(_gamma_table(), np.sqrt(light))
        # One gain for the three colours keeps the hue; by the greatest of them, none ends above white.
        greatest = light.max(axis=-1) / 10_000
        light *= _lookup(_gain_table(self._peak), np.sqrt(greatest))[..., None]
        return _lookup(_srgb_table(), np.sqrt(light))


def _lookup(table: np.ndarray, share: np.ndarray) -> np.ndarray:
    return np.take(table, (np.minimum(share, 1) * _STEPS + 0.5).astype(np.uint16))


@functools.cache
def _light_table(hdr: str) -> np.ndarray:
    """Light of each 16-bit signal, float32 [65536]: cd/m² of PQ, scene light of HLG, share of white of SDR."""
    signal = np.arange(65536) / CODE_WHITE
    if hdr == "PQ":
        return pq_to_nits(signal).astype(np.float32)
    return (hlg_to_scene(signal) if hdr else np.clip(signal, 0, 1) ** _GAMMA).astype(np.float32)


@functools.lru_cache(8)
def _gain_table(peak: float) -> np.ndarray:
    """Gain of the light, indexed by the root of the greatest of the three colours; maps `WHITE_NITS` to 1."""
    nits = 10_000 * (np.maximum(np.arange(_STEPS + 1), 1) / _STEPS) ** 2
    return (eetf(nits, peak=peak) / nits / WHITE_NITS).astype(np.float32)


@functools.cache
def _srgb_table() -> np.ndarray:
    return np.round(255 * to_srgb((np.arange(_STEPS + 1) / _STEPS) ** 2)).astype(np.uint8)


@functools.cache
def _gamma_table() -> np.ndarray:
    return np.round(255 * (np.arange(_STEPS + 1) / _STEPS) ** (2 / _GAMMA)).astype(np.uint8)


def stated_peak(frame: Any) -> float | None:
    """Return the brightest light that a frame's metadata states (MaxCLL, else the mastering display), in cd/m²."""
    try:
        content = frame.side_data.get(SideData.CONTENT_LIGHT_LEVEL)
        display = frame.side_data.get(SideData.MASTERING_DISPLAY_METADATA)
    except ValueError:  # side data of a kind that this PyAV has no name for
        return None
    if content is not None and (brightest := struct.unpack("<I", bytes(content)[:4])[0]) > 0:
        return float(brightest)
    if display is None:
        return None
    above, below, _, stated = struct.unpack("<iiii", bytes(display)[72:88])  # max_luminance, a ratio; two flags
    return above / below if stated and below > 0 and above > 0 else None
