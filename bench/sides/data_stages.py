"""CPU time per frame of each stage of the input pipeline, on its own and in one thread."""

import collections
import time
from collections.abc import Callable

import numpy as np

from ...data.batches.clip_graph import ClipGraph
from ...data.batches.reading import Read, Reader, Wanted
from ...data.batches.records import Record
from ...data.batches.source import open_sources
from ...data.options import DataOptions
from ...data.transforms.frames import decode_jpeg
from ...data.transforms.h264 import decode_units
from ...data.transforms.units import is_unit


def stages(data: DataOptions, *, clips: int = 64, rounds: int = 3) -> dict[str, float]:
    """Measure the stages of the training input.

    Args:
      data: options of one prepared folder.
      clips: number of clips to use, repeatedly.
      rounds: number of measurements, of which the fastest counts.

    Returns:
      CPU microseconds per frame: `read` the record's bytes, `parse` them, `draw` the random numbers and extract the
      frames (and sound), `decode` them in full, `transform` (crop and resize from the decoder's buffer into
      the batch, and all further transforms).
    """
    graph = ClipGraph.of(data, train=True)
    [source] = open_sources(data)
    reader = Reader([source], data=data, graph=graph, seed=0)
    count = min(clips, len(source.rows))
    frames = count * graph.num_frames

    def each(function: Callable[[int], object]) -> float:
        best = float("inf")
        for _ in range(rounds):
            begin = time.thread_time()
            for i in range(count):
                function(i)
            best = min(best, time.thread_time() - begin)
        return 1e6 * best / frames

    def read_row(i: int) -> Read:
        one = np.array([i])
        return reader.read(Wanted(source=np.zeros(1, int), record=one, epoch=np.zeros(1, int)))[0]

    records = [source.records.read(source.split, [i])[0] for i in range(count)]
    rows = [read_row(i) for i in range(count)]
    sizes = [{key: source.rows[i][key] for key in ("height", "width")} for i in range(count)]
    out = np.empty(graph.shape, np.uint8)

    def decode(i: int) -> None:
        encoded = rows[i].encoded[0]
        if is_unit(encoded[0]):
            collections.deque(decode_units(encoded, **sizes[i]), maxlen=0)
            return
        for jpeg in encoded:
            decode_jpeg(jpeg, **sizes[i])

    def transform(i: int) -> None:
        graph.decode(rows[i].encoded[0], **sizes[i], uniforms=rows[i].uniforms[0], out=out)

    read = each(lambda i: source.records.read(source.split, [i]))
    parse = each(lambda i: Record(records[i]))
    decoded = each(decode)
    return {
        "read": read,
        "parse": parse,
        "draw": max(0.0, each(read_row) - read - parse),
        "decode": decoded,
        "transform": max(0.0, each(transform) - decoded),
    }
