"""Decoding against PyAV itself: which frames, and when; and what is refused, why."""

import re
import struct
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import simplejpeg

from twinreel.data.media.decode import DecodeError, DecodeOptions, decode_clip, read_rgb
from twinreel.data.media.pictures import InOrder, Sampler

EVERY = DecodeOptions(fps=None, short_side=0)
LEVELS = tuple(range(10, 250, 10))  # 24 frames that can be told apart


@pytest.mark.parametrize(("fps", "expected"), [(8, 24), (None, 24), (0, 24), (30, 24), (4, 12), (3, 9), (1, 3)])
def test_rate(tmp_path, media, fps, expected, pictures):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS), fps=8)
    clip = decode_clip(path, options=DecodeOptions(fps=fps, short_side=0))
    assert len(clip.encoded) == expected  # never more than the file has
    assert clip.duration_s == pytest.approx(3.0)
    rgb = read_rgb(path, options=DecodeOptions(fps=fps, short_side=0))
    step = 8 / fps if fps and fps < 8 else 1
    assert pictures.levels(rgb for _, rgb in rgb) == [LEVELS[int(k * step)] for k in range(expected)]


@pytest.mark.parametrize("fps", [None, 3, 7, 12])
def test_frames_are_those_that_pyav_shows_at_their_stamps(tmp_path, media, fps, pictures):
    stamps = [0, 40, 90, 95, 300, 310, 333, 700, 720, 1100, 1133, 1400]
    path = media.write(tmp_path / "a.mkv", pictures.moving(12), stamps_ms=[500 + stamp for stamp in stamps])
    expected = pictures.reference(path)
    kept = read_rgb(path, options=DecodeOptions(fps=fps, short_side=0))
    assert len({time for time, _ in kept}) == len(kept)
    for time, rgb in kept:
        shown = [picture for stamp, picture in expected if stamp <= time + 1e-6][-1]
        np.testing.assert_array_equal(rgb, shown)
    grid = (
        [time for time, _ in expected]
        if fps is None
        else np.arange(0, decode_clip(path, options=EVERY).duration_s - 1e-3, 1 / fps)
    )
    times = [max(stamp for stamp in stamps if stamp / 1000 <= point + 1e-3) / 1000 for point in grid]
    np.testing.assert_allclose([time for time, _ in kept], sorted(set(times)), atol=2e-3)


def test_jpeg_is_the_picture_up_to_compression(tmp_path, media, pictures):
    smooth = [np.repeat(np.linspace(level, 200, 64)[None, :, None], 48, 0).repeat(3, 2) for level in (0, 60, 120)]
    path = media.write(tmp_path / "a.mp4", [picture.astype(np.uint8) for picture in smooth])
    clip = decode_clip(path, options=EVERY)
    for jpeg, (_, rgb) in zip(clip.encoded, pictures.reference(path), strict=True):
        assert simplejpeg.decode_jpeg_header(jpeg)[:4] == (48, 64, "YCbCr", "420")
        assert np.abs(simplejpeg.decode_jpeg(jpeg).astype(int) - rgb).mean() < 1.5
    assert (clip.height, clip.width) == (48, 64)
    assert clip.timestamps_s.dtype == np.float32
    small = decode_clip(path, options=DecodeOptions(fps=None, short_side=0, jpeg_quality=30))
    assert sum(map(len, small.encoded)) < sum(map(len, clip.encoded))


@pytest.mark.parametrize(("start", "end"), [(None, 1.0), (0.5, None), (1.0, 2.0), (0.3, 0.4), (2.9, 99.0)])
def test_window(tmp_path, media, start, end, pictures):
    path = media.write(tmp_path / "a.mkv", media.grey(*LEVELS), stamps_ms=[125 * k + 700 for k in range(24)])
    first, last = start or 0.0, min(end or 3.0, 3.0)
    kept = read_rgb(path, options=EVERY, start_s=start, end_s=end)
    shown = [k for k in range(24) if (k + 1) / 8 > first + 1e-6 and k / 8 < last - 1e-6]
    assert pictures.levels(rgb for _, rgb in kept) == [LEVELS[k] for k in shown]
    np.testing.assert_allclose([time for time, _ in kept], [max(k / 8 - first, 0) for k in shown], atol=1e-6)
    clip = decode_clip(path, options=EVERY, start_s=start, end_s=end)
    assert clip.duration_s == pytest.approx(last - first, abs=2e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("start", [5.5, 7.03, 11.0])
def test_sought_window_equals_the_same_part_of_the_whole(tmp_path, media, suffix, start, pictures):
    frames = pictures.moving(96)
    path = media.write(tmp_path / f"a.{suffix}", frames, options={"crf": "20", "g": "20", "bf": "2"})
    whole = read_rgb(path, options=EVERY)
    part = read_rgb(path, options=EVERY, start_s=start, end_s=start + 0.8)
    expected = [(t, rgb) for t, rgb in whole if start - 0.125 + 1e-6 < t < start + 0.8 - 1e-3]
    assert [t for t, _ in part] == pytest.approx([max(t - start, 0) for t, _ in expected], abs=1e-5)
    for (_, rgb), (_, wanted) in zip(part, expected, strict=True):
        np.testing.assert_array_equal(rgb, wanted)


@pytest.mark.parametrize("seed", range(20))
def test_sampler_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice([0.01, 0.033, 0.04, 0.2, 0.7], 30))
    times -= times[0] + rng.choice([0.0, 0.5])
    fps, end = rng.choice([1.0, 6.0, 10.0, 24.0]), rng.choice([None, 2.0])
    sampler = Sampler(fps=fps, end=end)
    frames = [SimpleNamespace(number=n, duration=1, time_base=Fraction(1, 20)) for n in range(30)]
    kept = [sampler.push(time, frame) for time, frame in zip(times, frames, strict=True) if not sampler.past_end]
    last, duration = sampler.finish(0.04)
    got = [(time, frame.number) for time, frame in filter(None, [*kept, last])]
    stop = times[-1] + 0.05 if end is None else min(end, times[-1] + 0.05)
    assert duration == pytest.approx(stop)
    points = [k / fps for k in range(int(stop * fps) + 2) if k / fps < stop - 1e-3]
    shown = [[n for n in range(30) if times[n] <= point + 1e-3] for point in points]
    assert [number for _, number in got] == sorted({before[-1] for before in shown})
    assert all(time == max(times[number], 0) for time, number in got)


def in_order(stamps, interval=0.1):
    order = InOrder(interval)
    frames = [SimpleNamespace(pts=s, time_base=Fraction(1, 10), number=n) for n, s in enumerate(stamps)]
    pairs = [pair for frame in frames for pair in order.push(frame)] + list(order.flush())
    return [(round(time * 10), frame.number) for time, frame in pairs]


def test_stamps_are_put_in_order_and_filled_in():
    assert in_order([5, 6, 8, 7, 9]) == [(5, 0), (6, 1), (7, 2), (8, 3), (9, 4)]
    assert in_order([None, None, None]) == [(0, 0), (1, 1), (2, 2)]
    assert in_order([3, None, 5, 6]) == [(3, 0), (4, 1), (5, 2), (6, 3)]
    assert in_order([1, 2, 2, 3]) == [(1, 0), (2, 1), (3, 3)]
    assert in_order([90, 91, 92, 0, 1, 2]) == [(90, 0), (91, 1), (92, 2), (93, 3), (94, 4), (95, 5)]


def reason(path, **window):
    with pytest.raises(DecodeError) as error:
        decode_clip(path, options=DecodeOptions(max_seconds=20), **window)
    assert re.fullmatch(r"[a-z][^\n]{5,120}", str(error.value))
    return error.value.reason


def test_reasons(tmp_path, media):
    assert reason(tmp_path / "none.mp4") == "file does not exist"
    assert reason(tmp_path) == "file does not exist"
    (tmp_path / "empty.mp4").touch()
    assert reason(tmp_path / "empty.mp4") == "file is empty"
    (tmp_path / "text.mp4").write_text("this is not a video " * 100)
    assert reason(tmp_path / "text.mp4") == "cannot be opened"
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n#EXT-X-ENDLIST\n")
    assert reason(tmp_path / "list.m3u8") in ("cannot be opened", "no video stream")
    assert reason(media.write(tmp_path / "sound.mp4", None, sound=media.tone(1.0))) == "no video stream"
    good = media.write(tmp_path / "good.mp4", media.grey(*LEVELS), fps=1, sound=media.tone(24.0))
    (tmp_path / "cut.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    assert reason(tmp_path / "cut.mp4") == "cannot be opened"
    assert reason(good) == "longer than max_seconds=20"
    assert reason(good, start_s=1.0, end_s=22.0) == "longer than max_seconds=20"
    assert reason(good, start_s=24.5) == "window starts after the last picture"
    assert reason(good, start_s=60.0) == "window starts after the last picture"
    assert decode_clip(good, options=DecodeOptions(max_seconds=20), start_s=5.5).duration_s == pytest.approx(18.5)


def damage(path, share):
    """Overwrite the pictures of a part of the packets."""
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for place, size in places[1 : 1 + round(share * len(places))]:
        content[place + 8 : place + size] = bytes(size - 8)
    path.write_bytes(content)


def test_broken_packets_are_left_out_and_told_of(tmp_path, media):
    path = media.write(tmp_path / "a.mov", media.grey(*LEVELS), codec="png", pix_fmt="rgb24")
    damage(path, 0.25)
    clip = decode_clip(path, options=EVERY)
    assert len(clip.encoded) == 18
    assert clip.notes == ("broken picture packets left out",)
    assert clip.duration_s == pytest.approx(3.0)
    damage(path, 0.9)
    assert reason(path) in ("too many broken packets", "no frame could be decoded")


def test_file_that_was_cut_off_is_used_and_told_of(tmp_path, media, pictures):
    options = {"movflags": "faststart"}
    path = media.write(tmp_path / "a.mp4", pictures.moving(24), options={"g": "4"}, container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = decode_clip(path, options=EVERY)
    assert 6 <= len(clip.encoded) <= 18
    assert clip.notes[-1] == "pictures end before the time that the file states"
    assert clip.notes[-1] not in decode_clip(path, options=EVERY, end_s=0.5).notes


def test_headers_that_promise_too_much_are_refused_with_their_size(tmp_path, media):
    """Before there is memory for a picture: by our limit, or by the decoder's own."""
    limit, none = "pictures larger than max_pixels=67108864", "pictures larger than any decoder takes"
    raw = media.write(tmp_path / "raw.avi", media.grey(10, 20), codec="rawvideo").read_bytes()
    gif = media.write(tmp_path / "a.gif", media.grey(10, 20), codec="gif", pix_fmt="rgb8").read_bytes()
    place = raw.index(b"strf") + 12

    def sized(width, height):
        return raw[:place] + struct.pack("<II", width, height) + raw[place + 8 :]

    for name, content, wanted in (
        (
            "a.avi",
            raw[:place] + struct.pack("<II", 100_000, 100_000) + raw[place + 8 :],
            f"{none}: 100000 x 100000 pixels",
        ),
        ("b.avi", raw[:place] + struct.pack("<II", 12_000, 9_000) + raw[place + 8 :], f"{limit}: 12000 x 9000 pixels"),
        ("a.gif", gif[:6] + struct.pack("<HH", 65_535, 65_535) + gif[10:], f"{none}: 65535 x 65535 pixels"),
        ("a.y4m", b"YUV4MPEG2 W12000 H12000 F25:1 C420\nFRAME\n" + bytes(9), f"{limit}: 12000 x 12000 pixels"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DecodeError) as error:
            decode_clip(tmp_path / name, options=EVERY)
        assert str(error.value) == wanted
    path = media.write(tmp_path / "a.mp4", media.grey(10, 20, size=(32, 48)))
    with pytest.raises(DecodeError, match="max_pixels=1000: 48 x 32 pixels"):
        decode_clip(path, options=DecodeOptions(max_pixels=1000))
    assert decode_clip(path, options=DecodeOptions(max_pixels=1536)).width == 48


@pytest.mark.parametrize("size", [(1, 1), (1, 10_000), (10_000, 1), (3, 5), (31, 47)])
def test_sizes_out_of_the_ordinary(tmp_path, media, size):
    path = media.write(tmp_path / "a.mov", media.grey(10, 200, size=size), codec="png", pix_fmt="rgb24")
    clip = decode_clip(path, options=DecodeOptions(fps=None, short_side=16))
    scale = min(1, 16 / min(size))
    assert (clip.height, clip.width) == (round(size[0] * scale), round(size[1] * scale))
    assert [round(simplejpeg.decode_jpeg(jpeg).mean() / 10) for jpeg in clip.encoded] == [1, 20]


def test_a_side_that_jpeg_does_not_hold(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(10, size=(32, 14_000)), aspect=Fraction(4))
    assert decode_clip(path, options=EVERY).width == 56_000
    wide = media.write(tmp_path / "b.mp4", media.grey(10, size=(32, 14_000)), aspect=Fraction(5))
    with pytest.raises(DecodeError, match="a side of more than 65500 pixels: 70000 x 32 pixels"):
        decode_clip(wide, options=EVERY)


def test_frames_a_millisecond_apart_and_a_last_one_of_one_tick(tmp_path, media):
    path = media.write(
        tmp_path / "fast.mkv", media.grey(*LEVELS), stamps_ms=list(range(24)), codec="ffv1", pix_fmt="bgr0"
    )
    assert len(decode_clip(path, options=EVERY).encoded) == 24
    path = media.write(tmp_path / "tick.mkv", media.grey(*LEVELS[:4]), stamps_ms=[0, 40, 80, 120])
    clip = decode_clip(path, options=EVERY)
    assert len(clip.encoded) == 4 and clip.duration_s > 0.121
