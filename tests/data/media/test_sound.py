"""The sound of a clip: which, when, and on the time line of the pictures."""

import av
import numpy as np
import pytest

from twinreel.data.media.decode import DecodeOptions, decode_clip, read_rgb

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
