"""The sound of a clip: which, when, and on the time line of the pictures."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition

from twinreel.data.media.decode import DecodeOptions, decode_clip, read_rgb
from twinreel.data.media.sound import is_silent

EVERY = DecodeOptions(fps=None, short_side=0)
LEVELS = tuple(range(10, 250, 10))  # 24 frames that can be told apart


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


def test_sound_and_pictures_share_the_window(tmp_path, media, pictures):
    """The tone changes every second; windows of a long file, sought and not, hear the right ones."""
    hertz = [300 + 200 * second for second in range(12)]
    sound = np.concatenate([media.tone(1.0, hertz=h, rate=44_100) for h in hertz])
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS[:12]), fps=1, sound=sound, sound_rate=44_100)
    for start in (0, 3, 7, 10):
        clip = decode_clip(path, options=EVERY, start_s=float(start), end_s=start + 2.0)
        assert clip.audio.shape == (32_000,)
        assert loudest_hertz(clip.audio[1600:14_400]) == pytest.approx(hertz[start], abs=5)
        assert loudest_hertz(clip.audio[17_600:30_400]) == pytest.approx(hertz[start + 1], abs=5)
        assert pictures.levels(
            read_rgb(path, options=EVERY, start_s=start, end_s=start + 2)[k][1] for k in (0, 1)
        ) == list(LEVELS[start : start + 2])


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


def several_tracks(path, media, tracks):
    """A film of 2 s with a sound track for each `(hertz, disposition)`; hertz 0 = silence."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=8)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        streams = [container.add_stream("aac", rate=16_000, layout="mono") for _ in tracks]
        for stream, (_, disposition) in zip(streams, tracks, strict=True):
            stream.disposition = disposition
        for picture in media.grey(*LEVELS[:16]):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream, (hertz, _) in zip(streams, tracks, strict=True):
            tone = media.tone(2.0, hertz=hertz) if hertz else np.zeros(32_000, np.int16)
            frame = av.AudioFrame.from_ndarray(tone[None], format="s16p", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        container.mux(video.encode(None))
    return path


NONE, DEFAULT, COMMENT = Disposition(0), Disposition.default, Disposition.comment
SEEN_TO = Disposition.visual_impaired


@pytest.mark.parametrize(
    ("tracks", "chosen"),
    [
        ([(300, NONE), (600, DEFAULT), (900, NONE)], 600),
        ([(300, COMMENT | DEFAULT), (600, NONE)], 600),
        ([(300, SEEN_TO), (600, COMMENT), (900, NONE)], 900),
        ([(300, DEFAULT), (600, DEFAULT)], 300),
    ],
)
def test_main_track_is_chosen_by_its_flags(tmp_path, media, tracks, chosen):
    clip = decode_clip(several_tracks(tmp_path / "a.mkv", media, tracks), options=DecodeOptions())
    assert loudest_hertz(clip.audio) == pytest.approx(chosen, abs=3)
    assert clip.notes == ("several sound tracks, the main one taken",)


def test_silent_track_is_told_of_and_not_kept(tmp_path, media):
    clip = decode_clip(several_tracks(tmp_path / "a.mkv", media, [(0, DEFAULT)]), options=DecodeOptions())
    assert clip.audio is None and clip.silent
    assert clip.notes == ("silent sound track left out",)
    heard = decode_clip(several_tracks(tmp_path / "b.mkv", media, [(440, DEFAULT)]), options=DecodeOptions())
    assert heard.audio is not None and not heard.silent and heard.notes == ()
    assert not decode_clip(media.write(tmp_path / "c.mp4", media.grey(1, 2)), options=DecodeOptions()).silent
    quiet = np.round(media.tone(1.0) / 16384 * 20).astype(np.int16)
    assert is_silent(quiet // 4) and not is_silent(quiet) and is_silent(quiet[:0])


def test_sound_goes_with_pictures_whose_stamps_start_again(tmp_path, media, pictures):
    """Three recordings, put one after the other as a camera does with its transport streams: each starts at 0 again."""
    parts = []
    for n, hertz in enumerate((400, 800, 1200)):
        part = media.write(
            tmp_path / f"{n}.ts",
            media.grey(*LEVELS[8 * n : 8 * n + 8]),
            fps=4,
            sound=media.tone(2.0, hertz=hertz),
            codec="mpeg2video",
        )
        parts.append(part.read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))
    clip = decode_clip(tmp_path / "joined.ts", options=EVERY)
    assert clip.duration_s == pytest.approx(6.0, abs=0.05)
    assert pictures.levels(rgb for _, rgb in read_rgb(tmp_path / "joined.ts", options=EVERY)) == list(LEVELS)
    assert len(clip.audio) == round(16_000 * clip.duration_s)
    for second, hertz in enumerate((400, 400, 800, 800, 1200, 1200)):
        heard = clip.audio[16_000 * second + 2000 : 16_000 * second + 14_000]
        assert loudest_hertz(heard) == pytest.approx(hertz, abs=3), second
        assert np.abs(heard.astype(int)).max() == pytest.approx(16_384, rel=0.1), second
