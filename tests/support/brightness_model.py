"""A model of an index in a few lines of NumPy: pictures and texts by brightness, sounds by their pitch."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np

from twinreel.data.options import InputSpec
from twinreel.serve.index.database import ModelRow
from twinreel.serve.index.models import Opened

WIDTH = 16


class Encoder:
    """Twelve numbers of brightness (four frames by three colours), and four that tell texts from pictures."""

    def __init__(self, *, gap=0.3, sound=True):
        self.input = InputSpec(
            num_frames=4,
            eval_video="resize_short(16)|center_crop(16)",
            audio_seconds=0.5 if sound else 0,
            decode={"fps": 4.0, "short_side": 32},
        )
        self.clip_side, self.embed_dim, self._gap = "video", WIDTH, gap
        towers = {"video": {"family": "frames"}, "text": {}} | ({"audio": {}} if sound else {})
        self.spec = SimpleNamespace(towers=towers, tokenizer={"kind": "none"}, input=self.input)
        self.clips = self.texts = 0

    def encode_video_arrays(self, video, *, batch_size):
        self.clips += len(video)
        return self._unit(video.astype(np.float64).mean(axis=(2, 3)).reshape(len(video), -1) / 128 - 1, gap=0)

    def encode_text(self, strings):
        """`grey 120` is a film of that level; any other text is one of its length."""
        self.texts += len(strings)
        found = [re.search(r"grey (\d+)", text) for text in strings]
        levels = [int(one[1]) if one else len(text) for one, text in zip(found, strings, strict=True)]
        return self._unit(np.repeat(np.array(levels)[:, None] / 128 - 1, 12, axis=1), gap=self._gap)

    def encode_audio_arrays(self, audio, *, lengths, batch_size):
        spectra = np.abs(np.fft.rfft(audio.astype(np.float64), axis=1))[:, 1:1201]
        return self._unit(np.sqrt(spectra.reshape(len(audio), 12, -1).mean(axis=2)), gap=0)

    def _unit(self, rows, *, gap):
        """Add a constant, which makes brightness a direction, and the gap; make rows of unit length."""
        further = np.tile(np.array([0.5, gap, 0, 0]), (len(rows), 1))
        rows = np.concatenate([rows, further], axis=1)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brightness_model(*, name="brightness", gap=0.3, sound=True) -> Opened:
    """The model under a name; another `gap` is another model."""
    sides = ("video", "audio", "transcript") if sound else ("video", "transcript")
    row = ModelRow(id=0, name=name, source=f"models/{name}", weights=f"{name} {gap}", width=WIDTH, sides=sides)
    return Opened(encoder=Encoder(gap=gap, sound=sound), row=row, fps=4.0)


def renamed(opened, name):
    """The same weights under another name."""
    return dataclasses.replace(opened, row=dataclasses.replace(opened.row, name=name))
