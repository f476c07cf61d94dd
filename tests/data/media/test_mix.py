"""Several channels to one: what is heard in the file is heard in the record."""

from fractions import Fraction

import av
import numpy as np
import pytest

from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.media.mix import CANCELLED, OUTSIDE, Mixer, as_float, mono_gains

RATE = 16_000


def tone(seconds, *, hertz=440.0, level=9000):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def film(path, media, channels, *, layout, codec="pcm_s16le", seconds=2):
    """A film with sound `channels` [C,n]."""
    sound = np.round(np.stack(channels)).astype(np.int16)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=8, options={"preset": "ultrafast"})
        video.height, video.width, video.pix_fmt = 32, 48, "yuv420p"
        audio = container.add_stream(codec, rate=RATE, layout=layout)
        for picture in media.grey(*range(10, 10 + 8 * seconds)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for begin in range(0, sound.shape[1], 1000):
            part = np.ascontiguousarray(sound[:, begin : begin + 1000].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = RATE, begin, Fraction(1, RATE)
            container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    return path


def level_at(samples, hertz):
    """The amplitude of a tone in int16 [n]."""
    wave = np.exp(-2j * np.pi * hertz * np.arange(len(samples)) / RATE)
    return 2 * abs(np.mean(samples * wave))


def quiet(count, seconds=2):
    return [np.zeros(round(seconds * RATE))] * count


@pytest.mark.parametrize("share", [-1.0, -0.99, -0.8])
@pytest.mark.parametrize("layout", ["stereo", "5.1", "quad", "7.1"])
def test_channels_that_cancel_out_are_heard(tmp_path, media, share, layout):
    others = {"stereo": 0, "5.1": 4, "quad": 2, "7.1": 6}[layout]
    path = film(tmp_path / "a.mov", media, [tone(2), share * tone(2), *quiet(others)], layout=layout)
    clip = decode_clip(path, options=DecodeOptions())
    assert level_at(clip.audio, 440) == pytest.approx(9000, rel=0.02)
    assert clip.notes == (CANCELLED,) and not clip.silent


@pytest.mark.parametrize("share", [1.0, 0.5, 0.0, -0.3])
def test_channels_that_do_not_cancel_are_mixed_as_ever(tmp_path, media, share):
    path = film(tmp_path / "a.mov", media, [tone(2), share * tone(2)], layout="stereo")
    clip = decode_clip(path, options=DecodeOptions())
    assert level_at(clip.audio, 440) == pytest.approx(9000 * (1 + share) / 2, rel=0.02)
    assert clip.notes == ()


def test_the_mix_is_that_of_the_resampler(tmp_path, media):
    rng = np.random.default_rng(0)
    for layout, count in (("stereo", 2), ("5.1", 6), ("quad", 4)):
        channels = rng.normal(0, 3000, (count, 2 * RATE))
        path = film(tmp_path / f"{count}.mov", media, channels, layout=layout)
        resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
        with av.open(str(path)) as container:
            frames = [made for frame in container.decode(audio=0) for made in resampler.resample(frame)]
        wanted = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
        got = decode_clip(path, options=DecodeOptions()).audio
        assert np.abs(got[: len(wanted)].astype(int) - wanted[: len(got)]).max() <= 2, layout


def test_only_the_stretch_that_cancels_out_is_taken_from_one_channel(tmp_path, media):
    left = np.concatenate([tone(1, hertz=300), tone(1, hertz=600)])
    right = np.concatenate([tone(1, hertz=900), -tone(1, hertz=600)])
    clip = decode_clip(film(tmp_path / "a.mov", media, [left, right], layout="stereo"), options=DecodeOptions())
    first, second = clip.audio[:RATE], clip.audio[RATE:]
    assert [level_at(first, hertz) for hertz in (300, 900)] == pytest.approx([4500, 4500], rel=0.03)
    assert level_at(second, 600) == pytest.approx(9000, rel=0.03)
    assert clip.notes == (CANCELLED,)
    assert decode_clip(tmp_path / "a.mov", options=DecodeOptions(), end_s=0.75).notes == (), "it does not cancel there"


def test_the_louder_channel_is_taken_and_kept(tmp_path, media):
    path = film(tmp_path / "a.mov", media, [0.9 * tone(2), -tone(2)], layout="stereo")
    audio = decode_clip(path, options=DecodeOptions()).audio
    np.testing.assert_allclose(audio, -tone(2), atol=2)


def test_no_click_where_the_channel_changes(tmp_path, media):
    both = np.concatenate([tone(1), tone(1)])
    path = film(tmp_path / "a.mov", media, [both, np.concatenate([tone(1), -tone(1)])], layout="stereo")
    audio = decode_clip(path, options=DecodeOptions()).audio.astype(int)
    assert np.abs(np.diff(audio)).max() <= 9000 * 2 * np.pi * 440 / RATE * 1.2


def test_sound_in_the_low_frequency_channel_alone(tmp_path, media):
    path = film(tmp_path / "a.mov", media, [*quiet(3), tone(2, hertz=60), *quiet(2)], layout="5.1")
    clip = decode_clip(path, options=DecodeOptions())
    assert level_at(clip.audio, 60) == pytest.approx(9000, rel=0.02)
    assert clip.notes == (OUTSIDE,)


def test_channels_that_are_all_silent(tmp_path, media):
    clip = decode_clip(film(tmp_path / "a.mov", media, quiet(6), layout="5.1"), options=DecodeOptions())
    assert clip.silent and clip.notes == ("silent sound track left out",)


@pytest.mark.parametrize(("layout", "count"), [("3 channels", 3), ("16 channels", 16), ("hexadecagonal", 16)])
def test_every_channel_of_an_unusual_layout_is_heard(tmp_path, media, layout, count):
    channels = [tone(1, hertz=200 + 100 * n, level=20_000) for n in range(count)]
    path = film(tmp_path / "a.mov", media, channels, layout=layout, seconds=1)
    audio = decode_clip(path, options=DecodeOptions()).audio
    assert min(level_at(audio, 200 + 100 * n) for n in range(count)) > 0.6 * 20_000 / count


@pytest.mark.parametrize(("layout", "count"), [("mono", 1), ("stereo", 2), ("5.1", 6), ("22.2", 24), ("2 channels", 2)])
def test_gains_add_up_to_one(layout, count):
    gains = mono_gains(layout, count)
    assert gains.shape == (count,) and gains.sum() == pytest.approx(1) and (gains >= 0).all()


@pytest.mark.parametrize("form", ["u8", "s16", "s32", "flt", "dbl", "u8p", "s16p", "s32p", "fltp", "dblp"])
def test_samples_of_every_format(form):
    wanted = np.random.default_rng(0).uniform(-0.9, 0.9, (2, 50))
    packed = np.round(wanted * 32768).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(packed, format="s16p", layout="stereo")
    frame.sample_rate = RATE
    [converted] = av.AudioResampler(format=form, layout="stereo", rate=RATE).resample(frame)
    np.testing.assert_allclose(as_float(converted), packed / 32768, atol=0.01 if form.startswith("u8") else 1e-4)


def test_a_stretch_too_short_to_tell_is_mixed_as_the_one_before():
    """Tones a quarter of a period apart seem to cancel out where one of them passes zero."""
    mixer = Mixer("stereo", channels=2)
    samples = np.stack([np.full(40, 0.5), np.full(40, -0.5)]).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
    frame.sample_rate = RATE
    assert not mixer(frame).to_ndarray().any() and not mixer.notes
