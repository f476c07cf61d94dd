"""Sound augmentation by its definition."""

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.transforms.sound import parse_audio


def run(declared: str, sound: np.ndarray, uniforms) -> np.ndarray:
    transform = parse_audio(declared, field="config.data.train_audio")
    out = transform(sound, uniforms=np.resize(np.asarray(uniforms, np.float32), transform.draws))
    assert out.dtype == np.int16 and out.shape == sound.shape
    return out


SOUND = np.round(6000 * np.sin(np.arange(16_000) / 7)).astype(np.int16)


def test_gain_in_decibels_clips_and_does_not_wrap():
    assert np.abs(run("gain(6)", SOUND, 0.75) - SOUND * 10 ** (3 / 20)).max() <= 0.51
    loud = run("gain(60)", SOUND, 0.9)
    assert loud.max() == 32767 and loud.min() == -32768 and ((loud > 0) == (SOUND > 0)).all()


def test_noise_has_its_ratio_to_the_sound():
    noise = run("noise(20)", SOUND, 0.3).astype(float) - SOUND
    ratio = 10 * np.log10(np.mean(np.square(SOUND, dtype=float)) / np.mean(noise**2))
    assert ratio == pytest.approx(20, abs=0.2)
    assert (run("noise(20)", SOUND, 0.4).astype(float) - SOUND != noise).any()
    assert not run("noise(20)", np.zeros(100, np.int16), 0.3).any()
    assert len(run("noise(20)|gain(3)|shift(1)", SOUND[:0], 0.3)) == 0


def test_shift_both_ways_and_beyond_the_end():
    later = run("shift(0.5)", SOUND, 0.75)  # a quarter of a second
    assert not later[:4000].any() and (later[4000:] == SOUND[:-4000]).all()
    sooner = run("shift(0.5)", SOUND, 0.25)
    assert not sooner[-4000:].any() and (sooner[:-4000] == SOUND[4000:]).all()
    assert not run("shift(600)", SOUND, 0.9).any()


def test_mistakes_are_named():
    for declared, message in (("gian(3)", "did you mean 'gain'"), ("gain(0)", "db"), ("shift(-1)", "seconds")):
        with pytest.raises(UserError, match=rf"config\.data\.train_audio.*{message}"):
            parse_audio(declared, field="config.data.train_audio")
    assert parse_audio("", field="f").draws == 0
