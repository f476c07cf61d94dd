"""Memory for batches that is used again: page faults of fresh memory cost more than to write the pixels."""

import mmap
import threading
import weakref

import numpy as np

_SMALL = 2**16  # bytes, below which the C library's memory is as good
_SPARE = 4  # blocks that are kept while nobody uses them


class Blocks:
    """Gives out blocks of memory and takes each back when the last array (or tensor) that looks into it is gone."""

    def __init__(self) -> None:
        """Begin without a block."""
        self._spare: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def array(self, size: int) -> np.ndarray:
        """Return uint8 [size], not initialised; larger ones are aligned to a page."""
        if size < _SMALL:
            return np.empty(size, np.uint8)
        with self._lock:
            place = next((i for i, block in enumerate(self._spare) if len(block) == size), None)
            block = self._spare.pop(place) if place is not None else None
        if block is None:
            block = mmap.mmap(-1, size)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                block.madvise(mmap.MADV_HUGEPAGE)
        # Every array that looks into the block refers to `whole`, at whatever remove: it goes last.
        whole = np.frombuffer(block, np.uint8)
        weakref.finalize(whole, self._take_back, block).atexit = False
        return whole

    def _take_back(self, block: mmap.mmap) -> None:
        with self._lock:
            self._spare = [*self._spare, block][-_SPARE:]
