"""Records that show clips unlike those of the training are told of, each in one sentence."""

import pytest

from twinreel.data.batches.mismatch import record_mismatches

TRAINED = {"fps": 8.0, "short_side": 256, "audio": True}
ROWS = [{"num_frames": 20}] * 9 + [{"num_frames": 3}]


@pytest.mark.parametrize(
    ("changes", "sound", "rows", "words"),
    [
        ({}, True, ROWS[:9], []),
        ({"fps": 1.0}, False, [], ["1 frames/s", "trained on 8 frames/s", "--fps"]),
        ({"fps": None}, False, [], ["every frame", "trained on 8 frames/s"]),
        ({"short_side": 128}, False, [], ["128 pixels", "256 pixels", "--short_side"]),
        ({"short_side": 0}, False, [], ["the files' own size"]),
        ({"audio": False}, True, [], ["no sound"]),
        ({"audio": False}, False, [], []),
        ({}, False, ROWS, ["1 of 10 clips have fewer than the 8 frames"]),
    ],
)
def test_each_difference_is_one_sentence(changes, sound, rows, words):
    found = record_mismatches(trained=TRAINED, prepared=TRAINED | changes, rows=rows, num_frames=8, sound=sound)
    assert len(found) == bool(words)
    assert all(word in found[0] for word in words)


def test_an_old_checkpoint_that_does_not_say_is_not_accused():
    assert record_mismatches(trained={}, prepared=TRAINED, rows=[], num_frames=8, sound=False) == []
