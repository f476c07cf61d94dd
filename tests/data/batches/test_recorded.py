"""Records come back as the clips that were decoded."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.recorded import clip_of_record
from twinreel.data.batches.records import Records
from twinreel.data.media.clip import DecodeOptions
from twinreel.data.media.decode import decode_clip


def test_a_record_is_the_clip_of_its_file(tiny_data):
    records = Records(tiny_data)
    row = records.rows("val")[3]
    names = ("fps", "short_side", "jpeg_quality")
    wanted = decode_clip(
        tiny_data.parent / "videos" / row["file"],
        options=DecodeOptions(**{name: records.options[name] for name in names}),
    )
    got = clip_of_record(records, split="val", index=3, sound=True)
    assert got.encoded == wanted.encoded and (got.height, got.width) == (wanted.height, wanted.width)
    np.testing.assert_array_equal(got.timestamps_s, wanted.timestamps_s)
    np.testing.assert_array_equal(got.audio, wanted.audio)
    assert got.duration_s == pytest.approx(wanted.duration_s, abs=1e-4)
    assert clip_of_record(records, split="val", index=3).audio is None


def test_damaged_records_are_named(tiny_data, monkeypatch):
    monkeypatch.setattr(Records, "read", lambda self, split, indices: [b"\xff\xff"])
    with pytest.raises(UserError, match="record 1 of split 'val' is damaged"):
        clip_of_record(Records(tiny_data), split="val", index=1)
