"""Scores of a large set in float32 on all devices of a process: a tile at a time is compared and counted, not kept."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ..measures.rows import UnitRows
from .host import margin
from .layout import RowBlock, Tiles
from .questions import AMONG_CAPTIONS, Count, Pairs, decide, decide_groups

AXIS = "rows"
PRECISION = jax.lax.Precision.HIGHEST  # on TPUs and GPUs float32 products would be rounded to fewer bits
_GROUP = 8  # words that are gathered together
_KEPT = 8  # the host gets at most every eighth group
_SPLIT, _WHOLE = PartitionSpec(AXIS), PartitionSpec()
Arrays = dict[str, Any]


def device_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh of this process's devices, or of the given ones."""
    return Mesh(np.array(jax.local_devices() if devices is None else devices), (AXIS,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """What a program is compiled for.

    Attributes:
      columns: videos C of a tile.
      width: places of a video's captions.
      grouped: of each question of videos, whether it is among groups of captions (or single captions).
      full: all rows are real, which saves a pass over the scores.
      compact: gather the words of open pairs on the device, so that the host gets these alone (`_compacted`).
    """

    columns: int
    width: int
    grouped: tuple[bool, ...]
    full: bool = False
    compact: bool = False

    def by_group(self, question: int) -> bool:
        """Return whether a question of videos compares the maxima of several captions each."""
        return self.grouped[question] and self.width > 1

    def opened(self, *, texts: int) -> list[str]:
        """Return the masks of open pairs that are made for so many questions of texts, and those of videos."""
        groups = [self.by_group(k) for k in range(len(self.grouped))]
        made = {"open_pairs": texts > 0 or not all(groups), "open_groups": any(groups)}
        return [name for name, wanted in made.items() if wanted]


@functools.partial(jax.jit, static_argnames=("shape", "mesh"))
def count_tiles(gallery: Arrays, rows: Arrays, *, shape: Shape, mesh: Mesh) -> Arrays:
    """Compare the texts of a block with the videos of a piece, tile by tile.

    A pair is open if its score lies between `low` and `high` of any question: the host then decides it for all of them,
    so it is above none of them here. One mask of open pairs is packed, not one for each question.

    Args:
      gallery: `rows` float32 [P,E], unit rows of P videos, whole tiles; `low` and `high` float32 [v,P], the bounds of
        the v questions of videos; `real` bool [P]. On all devices.
      rows: `rows` float32 [D R,E]; `low` and `high` float32 [t,D R] of the t questions of texts; `real` bool [D R].
        Split over D devices.
      shape: see `Shape`.
      mesh: the devices.

    Returns:
      `text_above` int32 [t,D R], scores above `high`; `video_above` int32 [D,v,P]; and the open pairs, 32 rows to a
      word: `open_pairs` uint32 [D,tiles,R/32,C] of texts and videos, and `open_groups` [D,tiles,R/width/32,C] of groups
      of several captions and videos; each only if a question asks. With `compact`, they are what `_compacted` returns.
    """
    given = {"rows": _SPLIT, "real": _SPLIT, "low": PartitionSpec(None, AXIS), "high": PartitionSpec(None, AXIS)}
    made = {"text_above": PartitionSpec(None, AXIS), "video_above": _SPLIT}
    made |= dict.fromkeys(shape.opened(texts=len(rows["low"])), _SPLIT)
    body = functools.partial(_one_device, shape=shape)
    return jax.shard_map(body, mesh=mesh, in_specs=(_WHOLE, given), out_specs=made, check_vma=False)(gallery, rows)


def _one_device(gallery: Arrays, rows: Arrays, *, shape: Shape) -> Arrays:
    size, videos = len(gallery["rows"]), len(shape.grouped)
    of_videos = (videos, size // shape.columns, shape.columns)
    tiles = {
        "rows": gallery["rows"].reshape(-1, shape.columns, gallery["rows"].shape[1]),
        "real": gallery["real"].reshape(-1, shape.columns),
        "low": jnp.moveaxis(gallery["low"].reshape(of_videos), 1, 0),
        "high": jnp.moveaxis(gallery["high"].reshape(of_videos), 1, 0),
    }
    of_texts = [(low[:, None], high[:, None]) for low, high in zip(rows["low"], rows["high"], strict=True)]

    def step(above: jax.Array, tile: Arrays) -> tuple[jax.Array, Arrays]:
        scores = jnp.einsum("re,ce->rc", rows["rows"], tile["rows"], precision=PRECISION)
        if not shape.full:
            scores = jnp.where(rows["real"][:, None] & tile["real"][None, :], scores, -jnp.inf)
        bounds = {k: (tile["low"][k][None, :], tile["high"][k][None, :]) for k in range(videos)}
        counted, made = {}, {}
        if "open_pairs" in shape.opened(texts=len(of_texts)):
            single = {k: bounds[k] for k in range(videos) if not shape.by_group(k)}
            made["open_pairs"] = _open(scores, [*of_texts, *single.values()])
            counted |= {k: _column_sums((scores > high) & ~made["open_pairs"]) for k, (_, high) in single.items()}
            found = [_row_sums((scores > high) & ~made["open_pairs"]) for _, high in of_texts]
            above = above + jnp.stack(found) if found else above
        if "open_groups" in shape.opened(texts=len(of_texts)):
            best = scores.reshape(-1, shape.width, shape.columns).max(axis=1)
            several = {k: bounds[k] for k in range(videos) if shape.by_group(k)}
            made["open_groups"] = _open(best, list(several.values()))
            counted |= {k: _column_sums((best > high) & ~made["open_groups"]) for k, (_, high) in several.items()}
        none = jnp.zeros((0, shape.columns), jnp.int32)
        video_above = jnp.stack([counted[k] for k in range(videos)]) if videos else none
        return above, {"video_above": video_above} | {name: _packed(bits) for name, bits in made.items()}

    text_above, made = jax.lax.scan(step, jnp.zeros(rows["low"].shape, jnp.int32), tiles)
    video_above = jnp.moveaxis(made.pop("video_above"), 0, 1).reshape(1, videos, size)
    words = {name: _compacted(one) if shape.compact else one for name, one in made.items()}
    return {"text_above": text_above, "video_above": video_above} | jax.tree.map(lambda one: one[None], words)


def _open(scores: jax.Array, bounds: list[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """Return which scores lie between the bounds of any question, bool [R,C]."""
    return functools.reduce(jnp.logical_or, [(scores >= low) & (scores <= high) for low, high in bounds])


def _compacted(words: jax.Array) -> Arrays:
    """Gather the groups of `_GROUP` words that are not all 0, in their order.

    Few words have an open pair. On an accelerator, a bit of each pair would take the host longer to fetch and to search
    than the products take; on a CPU the search is a hundredth of the products, and this would cost more.

    Args:
      words: uint32 [tiles,R/32,C].

    Returns:
      `count` int32, how many groups there are; `index` int32 [c] and `groups` uint32 [c,_GROUP], the first c of them
      and their places; and `words`, which the host fetches only if there are more than c.
    """
    flat = words.reshape(-1)
    groups = jnp.pad(flat, (0, -len(flat) % _GROUP)).reshape(-1, _GROUP)
    some = jnp.any(groups != 0, axis=1)
    most = max(1, len(groups) // _KEPT)
    index = jnp.nonzero(some, size=most, fill_value=0)[0].astype(jnp.int32)
    return {"count": jnp.sum(some, dtype=jnp.int32), "index": index, "groups": groups[index], "words": words}


def _row_sums(bits: jax.Array) -> jax.Array:
    """Return the sums int32 [R] of bool [R,C]: eight columns apart first, which XLA vectorises on CPUs."""
    parts = jnp.sum(bits.reshape(bits.shape[0], 8, -1), axis=1, dtype=jnp.int32)
    return jnp.sum(jax.lax.optimization_barrier(parts), axis=1, dtype=jnp.int32)


def _column_sums(bits: jax.Array) -> jax.Array:
    """Return the sums int32 [C] of bool [R,C]: in float32, exact up to 2^24 rows, which CPUs add faster than int32."""
    return jnp.sum(bits.astype(jnp.float32), axis=0).astype(jnp.int32)


def _packed(bits: jax.Array) -> jax.Array:
    """Pack bool [R,C] into uint32 [R/32,C], rounded up; bit k of a word is its k-th row."""
    bits = jnp.pad(bits, ((0, -bits.shape[0] % 32), (0, 0))) if bits.shape[0] % 32 else bits
    rows = bits.reshape(-1, 32, bits.shape[1])
    # Row by row, which XLA compiles to half the work of a sum of shifted bits on CPUs.
    words = [jnp.where(rows[:, k], jnp.uint32(1 << k), jnp.uint32(0)) for k in range(32)]
    return functools.reduce(jnp.bitwise_or, words)


def unpacked(words: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tiles, rows and columns of the bits of uint32 [tiles,R/32,C].

    >>> tiles, rows, columns = unpacked(np.array([[[0, 0], [2, 5]]], dtype=np.uint32))
    >>> tiles.tolist(), rows.tolist(), columns.tolist()
    ([0, 0, 0], [33, 32, 34], [0, 1, 1])
    """
    place = np.flatnonzero(words)
    return _bits(words.reshape(-1)[place], place=place, shape=words.shape)


def _bits(words: np.ndarray, *, place: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return tiles, rows and columns of the bits of words at their flat places in uint32 [tiles,R/32,C]."""
    word, bit = np.nonzero((words[:, None] >> np.arange(32, dtype=np.uint32)) & 1)
    tile, row, column = np.unravel_index(place[word], shape)
    return tile, 32 * row + bit, column


def open_pairs(found: Any) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return tiles, rows and columns of the open pairs of each device.

    Args:
      found: one of the last results of `count_tiles`.
    """
    if not isinstance(found, dict):
        return [unpacked(words) for words in np.asarray(found)]
    counts, index, groups = (np.asarray(found[key]) for key in ("count", "index", "groups"))
    shape, made = found["words"].shape[1:], []
    for device, count in enumerate(counts.tolist()):
        if count > index.shape[1]:
            made.append(unpacked(np.asarray(found["words"][device])))
            continue
        place = index[device, :count, None].astype(np.int64) * _GROUP + np.arange(_GROUP)
        words = groups[device, :count]
        made.append(_bits(words[words != 0], place=place[words != 0], shape=shape))
    return made


class DeviceCounter:
    """Fills counts from the calls of `count_tiles`."""

    def __init__(self, counts: Sequence[Count], *, pairs: Pairs, tiles: Tiles, mesh: Mesh, compact: bool | None = None):
        """Take the counts of all questions.

        Args:
          counts: of the questions.
          pairs: what is compared.
          tiles: the shapes.
          mesh: the devices.
          compact: see `Shape`; None = on all devices but CPUs.
        """
        self._compact = mesh.devices.flat[0].platform != "cpu" if compact is None else compact
        self._pairs, self._tiles, self.mesh = pairs, tiles, mesh
        self._of_texts = [count for count in counts if count.by_text]
        self._of_videos = [count for count in counts if not count.by_text]
        self._grouped = tuple(count.question != AMONG_CAPTIONS for count in self._of_videos)
        self._near = margin(pairs.text.width, epsilon=float(np.finfo(np.float32).eps))

    def gallery(self, piece: slice) -> Arrays:
        """Put the videos of a piece on all devices; the last one is filled up to the size of the others."""
        size = self._tiles.piece * self._tiles.columns
        places = np.arange(piece.start, piece.start + size)
        return self._placed(places, self._pairs.video, self._of_videos, real=places < piece.stop, axis=None)

    def rows(self, block: RowBlock) -> Arrays:
        """Put the texts of a block on the devices, each its share."""
        return self._placed(block.texts, self._pairs.text, self._of_texts, real=block.texts >= 0, axis=AXIS)

    def call(self, block: RowBlock, *, gallery: Arrays, piece: slice) -> Arrays:
        """Start the count of a block with a piece and its `gallery`; the results are awaited by `collect`."""
        return count_tiles(gallery, self.rows(block), shape=self.shape(block, piece=piece), mesh=self.mesh)

    def shape(self, block: RowBlock, *, piece: slice) -> Shape:
        """Return for what the program of a block and a piece is compiled."""
        full = bool((block.texts >= 0).all()) and piece.stop - piece.start == self._tiles.piece * self._tiles.columns
        return Shape(
            columns=self._tiles.columns, width=block.width, grouped=self._grouped, full=full, compact=self._compact
        )

    def collect(self, made: Arrays, *, block: RowBlock, piece: slice) -> None:
        """Add the results of a call to the counts, and decide the pairs that it left open."""
        real = block.texts >= 0
        above = np.asarray(made["text_above"])
        for k, count in enumerate(self._of_texts):
            count.add_above(block.texts[real], above=above[k, real])
        above = np.asarray(made["video_above"]).sum(axis=0)
        for k, count in enumerate(self._of_videos):
            count.add_above(piece, above=above[k, : piece.stop - piece.start])
        by_group = [grouped and block.width > 1 for grouped in self._grouped]
        several = list(itertools.compress(self._of_videos, by_group))
        single = self._of_texts + [count for count in self._of_videos if count not in several]
        if single:
            for texts, videos in self._opened(made["open_pairs"], of_row=block.texts, first=piece.start):
                decide(single, pairs=self._pairs, texts=texts, videos=videos)
        if several:
            for groups, videos in self._opened(made["open_groups"], of_row=block.groups, first=piece.start):
                decide_groups(several, pairs=self._pairs, groups=groups, videos=videos)

    def _opened(self, found: Any, *, of_row: np.ndarray, first: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the open pairs of each device: texts or groups, and videos."""
        pairs = open_pairs(found)
        for own_rows, (tile, row, column) in zip(np.split(of_row, len(pairs)), pairs, strict=True):
            yield own_rows[row], first + tile * self._tiles.columns + column

    def _placed(
        self, places: np.ndarray, rows: UnitRows, counts: Sequence[Count], *, real: np.ndarray, axis: str | None
    ) -> Arrays:
        """Put rows and the bounds of their questions on the devices: split over `axis`, or whole."""
        unit = np.empty((len(places), rows.width), np.float32)
        rows.write_float32(np.where(real, places, 0), out=unit)
        unit[~real] = 0
        best = np.full((len(counts), len(places)), np.inf)
        for k, count in enumerate(counts):
            best[k, real] = count.best[places[real]]
        low = np.nextafter((best - self._near).astype(np.float32), np.float32(-np.inf))
        high = np.nextafter((best + self._near).astype(np.float32), np.float32(np.inf))
        low = np.where(np.isinf(best), np.float32(np.inf), low)
        by_row, by_column = PartitionSpec(axis), PartitionSpec(None, axis)
        arrays = {"rows": unit, "real": real, "low": low, "high": high}
        split = {"rows": by_row, "real": by_row, "low": by_column, "high": by_column}
        return jax.device_put(arrays, {name: NamedSharding(self.mesh, spec) for name, spec in split.items()})
