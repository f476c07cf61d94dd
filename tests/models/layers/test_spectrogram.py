"""Log-mel against NumPy in float64; masks by their statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.models.layers.spectrogram import log_mel, mel_filters, spec_augment

SETTING = {"sample_rate": 16_000, "fft": 512, "mels": 40, "low_hz": 20.0, "high_hz": 8000.0}


def reference(sound: np.ndarray, *, window: int, hop: int, mels: int) -> np.ndarray:
    """By loops: frames, a discrete Fourier sum, triangles on the mel scale; float64."""

    def to_mel(f):
        return 2595 * np.log10(1 + f / 700)

    edges = np.linspace(to_mel(20), to_mel(8000), mels + 2)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(window)) / 512)
    rows = []
    for begin in range(0, len(sound) - window + 1, hop):
        power = np.abs(fourier @ (hann * sound[begin : begin + window] / 32768)) ** 2
        row = np.zeros(mels)
        for m in range(mels):
            low, middle, high = 700 * (10 ** (edges[m : m + 3] / 2595) - 1)
            for k in range(257):
                f = k * 16_000 / 512
                row[m] += power[k] * max(0, min((f - low) / (middle - low), (high - f) / (high - middle)))
        rows.append(np.log(np.maximum(row, 1e-6)))
    return np.array(rows)


def test_log_mel_by_the_definition():
    rng = np.random.default_rng(0)
    sound = (rng.standard_normal((2, 1700)) * [[3000], [40]]).astype(np.int16)
    got = np.asarray(log_mel(jnp.asarray(sound), mels=40))
    want = np.stack([reference(row, window=400, hop=160, mels=40) for row in sound])
    assert got.dtype == np.float32 and got.shape == (2, 9, 40)
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_a_tone_lights_its_own_mel_bin_and_silence_is_the_floor():
    tone = (10_000 * np.sin(2 * np.pi * 1000 * np.arange(4000) / 16_000)).astype(np.int16)
    got = np.asarray(log_mel(jnp.asarray(np.stack([tone, np.zeros_like(tone)])), mels=40))
    mel = np.linspace(*(2595 * np.log10(1 + f / 700) for f in (20, 8000)), 42)[1:-1]
    nearest = int(np.abs(mel - 2595 * np.log10(1 + 1000 / 700)).argmin())
    assert (got[0].argmax(axis=1) == nearest).all()
    np.testing.assert_allclose(got[1], np.log(1e-6), rtol=1e-6)


def test_filters_are_triangles_that_add_up_to_one_between_the_outer_centres():
    filters = mel_filters(**SETTING)
    total = filters.sum(axis=1)
    inner = slice(int(np.argmax(filters[:, 1])) + 1, int(np.argmax(filters[:, -2])))
    np.testing.assert_allclose(total[inner], 1.0, atol=1e-12)
    assert filters.min() == 0 and filters.max() <= 1


def test_sizes_that_do_not_fit():
    for wrong in ({"window": 600}, {"hop": 0}, {"high_hz": 9000.0}):
        with pytest.raises(ValueError, match="must be at most"):
            log_mel(jnp.zeros((1, 1000), jnp.int16), **wrong)
    with pytest.raises(ValueError, match="300 samples"):
        log_mel(jnp.zeros((1, 300), jnp.int16))


def test_masks():
    mel = jnp.asarray(np.random.default_rng(0).standard_normal((300, 50, 20)), jnp.float32)
    key = jax.random.key(0)
    only = {"mel_masks": 0, "time_masks": 1, "time_width": 10}
    out = np.asarray(spec_augment(key, mel=mel, **only))
    changed = (out != np.asarray(mel)).all(axis=2)  # [b,frames]
    assert ((out != np.asarray(mel)).any(axis=2) == changed).all(), "a masked frame is masked in all bins"
    widths = changed.sum(axis=1)
    assert set(widths) == set(range(11)) and abs(widths.mean() - 5) < 0.6
    for row, mask, before in zip(out, changed, np.asarray(mel), strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask, [0]]).astype(int)))
        assert len(edges) in (0, 2), "one stretch"
        np.testing.assert_allclose(row[mask], before.mean(), atol=1e-5)
    assert changed[:, 0].any() and changed[:, -1].any()
    both = np.asarray(spec_augment(key, mel=mel, time_masks=0, mel_masks=2, mel_width=4)) != np.asarray(mel)
    assert (both.all(axis=1) == both.any(axis=1)).all() and both.all(axis=1).sum(axis=1).max() > 4
    np.testing.assert_array_equal(spec_augment(key, mel=mel), jax.jit(spec_augment)(key, mel=mel))
    np.testing.assert_array_equal(spec_augment(key, mel=mel, time_masks=0, mel_masks=0), mel)
