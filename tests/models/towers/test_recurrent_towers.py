"""Recurrent text and sound towers and the convolutional sound tower: padding has no part, gradients are finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dual_towers import build
from flax import nnx
from tower_loops import f64, norm, randomised

from twinreel.base.errors import UserError
from twinreel.models.layers.spectrogram import log_mel
from twinreel.models.towers.lstm import RecurrentTextTower
from twinreel.models.towers.sound_cnn import SoundCnnTower, SoundRecurrentTower

DRAW = np.random.default_rng(0)
IDS = jnp.asarray(DRAW.integers(0, 20, (3, 7)), jnp.int32)
SAMPLES = 3_600  # 21 frames
SOUND = jnp.asarray(DRAW.normal(0, 3000, (4, SAMPLES)), jnp.int16)
LENGTHS = jnp.asarray([SAMPLES, 1_500, 100, 0])  # 21 frames, 7, less than one, none


def sound_tower(kind, *, samples=SAMPLES):
    if kind == "cnn":
        return randomised(SoundCnnTower(audio_samples=samples, mels=10, channels=(4, 6), rngs=nnx.Rngs(0)))
    own = {"mels": 10, "width": 6, "depth": 1, "cell": kind}
    return randomised(SoundRecurrentTower(audio_samples=samples, **own, rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("pool", ["mean", "max", "last"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_padding_of_texts_has_no_part(cell, pool):
    tower = RecurrentTextTower(vocab_size=20, context_length=7, width=8, cell=cell, pool=pool, rngs=nnx.Rngs(0))
    mask = jnp.arange(7)[None] < jnp.asarray([7, 3, 0])[:, None]
    found = randomised(tower)(IDS, mask=mask)
    short = tower(IDS[1:2, :3], mask=jnp.ones((1, 3), bool))
    np.testing.assert_allclose(found[1], short[0], atol=1e-6)
    assert found.dtype == jnp.float32 and (np.asarray(found[2]) == 0).all()
    gradient = nnx.grad(lambda tower: jnp.sum(jnp.square(tower(IDS, mask=mask))))(tower)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kind", ["cnn", "lstm", "gru"])
def test_padded_silence_has_no_part(kind):
    tower = sound_tower(kind)
    found = tower(SOUND, lengths=LENGTHS)
    assert found.dtype == jnp.float32 and np.isfinite(found).all() and (np.asarray(found[3]) == 0).all()
    np.testing.assert_allclose(found[0], tower(SOUND)[0], atol=1e-5)
    short = sound_tower(kind, samples=1_500)(SOUND[1:2, :1_500])  # as if there were no padding
    np.testing.assert_allclose(found[1], short[0], rtol=1e-4, atol=1e-5)
    gradient = nnx.grad(lambda tower: jnp.sum(jnp.square(tower(SOUND, lengths=LENGTHS))))(tower)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_convolutions_equal_a_float64_loop():
    tower = sound_tower("cnn")
    x = ((np.asarray(log_mel(SOUND[:1], mels=10), np.float64) + 7) / 4)[0][..., None]  # [frames,F,1]
    for convolution, layer_norm in zip(tower.convolutions, tower.norms, strict=True):
        kernel = f64(convolution.kernel)
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        rows, columns = (size // 2 + size % 2 for size in x.shape[:2])
        x = np.stack(
            [
                np.stack(
                    [
                        np.einsum("ijc,ijcd->d", padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel)
                        for j in range(columns)
                    ]
                )
                for i in range(rows)
            ]
        )
        x = np.maximum(norm(x, layer_norm), 0)
    np.testing.assert_allclose(tower(SOUND[:1])[0], x.mean(axis=(0, 1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("audio", ["cnn", "recurrent"])
def test_a_dual_tower_takes_them(audio):
    sizes = {"mels": 10, "channels": (4, 6)} if audio == "cnn" else {"mels": 10, "width": 6}
    model = build(
        video={"image_size": 16, "patch": 8, "width": 12, "depth": 1, "heads": 2, "temporal_depth": 0},
        text={"family": "lstm", "width": 8},
        audio={"family": audio, **sizes},
        embed_dim=10,
        rngs=nnx.Rngs(0),
        num_frames=2,
        context_length=7,
        vocab_size=20,
        audio_samples=SAMPLES,
    )
    text = model.encode_text(IDS, mask=jnp.ones((3, 7), bool))
    sound = model.encode_audio(SOUND, lengths=LENGTHS)
    assert text.shape == (3, 10) and sound.shape == (4, 10)
    np.testing.assert_allclose(np.linalg.norm(sound[:3], axis=1), 1, rtol=1e-5)


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"config\.model\.text\.pool.*'first'"):
        RecurrentTextTower(vocab_size=20, context_length=7, pool="first", rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match=r"channels must name at least one stage"):
        SoundCnnTower(audio_samples=SAMPLES, channels=(), rngs=nnx.Rngs(0))
    with pytest.raises(UserError, match=r"sound of 399 samples is shorter than 25 ms"):
        sound_tower("gru", samples=399)
    with pytest.raises(UserError, match=r"sound of 3600 samples, the tower wants 1500"):
        sound_tower("gru", samples=1_500)(SOUND)
