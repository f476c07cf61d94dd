"""Decoding against PyAV itself: which frames, when, which way up, how large, which sound; and what is refused, why."""

import dataclasses
import re
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import simplejpeg

from twinreel.data.media.decode import DecodeError, DecodeOptions, decode_clip, read_rgb
from twinreel.data.media.pictures import InOrder, Sampler
from twinreel.data.media.workers import Job, decode_in_order

EVERY = DecodeOptions(fps=None, short_side=0)
LEVELS = tuple(range(10, 250, 10))  # 24 frames that can be told apart


def reference(path):
    """All frames by PyAV's own conversion: (seconds since the first one, uint8 [H,W,3])."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [(time - frames[0][0], rgb) for time, rgb in frames]


def levels(frames):
    return [round(float(rgb.mean()) / 10) * 10 for rgb in frames]


def moving(count, size=(48, 64)):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (size[0], size[1] + count, 3), dtype=np.uint8)
    return [picture[:, index : index + size[1]] for index in range(count)]


# --- which frames, and when ---


@pytest.mark.parametrize(("fps", "expected"), [(8, 24), (None, 24), (0, 24), (30, 24), (4, 12), (3, 9), (1, 3)])
def test_rate(tmp_path, media, fps, expected):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS), fps=8)
    clip = decode_clip(path, options=DecodeOptions(fps=fps, short_side=0))
    assert len(clip.jpegs) == expected  # never more than the file has
    assert clip.duration_s == pytest.approx(3.0)
    rgb = read_rgb(path, options=DecodeOptions(fps=fps, short_side=0))
    step = 8 / fps if fps and fps < 8 else 1
    assert levels(rgb for _, rgb in rgb) == [LEVELS[int(k * step)] for k in range(expected)]


@pytest.mark.parametrize("fps", [None, 3, 7, 12])
def test_frames_are_those_that_pyav_shows_at_their_stamps(tmp_path, media, fps):
    stamps = [0, 40, 90, 95, 300, 310, 333, 700, 720, 1100, 1133, 1400]
    path = media.write(tmp_path / "a.mkv", moving(12), stamps_ms=[500 + stamp for stamp in stamps])
    expected = reference(path)
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


def test_jpeg_is_the_picture_up_to_compression(tmp_path, media):
    smooth = [np.repeat(np.linspace(level, 200, 64)[None, :, None], 48, 0).repeat(3, 2) for level in (0, 60, 120)]
    path = media.write(tmp_path / "a.mp4", [picture.astype(np.uint8) for picture in smooth])
    clip = decode_clip(path, options=EVERY)
    for jpeg, (_, rgb) in zip(clip.jpegs, reference(path), strict=True):
        assert simplejpeg.decode_jpeg_header(jpeg)[:4] == (48, 64, "YCbCr", "420")
        assert np.abs(simplejpeg.decode_jpeg(jpeg).astype(int) - rgb).mean() < 1.5
    assert (clip.height, clip.width) == (48, 64)
    assert clip.timestamps_s.dtype == np.float32
    small = decode_clip(path, options=DecodeOptions(fps=None, short_side=0, jpeg_quality=30))
    assert sum(map(len, small.jpegs)) < sum(map(len, clip.jpegs))


@pytest.mark.parametrize(("start", "end"), [(None, 1.0), (0.5, None), (1.0, 2.0), (0.3, 0.4), (2.9, 99.0)])
def test_window(tmp_path, media, start, end):
    path = media.write(tmp_path / "a.mkv", media.grey(*LEVELS), stamps_ms=[125 * k + 700 for k in range(24)])
    first, last = start or 0.0, min(end or 3.0, 3.0)
    kept = read_rgb(path, options=EVERY, start_s=start, end_s=end)
    shown = [k for k in range(24) if (k + 1) / 8 > first + 1e-6 and k / 8 < last - 1e-6]
    assert levels(rgb for _, rgb in kept) == [LEVELS[k] for k in shown]
    np.testing.assert_allclose([time for time, _ in kept], [max(k / 8 - first, 0) for k in shown], atol=1e-6)
    clip = decode_clip(path, options=EVERY, start_s=start, end_s=end)
    assert clip.duration_s == pytest.approx(last - first, abs=2e-3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
@pytest.mark.parametrize("start", [5.5, 7.03, 11.0])
def test_sought_window_equals_the_same_part_of_the_whole(tmp_path, media, suffix, start):
    frames = moving(96)
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


# --- how they look ---


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((90, 160), 45, (45, 80)), ((160, 90), 45, (80, 45)), ((90, 160), 200, (90, 160)), ((90, 160), 0, (90, 160))],
)
def test_short_side(tmp_path, media, size, short_side, expected):
    path = media.write(tmp_path / "a.mp4", moving(3, size))
    clip = decode_clip(path, options=DecodeOptions(short_side=short_side))
    assert (clip.height, clip.width) == expected
    assert simplejpeg.decode_jpeg(clip.jpegs[0]).shape == (*expected, 3)


def test_scaling_averages_areas(tmp_path, media):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200  # finer than the small picture: point sampling would see all or nothing
    path = media.write(tmp_path / "a.mkv", [stripes] * 2, codec="ffv1", pix_fmt="bgr0", options={})
    small = read_rgb(path, options=DecodeOptions(short_side=16))[0][1]
    assert small.shape == (16, 16, 3)
    assert np.abs(small.astype(int) - 100).max() <= 2


def test_pixels_become_square(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", moving(2, (48, 32)), aspect=Fraction(2, 1))
    clip = decode_clip(path, options=DecodeOptions(short_side=24))
    assert (clip.height, clip.width) == (24, 32)
    clip = decode_clip(path, options=DecodeOptions(short_side=0))
    assert (clip.height, clip.width) == (48, 64)


MATRICES = {  # a point (x, y) is shown at (a x + c y, b x + d y): (a, b, c, d) and the same in numpy
    "none": ((1, 0, 0, 1), lambda x: x),
    "90 right": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "90 left": ((0, -1, 1, 0), lambda x: np.rot90(x)),
    "180": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "other diagonal": ((0, -1, -1, 0), lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrix(tmp_path, media, name):
    (a, b, c, d), turn = MATRICES[name]
    path = media.write(tmp_path / "a.mp4", moving(2))
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44  # after version, times, track, duration, layer, volume
    matrix = np.array([a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 2**30])
    assert content[place : place + 4] == (65536).to_bytes(4, "big")
    content[place : place + 36] = matrix.astype(">i4").tobytes()
    path.write_bytes(content)
    upright = read_rgb(path, options=EVERY)
    for (_, rgb), (_, raw) in zip(upright, reference(path), strict=True):
        np.testing.assert_array_equal(rgb, turn(raw))
    clip = decode_clip(path, options=DecodeOptions(short_side=24))
    assert (clip.height, clip.width) == ((32, 24) if a == 0 else (24, 32))


# --- sound ---


def loudest_hertz(samples, rate=16_000):
    spectrum = np.abs(np.fft.rfft(samples.astype(float) * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 1), (8_000, 2)])
def test_sound_is_16_khz_mono(tmp_path, media, rate, channels):
    sound = np.stack([media.tone(2.0, rate=rate)] * channels)
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS[:16]), sound=sound, sound_rate=rate)
    clip = decode_clip(path, options=DecodeOptions())
    assert clip.audio.dtype == np.int16
    assert clip.audio.shape == (32_000,)
    assert loudest_hertz(clip.audio) == pytest.approx(440, abs=2)
    assert np.abs(clip.audio[4000:-4000].astype(int)).max() == pytest.approx(16384, rel=0.05)
    assert decode_clip(path, options=DecodeOptions(audio=False)).audio is None


def test_sound_and_pictures_share_the_window(tmp_path, media):
    """The tone changes every second; windows of a long file, sought and not, hear the right ones."""
    hertz = [300 + 200 * second for second in range(12)]
    sound = np.concatenate([media.tone(1.0, hertz=h, rate=44_100) for h in hertz])
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS[:12]), fps=1, sound=sound, sound_rate=44_100)
    for start in (0, 3, 7, 10):
        clip = decode_clip(path, options=EVERY, start_s=float(start), end_s=start + 2.0)
        assert clip.audio.shape == (32_000,)
        assert loudest_hertz(clip.audio[1600:14_400]) == pytest.approx(hertz[start], abs=5)
        assert loudest_hertz(clip.audio[17_600:30_400]) == pytest.approx(hertz[start + 1], abs=5)
        assert levels(read_rgb(path, options=EVERY, start_s=start, end_s=start + 2)[k][1] for k in (0, 1)) == list(
            LEVELS[start : start + 2]
        )


def test_late_short_and_missing_sound(tmp_path, media):
    path = media.write(tmp_path / "late.mkv", media.grey(*LEVELS[:16]), sound=media.tone(0.5), sound_from_s=1.0, fps=8)
    audio = decode_clip(path, options=DecodeOptions()).audio
    assert audio.shape == (32_000,)
    loud = np.flatnonzero(np.abs(audio.astype(int)) > 3000)
    assert loud[0] == pytest.approx(16_000, abs=400)
    assert loud[-1] == pytest.approx(24_000, abs=1100)  # AAC codes blocks of 1024 samples
    assert decode_clip(path, options=DecodeOptions(), end_s=0.5).audio is None
    assert decode_clip(media.write(tmp_path / "mute.mp4", media.grey(1, 2)), options=DecodeOptions()).audio is None


def remux(path, out, change):
    """Copy a file packet by packet; `change(packet)` for each packet of the sound, dropped where it returns False."""
    with av.open(str(path)) as source, av.open(str(out), "w") as target:
        streams = {stream: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None and (packet.stream.type == "video" or change(packet) is not False):
                packet.stream = streams[packet.stream]
                target.mux(packet)
    return out


def test_sound_with_a_gap_and_sound_without_useful_stamps(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS[:16]), sound=media.tone(2.0))
    whole = decode_clip(path, options=DecodeOptions()).audio

    gap = remux(path, tmp_path / "gap.mkv", lambda packet: not 0.5 < packet.pts * packet.time_base < 1.5)
    audio = decode_clip(gap, options=DecodeOptions()).audio
    assert audio.shape == whole.shape
    assert np.abs(audio[10_500:23_500].astype(int)).max() < 10  # silence where packets are missing
    np.testing.assert_array_equal(audio[25_600:31_000], whole[25_600:31_000])  # and what follows is in its place

    def stuck(packet):
        packet.pts = packet.dts = 0

    audio = decode_clip(remux(path, tmp_path / "stuck.mp4", stuck), options=DecodeOptions()).audio
    assert loudest_hertz(audio) == pytest.approx(440, abs=2)
    assert np.abs(audio[6000:-6000].astype(int)).max() == pytest.approx(16384, rel=0.05)


# --- what cannot be used ---


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
    assert len(clip.jpegs) == 18
    assert clip.notes == ("broken picture packets left out",)
    assert clip.duration_s == pytest.approx(3.0)
    damage(path, 0.9)
    assert reason(path) in ("too many broken packets", "no frame could be decoded")


def test_file_that_was_cut_off_is_used_and_told_of(tmp_path, media):
    options = {"movflags": "faststart"}
    path = media.write(tmp_path / "a.mp4", moving(24), options={"g": "4"}, container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = decode_clip(path, options=EVERY)
    assert 6 <= len(clip.jpegs) <= 18
    assert clip.notes[-1] == "pictures end before the time that the file states"
    assert clip.notes[-1] not in decode_clip(path, options=EVERY, end_s=0.5).notes


# --- worker processes ---


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bomb(DecodeOptions):
    """Ends the process that receives it, as a crash of a decoder would: it knows no such option."""

    bomb: int = 1


def test_workers_keep_the_order_and_survive_a_crash(tmp_path, media):
    paths = [media.write(tmp_path / f"{n}.mp4", media.grey(*LEVELS[: n + 1])) for n in range(9)]
    jobs = [Job(path=path, options=EVERY) for path in paths]
    jobs[4] = Job(path=paths[4], options=Bomb())
    jobs.insert(2, DecodeError("no caption"))
    results = list(decode_in_order(jobs, workers=2))
    assert [str(r) if isinstance(r, DecodeError) else len(r.jpegs) for r in results] == [
        *(1, 2, "no caption", 3, 4, "the decoder crashed: exit status 1", 6, 7, 8, 9)
    ]


def test_workers_that_are_left_early_end(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS))
    results = decode_in_order((Job(path=path, options=EVERY) for _ in range(1000)), workers=2)
    assert len(next(results).jpegs) == 24
    results.close()


# --- real files ---


@pytest.mark.real
def test_odd_files(real_dir):
    """Files of other projects' tests: each is decoded, or refused for a reason that a person understands."""
    odd = real_dir / "odd"
    reasons = {
        "exoplayer__audio.mp3": "no video stream: cover art only",
        "exoplayer__sample_ac4.mp4": "no video stream: sound only",
        "exoplayer__subsample_encrypted_noaltref.webm": "no frame could be decoded",
        "exoplayer__invalid-bitstream.webm": "no frame could be decoded",
        "exoplayer__sample_fragmented_sideloaded_track.mp4": "cannot be opened: Invalid data found",
    }
    for name, wanted in reasons.items():
        with pytest.raises(DecodeError, match=wanted):
            decode_clip(odd / name, options=DecodeOptions())
    sizes = {
        "decord__video_0.mov": (48, 85),
        "decord__video_90.mov": (85, 48),
        "decord__video_180.mov": (48, 85),
        "exoplayer__video_desks.3gp": (48, 64),  # metadata that is not UTF-8
        "exoplayer__sample_h265.ts": (48, 85),
        "torchcodec__av1_video.mkv": (48, 85),
        "torchcodec__h265_10bits.mp4": (48, 48),
        "moviepy__bitmap.mp4": (1, 1),
        "moviepy__pigs_in_a_polka.gif": (48, 55),
    }
    for name, size in sizes.items():
        clip = decode_clip(odd / name, options=DecodeOptions(short_side=48))
        assert (clip.height, clip.width) == size, name
        assert clip.timestamps_s[0] == 0.0
        assert (np.diff(clip.timestamps_s) > 0).all()
    assert decode_clip(odd / "mmaction2__test.avi", options=EVERY).timestamps_s[:5] == pytest.approx(
        [0, 0.04, 0.08, 0.12, 0.16]  # stamps go backwards in the file
    )


@pytest.mark.real
def test_real_clips_against_pyav(real_dir):
    for path in sorted((real_dir / "clips").glob("*.mp4"))[::120]:
        expected = reference(path)
        for time, rgb in read_rgb(path, options=DecodeOptions(fps=2, short_side=0)):
            np.testing.assert_array_equal(rgb, [raw for stamp, raw in expected if stamp <= time + 1e-6][-1])
