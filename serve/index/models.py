"""The model of an index: its encoder, what identifies it, and the arrays that it takes of decoded clips."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...data.media.decode import DecodedClip, DecodeOptions
from ...data.media.faces import LEAST_SIDE
from ...encode.embed.encoder import Encoder, load
from ...encode.embed.film import index_options
from ...encode.media.files import frames_of
from ...engine.step.state import split_model
from ...zoo.digest import model_sha256, params_sha256
from .database import ModelRow

VIDEO, AUDIO, TRANSCRIPT = "video", "audio", "transcript"
"""What is embedded of a moment: its pictures (and sound, by a fusion of both), its sound, what is said in it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A model in memory that embeds moments.

    Attributes:
      encoder: its towers.
      row: what the index knows of it; `row.id` is 0 until the index has given it one.
      fps: frames per second from which its frames are drawn, unless it says so itself; 0 = all.
      blur_faces: ONNX file of the face detector; frames have no faces then. "" = they are as in the files.
    """

    encoder: Encoder
    row: ModelRow
    fps: float
    blur_faces: str = ""

    @property
    def fused(self) -> bool:
        """Whether pictures and sound have one embedding."""
        return self.encoder.clip_side != VIDEO

    @property
    def hears(self) -> bool:
        """Whether it takes sound."""
        return self.fused or AUDIO in self.row.sides

    @functools.cached_property
    def decode(self) -> DecodeOptions:
        """How files are decoded: as the model says; otherwise `fps`, with twice the pixels that it looks at."""
        options = index_options(self.encoder.input, fps=self.fps, audio=self.hears)
        if not self.blur_faces:
            return options
        side = max(options.short_side, LEAST_SIDE) if options.short_side else 0
        return dataclasses.replace(options, short_side=side, blur_faces=self.blur_faces)

    def frames(self, clip: DecodedClip) -> np.ndarray:
        """Return the frames of a moment as the model takes them, uint8 [T,H,W,3] or [V,T,H,W,3].

        Raises:
          UserError: the pictures are too small for the model's crop.
        """
        return frames_of(self.encoder.input, clip=clip)

    def sound(self, clip: DecodedClip) -> np.ndarray:
        """Return the middle `audio_seconds` of a moment's sound, int16 [S']; empty where there is none."""
        if clip.audio is None:
            return np.zeros(0, np.int16)
        samples = self.encoder.input.audio_samples
        start = max(0, (len(clip.audio) - samples) // 2)
        return clip.audio[start : start + samples]

    def embed_video(self, frames: Sequence[np.ndarray], *, sounds: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
        """Embed moments by their frames, and by their sound where the model fuses both; float32 [n,E]."""
        video = np.stack(frames)
        if not self.fused:
            return self.encoder.encode_video_arrays(video, batch_size=batch_size)
        audio, lengths = self._padded(sounds)
        views = [video] if video.ndim == 5 else [video[:, v] for v in range(video.shape[1])]
        found = [
            self.encoder.encode_clip_arrays(view, audio=audio, lengths=lengths, batch_size=batch_size) for view in views
        ]
        mean = np.mean(found, axis=0)
        return mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-6)

    def embed_sound(self, sounds: Sequence[np.ndarray], *, batch_size: int) -> np.ndarray:
        """Embed sounds, float32 [n,E]."""
        audio, lengths = self._padded(sounds)
        return self.encoder.encode_audio_arrays(audio, lengths=lengths, batch_size=batch_size)

    def _padded(self, sounds: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        lengths = np.array([len(sound) for sound in sounds], np.int32)
        audio = np.zeros((len(sounds), self.encoder.input.audio_samples), np.int16)
        for row, sound in zip(audio, sounds, strict=True):
            row[: len(sound)] = sound
        return audio, lengths


def open_model(source: str | Path, *, name: str = "", fps: float = 8.0, blur_faces: str = "") -> Opened:
    """Load a model.

    Args:
      source: a run, a checkpoint, a bundle, or public weights.
      name: what it is called in the index; "" = the last part of `source`.
      fps: see `Opened`.
      blur_faces: see `Opened`.

    Raises:
      UserError: nothing readable there, or a model that takes no frames.
    """
    opened = opened_of(load(source), name=name or default_name(str(source)), source=str(source), fps=fps)
    return dataclasses.replace(opened, blur_faces=blur_faces)


def opened_of(encoder: Encoder, *, name: str, source: str, fps: float = 8.0) -> Opened:
    """Return an encoder as a model of an index; see `open_model`."""
    spec = encoder.spec
    if spec.towers.get("video", {}).get("family") in (None, "features"):
        raise UserError(f"{source} takes no frames, so it cannot index videos; give a model with a video tower")
    row = ModelRow(
        id=0,
        name=name,
        source=source,
        weights=_digest(encoder),
        width=encoder.embed_dim,
        sides=(VIDEO, *([AUDIO] if "audio" in spec.towers else []), *([TRANSCRIPT] if spec.tokenizer else [])),
    )
    return Opened(encoder=encoder, row=row, fps=fps)


def about(opened: Opened) -> dict[str, Any]:
    """Return what the index writes down of a model, as JSON values."""
    spec = opened.encoder.spec
    towers = {side: tower.get("family") for side, tower in spec.towers.items()}
    return {"towers": towers, "clip_side": opened.encoder.clip_side, "decode": dataclasses.asdict(opened.decode)}


def default_name(source: str) -> str:
    """Return the last part of a path or of the name of public weights.

    >>> default_name("hf:google/videoprism-lvt-base-f16r288@main"), default_name("runs/few/")
    ('videoprism-lvt-base-f16r288', 'few')
    """
    return source.split("@")[0].rstrip("/").rsplit("/", 1)[-1] or "model"


def _digest(encoder: Encoder) -> str:
    """Return a hash of all parameters, and of how input becomes arrays."""
    params = {path: np.asarray(value) for path, value in split_model(encoder.model).items()}
    return model_sha256(params_sha256(params), given=encoder.input)
