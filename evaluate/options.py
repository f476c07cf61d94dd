"""What every measurement of a model on a prepared split has in common."""

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..data.options import FeedOptions


THUMBNAILS = 1000
"""Clips that have a thumbnail on a page, at most, unless another number is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """Which split is measured, and how its clips are embedded.

    Attributes:
      split: which split; "" = that of the benchmark, or "test".
      benchmark: name of the protocol to keep to, see `protocols.benchmark_list`; "" = none.
      batch_size: clips embedded at a time, over all devices.
      windows: windows V of each clip, evenly spread, whose embeddings are averaged.
      window_seconds: length of a window in seconds; 0 = the whole clip, or with several windows its V-th part.
      clip_side: what stands for a clip: "video", or the side of the model's fusion, such as "video+audio"; "" = the
        fused side if the model fuses video and sound, else "video".
      allow_missing: measure although clips of the split are missing.
      progress: draw progress bars on standard error.
    """

    split: str = ""
    benchmark: str = ""
    batch_size: int = 32
    windows: int = 1
    window_seconds: float = 0.0
    clip_side: str = ""
    allow_missing: bool = False
    progress: bool = True

    @property
    def feed(self) -> "FeedOptions":
        """How records become batches."""
        from ..data.options import FeedOptions

        return FeedOptions(batch_size=1, eval_clips=self.windows, window_seconds=self.window_seconds)
