"""The audio tower: an independent NumPy forward pass, unit rows, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import build
from flax import nnx
from tower_loops import block_by_loops, dense, layer_of, norm

from twinreel.base.errors import UserError

AUDIO = {"mels": 8, "patch": 4, "width": 8, "depth": 2, "heads": 2, "mlp_ratio": 2.0}
SAMPLES = 400 + 8 * 160  # nine frames: two whole patches in time


def tiny(**changes):
    video = {"image_size": 8, "patch": 8, "width": 4, "depth": 0, "heads": 1, "temporal_depth": 0}
    options = {"audio": AUDIO, "audio_samples": SAMPLES} | changes
    text = {"width": 4, "depth": 0, "heads": 1}
    return build(
        video=video, text=text, embed_dim=6, num_frames=1, context_length=3, vocab_size=9, rngs=nnx.Rngs(0), **options
    )


def sound(rows):
    return np.random.default_rng(0).integers(-20_000, 20_000, (rows, SAMPLES)).astype(np.int16)


def log_mel_by_loops(samples):
    """Power spectrum by the definition of the Fourier transform, HTK mel triangles, float64 `[frames, 8]`."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    mel = lambda hz: 2595 * np.log10(1 + hz / 700)  # noqa: E731
    edges = 700 * (10 ** (np.linspace(mel(20.0), mel(8000.0), 10) / 2595) - 1)
    rows = []
    for start in range(0, SAMPLES - 399, 160):
        power = np.abs(waves @ (samples[start : start + 400] / 32768 * window)) ** 2
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            hz = np.arange(257) * 16_000 / 512
            row.append(power @ np.clip(np.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)), 0, None))
        rows.append(np.log(np.maximum(row, 1e-6)))
    return np.array(rows)


def test_equals_a_float64_loop():
    model, audio = tiny(), sound(1)
    tower = model.audio
    spectrogram = (log_mel_by_loops(audio[0].astype(np.float64)) + 7) / 4
    patches = [spectrogram[t : t + 4, f : f + 4].reshape(-1) for t in (0, 4) for f in (0, 4)]
    tokens = dense(np.stack(patches), tower.embed) + np.asarray(tower.position[...])
    for number in range(2):
        tokens = block_by_loops(tokens, layer_of(tower.blocks, number))
    wanted = dense(norm(tokens, tower.blocks.norm).mean(0), model.audio_projection)
    got = model.encode_audio(jnp.asarray(audio))[0]
    np.testing.assert_allclose(got, wanted / np.linalg.norm(wanted), rtol=2e-3, atol=2e-4)


@pytest.fixture(scope="module")
def encode():
    """The embeddings of a tiny model of one seed, from sound and the lengths of its rows."""
    model = tiny()
    return jax.jit(lambda audio, lengths: model.encode_audio(audio, lengths=lengths))


def test_padding_is_neither_attended_to_nor_averaged_whatever_it_holds(encode):
    """A sound of one patch in time gives what a tower for its length gives, whether silence or noise follows it."""
    audio, real = sound(3), 400 + 3 * 160  # four frames: one whole patch
    alone = tiny(audio_samples=real).encode_audio(jnp.asarray(audio[:, :real]))
    lengths = jnp.full((3,), real, jnp.int32)
    for padding in (np.zeros_like(audio), sound(3), np.full_like(audio, 32767)):
        padded = np.where(np.arange(SAMPLES) < real, audio, padding)
        np.testing.assert_allclose(encode(jnp.asarray(padded), lengths), alone, atol=2e-6)
    short = jnp.asarray([700, 1, 0], jnp.int32)  # less than one patch: padded with silence, whatever the array holds
    silent = np.where(np.arange(SAMPLES) < np.asarray(short)[:, None], audio, 0).astype(np.int16)
    np.testing.assert_array_equal(encode(jnp.asarray(audio), short), encode(jnp.asarray(silent), short))
    whole = encode(jnp.asarray(audio), jnp.full((3,), SAMPLES, jnp.int32))
    np.testing.assert_allclose(whole, encode(jnp.asarray(audio), None), atol=1e-6)
    assert np.abs(whole - alone).max() > 1e-2


def test_rows_of_other_lengths_do_not_matter(encode):
    """Of one batch: whole, half a patch more than one, a part of a patch, one sample, none, and beyond the end."""
    audio = jnp.asarray(np.tile(sound(1), (6, 1)))
    lengths = jnp.asarray([SAMPLES, 400 + 5 * 160, 700, 1, 0, 2 * SAMPLES], jnp.int32)
    got = np.asarray(encode(audio, lengths))
    for row in range(6):
        np.testing.assert_allclose(encode(audio[row : row + 1], lengths[row : row + 1])[0], got[row], atol=2e-6)
    np.testing.assert_allclose(
        got[1], encode(audio[:1], jnp.asarray([400 + 3 * 160]))[0], atol=2e-6
    )  # no whole patch more
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), [1, 1, 1, 1, 0, 1], atol=1e-5)
    np.testing.assert_allclose(got[5], got[0], atol=1e-6)


def test_silent_and_absent_rows_have_finite_embeddings_and_gradients():
    graph, params = nnx.split(tiny())
    lengths = jnp.asarray([SAMPLES, 900, 0], jnp.int32)

    @jax.jit
    def value(params):
        made = nnx.merge(graph, params).encode_audio(jnp.zeros((3, SAMPLES), jnp.int16), lengths=lengths)
        return jnp.sum(made[:, 0]), made

    gradient, made = jax.grad(value, has_aux=True)(params)
    assert np.isfinite(made).all() and not made[2].any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_rows_are_of_unit_length_in_bfloat16():
    model = tiny(audio=AUDIO | {"dtype": "bfloat16"})
    got = jax.jit(model.encode_audio)(jnp.asarray(sound(3)))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"audio": AUDIO | {"mels": 10}}, r"mels=10 must be a multiple of patch=4"),
        ({"audio_samples": 0}, r"0 samples is too short.*audio_seconds to at least 0\.06"),
        ({"audio": AUDIO | {"remat": "all"}}, r"config\.model\.audio"),
    ],
)
def test_bad_configs_name_the_field(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(**changes)


def test_the_length_that_is_asked_for_is_enough():
    audio = {key: value for key, value in AUDIO.items() if key not in ("patch", "mels")}  # by default 16 and 80
    with pytest.raises(UserError, match=r"audio_seconds to at least 0\.18"):
        tiny(audio=audio, audio_samples=2799)
    for samples in (2800, round(0.18 * 16_000)):
        assert tiny(audio=audio, audio_samples=samples).audio.times == 1


def test_a_model_without_the_tower_and_sound_of_another_length_are_refused():
    with pytest.raises(UserError, match=r"no audio tower; add config\.model\.audio"):
        tiny(audio=None).encode_audio(jnp.asarray(sound(1)))
    with pytest.raises(UserError, match=rf"sound of 5 samples, the tower wants {SAMPLES}"):
        tiny().encode_audio(jnp.zeros((1, 5), jnp.int16))
