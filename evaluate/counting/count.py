"""Ranks by counting: for each query the candidates above, and equal to, its best right one."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measures.ranks import Ranks
from .host import count_on_host
from .layout import RowBlock, Tiles, row_blocks
from .questions import Count, Pairs

if TYPE_CHECKING:
    from .devices import DeviceCounter

Step = tuple[slice, RowBlock]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountOptions:
    """How a count is done; the result does not depend on it.

    Attributes:
      host_pairs: sets of at most so many pairs are scored by NumPy, larger ones on the devices.
      host_bytes: memory for one block of scores there.
      tile_bytes: memory for a tile of scores on each device; 0 = 1 MiB on CPUs, which their cache holds, else 256 MiB.
      gallery_bytes: memory for the videos' rows that a device holds at a time.
      devices: the devices; None = all of this process.
      folder: where the counts of a long job are kept until it ends, so that it can continue; None keeps nothing.
      together: all processes count the same set, each its share of the blocks; all must call. False: this process
        counts all.
      progress: draw a progress bar on standard error.
      compact: gather open pairs on the devices, see `devices.Shape`; None = on all devices but CPUs.
    """

    host_pairs: int = 1 << 25
    host_bytes: int = 64 << 20
    tile_bytes: int = 0
    gallery_bytes: int = 256 << 20
    devices: Sequence[Any] | None = None
    folder: Path | None = None
    together: bool = False
    progress: bool = False
    compact: bool | None = None

    def tiles(self, pairs: Pairs, *, platform: str) -> Tiles:
        """Return the shapes of the tiles on devices of a platform."""
        tile_bytes = self.tile_bytes or (1 << 20 if platform == "cpu" else 256 << 20)
        sizes = {"texts": len(pairs.text), "videos": len(pairs.video), "dim": pairs.video.width}
        return Tiles.of(**sizes, tile_bytes=tile_bytes, gallery_bytes=self.gallery_bytes)


DEFAULTS = CountOptions()


def count_ranks(questions: Sequence[str], *, pairs: Pairs, options: CountOptions = DEFAULTS) -> dict[str, Ranks]:
    """Rank all queries of the given questions; each pair is scored once, and no [n,m] array is held.

    Args:
      questions: of `questions.QUESTIONS`.
      pairs: the rows.
      options: how.

    Returns:
      The question -> its ranks.

    Raises:
      UserError: a row that is zero or not finite.
    """
    counts = [Count(question, pairs=pairs) for question in questions]
    texts, videos = len(pairs.text), len(pairs.video)
    if texts * videos <= options.host_pairs and videos * pairs.video.width <= options.host_pairs:
        count_on_host(counts, pairs=pairs, block_bytes=options.host_bytes)
    else:
        _count_on_devices(counts, pairs=pairs, options=options)
    return {count.question: count.ranks() for count in counts}


def _count_on_devices(counts: Sequence[Count], *, pairs: Pairs, options: CountOptions) -> None:
    import jax

    from ...engine.start.processes import of_all
    from ..progress import pairs_bar
    from .devices import DeviceCounter, device_mesh
    from .kept import Kept, digest_of

    mesh = device_mesh(options.devices)
    tiles = options.tiles(pairs, platform=mesh.devices.flat[0].platform)
    process = (jax.process_index(), jax.process_count()) if options.together else (0, 1)
    blocks = row_blocks(pairs, rows=tiles.rows, devices=mesh.size)[process[0] :: process[1]]
    steps = [(piece, block) for piece in tiles.pieces(len(pairs.video)) for block in blocks]
    digest = digest_of(pairs, counts=counts, shapes=f"{tiles} {mesh.size} {process}") if options.folder else ""
    kept = Kept(options.folder, digest=digest, process=process)
    done = kept.restore(counts)

    counter = DeviceCounter(counts, pairs=pairs, tiles=tiles, mesh=mesh, compact=options.compact)
    sizes = [int(np.count_nonzero(block.texts >= 0)) * (piece.stop - piece.start) for piece, block in steps]
    with pairs_bar(total=sum(sizes), done=sum(sizes[:done]), progress=options.progress) as advance:
        for number, (piece, block, made) in enumerate(_calls(counter, steps[done:]), start=done):
            counter.collect(made, block=block, piece=piece)
            advance(sizes[number])
            kept.save(counts, done=number + 1)
    if process[1] > 1:
        for count in counts:
            count.counts[:] = of_all(count.counts.astype(np.int32)[None]).sum(axis=0)
    kept.remove()


def _calls(counter: "DeviceCounter", steps: Sequence[Step]) -> Iterator[tuple[slice, RowBlock, dict[str, Any]]]:
    """Yield each step with its results; the call of the next one is under way meanwhile."""
    held, gallery, before = None, {}, None
    for piece, block in steps:
        if piece != held:
            held, gallery = piece, counter.gallery(piece)
        made = counter.call(block, gallery=gallery, piece=piece)
        if before:
            yield before
        before = piece, block, made
    if before:
        yield before
