"""Precomputed features of a clip, from their files to its record; and clips that have nothing else."""

import dataclasses
import io
import math
from typing import BinaryIO

import numpy as np

from ...base.errors import UserError
from ..manifest import Clip
from ..media.decode import DecodedClip, DecodeError
from ..paths import NoSuchFile, PathLike, join, open_binary
from ..sources.tfrecords import place_of
from .sequences import RecordError, read_sequence

_REASON = "features cannot be used"
_DTYPES = ("float32", "float16", "uint8")
_MOST = 2**28  # bytes of one modality of one clip; bounds the memory of a record
_HEADER = 10_000  # characters of a .npy header, as NumPy's own limit
_FPS = 1.0  # rows per second where meta.features_fps says nothing: YouTube-8M's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """One modality of a clip, as its record holds it.

    Attributes:
      shape: rows n in order of time, and columns D.
      npy: the `.npy` file: float32, float16 or uint8, C order, little-endian.
      scale: of uint8, (scale, offset): value = byte * scale + offset; None for floats.
    """

    shape: tuple[int, int]
    npy: bytes
    scale: tuple[float, float] | None


def add_features(
    clip: Clip, decoded: DecodedClip | DecodeError, *, root: PathLike
) -> tuple[DecodedClip | DecodeError, dict[str, Features]]:
    """Read the features of a clip that has been decoded.

    Args:
      clip: the line of the manifest.
      decoded: what decoding gave; for a clip without a path, `no_video()`.
      root: folder to which the paths are relative.

    Returns:
      What decoding gave, with the duration that the features say where there is no video, and the features by modality;
      or why the clip cannot be used, and nothing.
    """
    if isinstance(decoded, DecodeError):
        return decoded, {}
    try:
        features = {name: _read(clip, name, root=root) for name in sorted(clip.features)}
        if not clip.path:
            decoded = dataclasses.replace(decoded, duration_s=_duration(clip, features))
    except DecodeError as error:
        return error, {}
    return decoded, features


def no_video() -> DecodedClip:
    """Return what stands for the decoded frames of a clip that has none."""
    return DecodedClip(
        encoded=[], timestamps_s=np.zeros(0, np.float32), height=0, width=0, audio=None, duration_s=0.0, notes=()
    )


def _duration(clip: Clip, features: dict[str, Features]) -> float:
    """Seconds: the window of the clip, or else the rows of its longest modality at `meta.features_fps`."""
    if clip.end_s is not None:
        return clip.end_s - (clip.start_s or 0.0)
    fps = clip.meta.get("features_fps", _FPS)
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not 0 < fps < math.inf:
        raise DecodeError(_REASON, f"meta.features_fps is {fps!r}, wanted rows per second")
    return max(part.shape[0] for part in features.values()) / fps


def _read(clip: Clip, name: str, *, root: PathLike) -> Features:
    """Read and check one modality.

    Raises:
      DecodeError: it cannot be used.
    """
    path = clip.features[name]
    place = place_of(path)
    try:
        if place is None:
            with open_binary(join(root, path)) as file:
                array = _npy(file)
        else:
            array = read_sequence(join(root, place[0]), offset=place[1], name=place[2])
    except NoSuchFile:
        raise DecodeError(_REASON, f"{name}: {path} does not exist") from None
    except UserError as error:
        raise DecodeError(_REASON, f"{name}: {error}") from error
    except OSError as error:
        raise DecodeError(_REASON, f"{name}: {path} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecordError) as error:  # a UserError is a ValueError
        raise DecodeError(_REASON, f"{name}: {error}") from error
    if array.ndim != 2 or not array.size:
        raise DecodeError(_REASON, f"{name}: shape {list(array.shape)}, wanted [rows, columns], one row at least")
    if array.dtype.name not in _DTYPES:
        raise DecodeError(_REASON, f"{name}: dtype {array.dtype.name}, wanted {', '.join(_DTYPES)}")
    if not np.isfinite(array).all():
        raise DecodeError(_REASON, f"{name}: has NaN or infinite values")
    written = io.BytesIO()
    np.lib.format.write_array(
        written, np.ascontiguousarray(array, array.dtype.newbyteorder("<")), version=(1, 0), allow_pickle=False
    )
    rows, columns = array.shape
    return Features(shape=(rows, columns), npy=written.getvalue(), scale=_scale(clip, name, array.dtype))


def _scale(clip: Clip, name: str, dtype: np.dtype) -> tuple[float, float] | None:
    """What the bytes of 8-bit features stand for."""
    if dtype != np.uint8:
        return None
    given = clip.meta.get("features_scale")
    pair = given[name] if isinstance(given, dict) and name in given else None
    if not isinstance(pair, list) or len(pair) != 2 or not all(map(_is_number, pair)):
        raise DecodeError(
            _REASON, f'{name}: dtype uint8 needs meta.features_scale {{"{name}": [scale, offset]}}, got {pair!r}'
        )
    return float(pair[0]), float(pair[1])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _npy(file: BinaryIO) -> np.ndarray:
    """Read a .npy file, its header checked before there is memory for the array.

    Raises:
      ValueError: it is no such file, holds objects, or is longer or shorter than its header says.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        if version not in readers:
            raise ValueError(f"version {version} of the .npy format is not known")
        shape, fortran, dtype = readers[version](file, max_header_size=_HEADER)
    except OSError:
        raise
    except Exception as error:  # of damaged headers, Python's own parser raises errors of several kinds
        raise ValueError(f"is no .npy file that can be read ({error})") from error
    if min(shape, default=0) < 0:
        raise ValueError(f"shape {list(shape)} in its header makes no sense")
    if dtype.hasobject:
        raise ValueError("holds Python objects, which are never loaded")
    size = math.prod(shape) * dtype.itemsize
    if size > _MOST:
        raise ValueError(f"{size:,} bytes, more than the {_MOST:,} that a clip may have")
    raw = file.read(size + 1)
    if len(raw) != size:
        raise ValueError(f"has {'more' if len(raw) > size else 'only'} {min(len(raw), size):,} of {size:,} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
