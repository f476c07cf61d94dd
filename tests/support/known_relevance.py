"""Models whose score depends on one known patch of one frame, one stretch of sound and one word, and their clips."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from small_encoder import small_spec

from twinreel.encode.embed.encoder import Encoder
from twinreel.engine.sharding.mesh import make_mesh

STEP, ROW, COLUMN = 2, 1, 3
"""The time step and the cell of a 4 x 4 grid whose red counts."""
SEGMENT = 5
"""The sixteenth of the sound whose loudness counts."""
WORD = "red"


class KnownModel(nnx.Module):
    """Embeddings in a plane: the more red there is in the patch, or sound in the segment, the nearer to the word.

    `exponent` bends the response, so that gradients at the clip alone would not tell how much is lost.
    """

    def __init__(self, *, vocab_size, word_id, exponent=1.0):
        self.text, self.video, self.exponent = nnx.Module(), None, exponent
        table = jnp.zeros((vocab_size, 6), jnp.float32).at[:, 1].set(0.05).at[word_id].set(jnp.asarray([1.0] + [0] * 5))
        self.text.embedding = nnx.Param(table)

    def encode_video(self, video, *, mask=None):
        patch = video.astype(jnp.float32)[:, STEP, 4 * ROW : 4 * ROW + 4, 4 * COLUMN : 4 * COLUMN + 4, 0]
        return self._at(jnp.mean(patch, axis=(1, 2)) / 255)

    def encode_audio(self, audio, *, lengths=None):
        part = audio[:, SEGMENT * 500 : SEGMENT * 500 + 500].astype(jnp.float32) / 32768
        return self._at(jnp.sqrt(jnp.mean(part * part, axis=1)))

    def encode_fused(self, inputs, *, present):
        """The mean of both, or the pictures alone where there is no sound."""
        seen, heard = self.encode_video(inputs["video"]), self.encode_audio(inputs["audio"])
        total = seen + jnp.where(present["audio"][:, None], heard, jnp.float32(0))
        return SimpleNamespace(embedding=total / jnp.linalg.norm(total, axis=1, keepdims=True))

    def encode_text(self, text, *, mask):
        rows = jnp.where(mask[..., None], jnp.take(self.text.embedding[...], text, axis=0), jnp.float32(0))
        total = jnp.sum(rows, axis=1) + jnp.asarray([[0, 0.5, 0, 0, 0, 0]], jnp.float32)
        return total / jnp.linalg.norm(total, axis=1, keepdims=True)

    def _at(self, share):
        """The unit vector whose first number is 0.9 share^exponent."""
        first = 0.9 * jnp.maximum(share, 1e-6) ** self.exponent
        return jnp.stack([first, jnp.sqrt(1 - first**2), *[jnp.zeros_like(first)] * 4], axis=1)


def known_encoder(*, exponent=1.0, fused=False):
    spec = small_spec()
    spec = spec.replace(fusion={"kind": "known", "modalities": ["video", "audio"]}) if fused else spec
    encoder, alone = Encoder(spec=spec, model=nnx.Module()), one_device()
    [word_id] = encoder.tokenizer.encode([WORD], context_length=3)[0][0][1:2]
    model = KnownModel(vocab_size=encoder.tokenizer.vocab_size, word_id=int(word_id), exponent=exponent)
    return Encoder(spec=spec, model=model, mesh=alone)


def one_device():
    """A mesh of one device, for which programs compile sooner."""
    return make_mesh(devices=jax.devices()[:1])


def known_frames(*, size=(16, 16), count=4):
    """Frames of noise; the patch of the time step is bright red."""
    frames = np.random.default_rng(0).integers(0, 90, (count, *size, 3), np.uint8)
    height, width = size[0] // 4, size[1] // 4
    patch = frames[STEP * count // 4, ROW * height : (ROW + 1) * height, COLUMN * width : (COLUMN + 1) * width]
    patch[...] = (250, 10, 10)
    return frames


def known_sound():
    """Half a second of silence with a tone in one sixteenth, int16 [8000]."""
    sound = np.random.default_rng(1).integers(-30, 30, 8000).astype(np.int16)
    sound[SEGMENT * 500 : SEGMENT * 500 + 500] += (9000 * np.sin(np.arange(500))).astype(np.int16)
    return sound
