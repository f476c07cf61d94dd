"""Moments of chunks against a loop over the whole file; parts of a decoded chunk against decoding just them."""

import numpy as np
import pytest

from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.encode.media.windows import Windows, part_of


def whole(length, *, seconds, overlap):
    """All moments of a clip, one after another."""
    found, start = [], 0.0
    while not found or length - start > overlap + 1e-3:
        found.append((round(start, 3), round(min(start + seconds, length), 3)))
        start += seconds - overlap
    return found


@pytest.mark.parametrize(("seconds", "overlap"), [(10.0, 5.0), (4.0, 2.0), (7.0, 0.0), (90.0, 30.0), (3.0, 2.5)])
@pytest.mark.parametrize("length", [0.04, 3.0, 10.0, 10.5, 60.0, 61.0, 119.9, 500.0])
def test_chunks_have_the_moments_of_the_whole_file(seconds, overlap, length):
    windows = Windows(seconds=seconds, overlap=overlap)
    found = []
    for number in range(windows.chunks(length)):
        start, end = windows.chunk(number)
        decoded = min(end, length) - start
        found += windows.moments(number, decoded_s=decoded, origin=100.0) if decoded > 0 else []
    assert [one.number for one in found] == list(range(len(found)))
    times = [(one.start_s - 100, one.end_s - 100) for one in found]
    np.testing.assert_allclose(times, whole(length, seconds=seconds, overlap=overlap), atol=2e-3)


def test_a_chunk_behind_the_end_has_no_moments():
    windows = Windows(seconds=10.0, overlap=5.0)
    assert windows.moments(1, decoded_s=5.0, origin=0.0) == []
    assert len(windows.moments(1, decoded_s=5.1, origin=0.0)) == 1


@pytest.mark.parametrize(("start", "end"), [(0.0, 4.0), (2.0, 6.0), (5.1, 9.05)])
def test_a_part_has_the_frames_that_decoding_it_gives(tmp_path, media, start, end):
    path = media.write(tmp_path / "a.mp4", media.grey(*range(0, 240, 3)))
    options = DecodeOptions(fps=None, short_side=0)
    part = part_of(decode_clip(path, options=options), start_s=start, end_s=end)
    alone = decode_clip(path, options=options, start_s=start, end_s=end)
    assert part.encoded == alone.encoded
    np.testing.assert_allclose(part.timestamps_s, alone.timestamps_s, atol=1e-3)
    assert part.duration_s == pytest.approx(alone.duration_s, abs=1e-3)


def test_the_sound_of_a_part(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(*range(0, 240, 10)), sound=media.tone(3))
    clip = decode_clip(path, options=DecodeOptions())
    part = part_of(clip, start_s=1.0, end_s=1.5)
    np.testing.assert_array_equal(part.audio, clip.audio[16_000:24_000])
