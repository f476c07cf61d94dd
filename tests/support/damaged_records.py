"""Records of which a frame is damaged on its way from the disk."""

from collections.abc import Callable

import pytest

from twinreel.data.batches.records import Records
from twinreel.data.tf_cpu import tf


def damage_frames(monkeypatch: pytest.MonkeyPatch, *, index: int, change: Callable[[bytes], bytes]) -> None:
    """Change the frames of record `index` whenever it is read."""
    whole = Records.read

    def read(self, split, indices):
        records = whole(self, split, indices)
        for place, one in enumerate(indices):
            if one == index:
                example = tf.train.Example.FromString(records[place])
                frames = example.features.feature["frames"].bytes_list.value
                frames[:] = [change(frame) for frame in frames]
                records[place] = example.SerializeToString()
        return records

    monkeypatch.setattr(Records, "read", read)
