"""How texts and videos are divided into blocks of one shape, so that few programs are compiled."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from .questions import Pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tiles:
    """The shapes of one device's work.

    Attributes:
      rows: texts R of a tile.
      columns: videos C of a tile, a multiple of 32.
      piece: tiles of the videos that a device holds at a time, and scores in one call.
    """

    rows: int
    columns: int
    piece: int

    @classmethod
    def of(cls, *, texts: int, videos: int, dim: int, tile_bytes: int, gallery_bytes: int) -> "Tiles":
        """Choose shapes.

        Args:
          texts: how many there are.
          videos: the same of these.
          dim: width of their rows.
          tile_bytes: memory for the float32 scores of one tile.
          gallery_bytes: memory for the videos' rows that a device holds at a time.
        """
        rows = 1 << max(0, int(np.log2(max(32, tile_bytes // 16)) / 2))
        rows = min(rows, 1 << int(np.ceil(np.log2(texts))))
        columns = max(32, tile_bytes // 4 // rows // 32 * 32)
        tiles = -(-videos // columns)
        columns = -(-videos // tiles // 32) * 32
        piece = max(1, min(tiles, gallery_bytes // (4 * columns * dim)))
        return cls(rows=rows, columns=columns, piece=-(-tiles // -(-tiles // piece)))

    def pieces(self, videos: int) -> Iterator[slice]:
        """Divide the videos into slices of `piece` tiles."""
        size = self.piece * self.columns
        return (slice(start, min(start + size, videos)) for start in range(0, videos, size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowBlock:
    """Texts of one call on all devices: whole videos, whose captions fill `width` places each.

    Attributes:
      width: places for each video's captions.
      texts: int64 [devices * R'], R' a multiple of `width`; -1 where a place is empty.
      groups: int64 [devices * R' / width], places of these videos in `Pairs.captioned`; -1 where empty.
    """

    width: int
    texts: np.ndarray
    groups: np.ndarray


def row_blocks(pairs: Pairs, *, rows: int, devices: int) -> list[RowBlock]:
    """Divide the texts into blocks of `rows` on each device; a video with more captions has a block of its own size."""
    sizes = np.diff(pairs.starts)
    widths = _widths(sizes)
    blocks = []
    for width in np.unique(widths).tolist():
        groups = np.flatnonzero(widths == width)
        per = max(1, rows // width) * devices
        groups = np.pad(groups, (0, -len(groups) % per), constant_values=-1).reshape(-1, per)
        for chosen in groups:
            place = np.arange(width)
            real = (place < sizes[chosen][:, None]) & (chosen >= 0)[:, None]
            at = np.minimum(pairs.starts[chosen][:, None] + place, len(pairs.order) - 1)
            texts = np.where(real, pairs.order[at], -1).reshape(-1)
            blocks.append(RowBlock(width=width, texts=texts, groups=chosen))
    return blocks


def _widths(sizes: np.ndarray) -> np.ndarray:
    """Round numbers of captions up to 1, 2, 3, 4, 6, 8, 12, 16, 24 ...: at most a third of the places is empty.

    >>> _widths(np.array([1, 3, 5, 9, 13, 80])).tolist()
    [1, 3, 6, 12, 16, 96]
    """
    power = 1 << np.ceil(np.log2(sizes)).astype(np.int64)
    return np.where((power >= 4) & (4 * sizes <= 3 * power), 3 * power // 4, power)
