"""Rows of embeddings and their cosines, scored so that equal rows tie whatever the order of summation.

Scores are cosines in float64, rounded to multiples of 2^-40 (about 1e-12). `paired_cosine` adds the products of a pair
in the same order wherever its rows stand, so equal rows tie exactly; ranks are counted by these scores. `cosine` leaves
that order to a BLAS.
"""

import hashlib
from collections.abc import Iterator

import numpy as np

from ...base.errors import UserError
from .checks import check_index

SCORE = "cosine of L2-normalised rows in float64, rounded to multiples of 2^-40"

_GRID = 2.0**40
_CACHED = 1 << 20  # bytes of rows that are worked on at a time, so that they stay in the cache


class RowError(UserError):
    """A row of embeddings that cannot be scored.

    Attributes:
      array: name of the array.
      row: index of the row.
    """

    def __init__(self, message: str, *, array: str, row: int):
        super().__init__(message)
        self.array, self.row = array, row


def cosine(queries: np.ndarray, *, gallery: np.ndarray) -> np.ndarray:
    """Return the scores float64 [n,m] of unit rows [n,E] with unit rows [m,E], rounded to multiples of 2^-40.

    >>> cosine(np.array([[0.6, 0.8]]), gallery=np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])).round(6).tolist()
    [[0.6, 0.8, 1.0]]
    """
    scores = queries @ gallery.T
    scores *= _GRID
    np.rint(scores, out=scores)
    scores /= _GRID
    return scores


def paired_cosine(first: np.ndarray, *, second: np.ndarray) -> np.ndarray:
    """Return the scores float64 [n] of unit rows [n,E] with the unit rows [n,E] at the same place, rounded alike.

    >>> paired_cosine(np.array([[0.6, 0.8], [1.0, 0.0]]), second=np.array([[1.0, 0.0], [1.0, 0.0]])).round(6).tolist()
    [0.6, 1.0]
    """
    return np.rint((first * second).sum(axis=1) * _GRID) / _GRID


def distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows in order of first appearance, and for each row its place among them.

    >>> rows, place = distinct_rows(np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0]]))
    >>> rows.tolist(), place.tolist()
    ([[1.0, 2.0], [0.0, 3.0]], [0, 1, 0])
    """
    copy_of = row_numbers(rows)
    first = np.unique(copy_of, return_index=True)[1]
    return rows[first], copy_of


def row_numbers(rows: np.ndarray) -> np.ndarray:
    """Number the distinct rows [n,E] in order of first appearance, int64 [n]: equal rows have equal numbers.

    >>> row_numbers(np.array([[1.0, 2.0], [0.0, 3.0], [1.0, 2.0], [-0.0, 3.0]])).tolist()
    [0, 1, 0, 1]
    """
    place: dict[bytes, int] = {}
    # Digests, since a million rows would take gigabytes. Adding 0 turns -0.0, which has other bytes, into 0.0.
    digests = (
        hashlib.blake2b(row, digest_size=16).digest()
        for part in parts(len(rows), width=rows.shape[1])
        for row in rows[part] + 0
    )
    return np.array([place.setdefault(digest, len(place)) for digest in digests], dtype=np.int64)


def parts(length: int, *, width: int, part_bytes: int = 32 << 20) -> Iterator[slice]:
    """Divide rows of `width` numbers into slices that take at most `part_bytes` as float64, one row at least.

    >>> list(parts(5, width=10, part_bytes=160))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    size = max(1, part_bytes // (8 * max(1, width)))
    return (slice(start, start + size) for start in range(0, length, size))


class UnitRows:
    """Rows [n,E] that are checked once and normalised where they are used: no float64 copy of all is held.

    >>> rows = UnitRows(np.array([[3.0, 4.0], [0.0, 2.0]]), name="video")
    >>> len(rows), rows.width, rows[np.array([1, 0])].tolist()
    (2, 2, [[0.0, 1.0], [0.6, 0.8]])
    """

    def __init__(self, rows: np.ndarray, *, name: str):
        """Check the rows; errors as in `unit_rows`."""
        self.raw = check_rows(rows, name=name)
        blocks = list(parts(len(self.raw), width=self.width, part_bytes=_CACHED))
        self._extreme = any(_is_extreme(self.raw[part]) for part in blocks)
        self._norms = np.concatenate([_norms(_scaled(self.raw[part])) for part in blocks])
        self._single = self.raw.dtype == np.float32 and 1e-30 < self._norms.min() <= self._norms.max() < 1e30

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def width(self) -> int:
        """E."""
        return self.raw.shape[1]

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Return the chosen rows as unit rows, float64 [k,E]: the same as those of `unit_rows`."""
        if self._extreme:
            return _unit(self.raw[chosen])
        return self.raw[chosen] / self._norms[chosen]

    def write_float32(self, chosen: np.ndarray, *, out: np.ndarray) -> None:
        """Write the chosen rows as unit rows into `out` float32 [k,E]; numbers are off by a relative epsilon."""
        if self._extreme:
            out[:] = _unit(self.raw[chosen])
            return
        for part in parts(len(chosen), width=self.width, part_bytes=_CACHED):
            rows = chosen[part]
            if self._single:  # a factor in float32 costs less than half of a division in float64
                np.take(self.raw, rows, axis=0, out=out[part], mode="clip")
                out[part] *= (1 / self._norms[rows]).astype(np.float32)
            else:
                np.divide(self.raw[rows], self._norms[rows], out=out[part], casting="same_kind")


def unit_rows(rows: np.ndarray, *, name: str) -> np.ndarray:
    """Return `rows` [n,E] divided by their L2 norms, float64.

    Raises:
      UserError: not a [n,E] array of numbers.
      RowError: a row is zero or not finite (the first such row is named).

    >>> unit_rows(np.array([[3.0, 4.0]]), name="video").tolist()
    [[0.6, 0.8]]
    """
    return _unit(check_rows(rows, name=name))


def check_rows(rows: np.ndarray, *, name: str) -> np.ndarray:
    """Return `rows` [n,E] as an array, or raise the errors of `unit_rows`."""
    rows = np.asarray(rows)
    if rows.ndim != 2 or 0 in rows.shape or rows.dtype.kind not in "fiu":
        raise UserError(f"{name!r} is {rows.dtype} of shape {rows.shape}; wanted numbers [rows, E], neither of them 0")
    blocks = parts(len(rows), width=rows.shape[1], part_bytes=_CACHED)
    finite = np.concatenate([np.isfinite(rows[part]).all(axis=1) for part in blocks])
    nonzero = rows.any(axis=1)
    bad = np.flatnonzero(~(finite & nonzero))
    if len(bad):
        reason = "not finite (NaN or inf)" if not finite[bad[0]] else "all zero"
        raise RowError(
            f"row {bad[0]} of {name!r} is {reason} ({len(bad)} of {len(rows)} rows are zero or not finite); "
            "an embedding must have a direction: encode that row again or leave it out",
            array=name,
            row=int(bad[0]),
        )
    return rows


def _unit(rows: np.ndarray) -> np.ndarray:
    """Divide rows [n,E] by their norms."""
    rows = _scaled(rows)
    return rows / _norms(rows)


def _norms(rows: np.ndarray) -> np.ndarray:
    """Return the norms [n,1] of contiguous float64 rows: each is summed alike wherever its row stands."""
    return np.sqrt((rows * rows).sum(axis=1, keepdims=True))


def _scaled(rows: np.ndarray) -> np.ndarray:
    """Return contiguous float64 rows whose squares are neither 0 nor inf; scaling by a power of two is exact."""
    extreme = _is_extreme(rows)
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    if extreme:
        rows = np.ldexp(rows, -np.frexp(np.abs(rows).max(axis=1, keepdims=True))[1])
    return rows


def _is_extreme(rows: np.ndarray) -> bool:
    """Return whether the squares of a row [n,E] might be 0 or inf in float64: of float32 they never are."""
    if rows.dtype.kind != "f" or rows.dtype.itemsize < 8 or not len(rows):
        return False
    largest = np.abs(rows).max(axis=1)
    return bool(largest.max() > 1e100 or largest.min() < 1e-100)


def check_pair(
    text: np.ndarray, *, video: np.ndarray, video_of_text: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return text and video as unit rows (float64) and `video_of_text` as int64, or raise a UserError.

    >>> text, video, index = check_pair(np.array([[2.0, 0.0]]), video=np.array([[0.0, 5.0]]), video_of_text=[0])
    >>> text.tolist(), video.tolist(), index.tolist()
    ([[1.0, 0.0]], [[0.0, 1.0]], [0])
    """
    texts, videos, index = unit_pair(text, video=video, video_of_text=video_of_text)
    return texts[:], videos[:], index


def unit_pair(
    text: np.ndarray, *, video: np.ndarray, video_of_text: np.ndarray
) -> tuple[UnitRows, UnitRows, np.ndarray]:
    """Return as `check_pair`, with rows that are normalised where they are used."""
    texts, videos = UnitRows(text, name="text"), UnitRows(video, name="video")
    if texts.width != videos.width:
        raise UserError(
            f"'text' has width {texts.width} and 'video' has width {videos.width}; "
            "both must come from one model's joint space"
        )
    return texts, videos, check_index(video_of_text, name="video_of_text", length=len(texts), limit=len(videos))
