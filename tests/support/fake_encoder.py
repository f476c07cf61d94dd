"""An encoder of a few lines of NumPy, for the tests of what embeds a split of records."""

from types import SimpleNamespace

import jax
import numpy as np
from flax import nnx

from twinreel.data.options import InputSpec
from twinreel.engine.sharding.mesh import make_mesh


class Tokenizer:
    """Each character is a token; spaces are none, so that texts of different spaces are equal."""

    pad_id, vocab_size = 0, 128

    def encode(self, strings, *, context_length):
        ids = np.zeros((len(strings), context_length), np.int32)
        for row, text in zip(ids, strings, strict=True):
            tokens = [ord(c) for c in text if c != " "][:context_length]
            row[: len(tokens)] = tokens
        return ids, ids > 0, int((self.lengths(strings) > context_length).sum())

    def lengths(self, strings):
        return np.array([len(text.replace(" ", "")) for text in strings], np.int64)


class Model(nnx.Linear):
    """What a report reads of a model: its weights and its temperature."""

    @property
    def scale(self):
        return np.float32(20)


class Encoder:
    """Brightness of the frames in their order, and sums of tokens; a little noise by the place in the batch."""

    def __init__(self, **spec):
        self.tokenizer, self.mesh, self.source = Tokenizer(), make_mesh(devices=jax.devices()[:1]), "run/checkpoints/3"
        self.input = InputSpec(num_frames=4, eval_video="resize_short(16)|center_crop(16)", **spec)
        self.meta, self.clip_side = {"step": 3, "seed": 0}, "video"
        self.spec = SimpleNamespace(towers={"video": {"family": "vivit"}}, features={})
        self.model = Model(2, 3, rngs=nnx.Rngs(0))
        self.sizes = []

    def embed_local(self, rows, *, side):
        rest = {key: value for key, value in rows.items() if key not in ("video", "text", "text_mask")}
        return {"embedding": getattr(self, side)(**{k: v for k, v in rows.items() if k not in rest}), **rest}

    def video(self, video):
        self.sizes.append(len(video))
        assert video.shape[1:] == (4, 16, 16, 3)
        assert video.dtype == np.uint8
        means = video.astype(np.float64).mean(axis=(2, 3)).reshape(len(video), -1)
        return (means + 1e-5 * np.arange(len(video))[:, None]).astype(np.float32)

    def text(self, text, text_mask):
        self.sizes.append(len(text))
        assert (text_mask == (text > 0)).all()
        found = np.stack([np.sin(np.arange(1, 13) * total) for total in text.sum(axis=1)])
        return (found + 1e-5 * np.arange(len(text))[:, None]).astype(np.float32)
