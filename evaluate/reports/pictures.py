"""The frames of clips in prepared records, for the pictures of reports."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ...data.batches.records import Records


def clip_frames(records: "Records", *, split: str, index: int) -> tuple[list[bytes], np.ndarray]:
    """Return the JPEG bytes of a record's frames and their times, float32 [frames], seconds from the clip's start."""
    from ...data.batches.records import Record

    record = Record(records.read(split, [index])[0])
    times = record.timestamps_s
    return record.frames(range(len(times))), times
