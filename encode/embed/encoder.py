"""A dual tower as an `Encoder` of media files, strings, sound and arrays."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, Int16, Int32, UInt8

from ...base.errors import UserError
from ...data.text.clean import text_cleaner
from ...data.text.tokenizer import Tokenizer, tokenizer_from_meta
from ...engine.step.state import split_model
from ...models.dual import DualTower
from ...zoo.bundle import write_bundle
from ...zoo.load import Located, load_model, locate
from ...zoo.spec import ModelSpec
from ..devices.placed import PlacedModel
from ..devices.rows import embed_rows, padded, shares
from ..media.files import frames_of_files, listed, refuse_one, sound_of_files
from .views import embed_views, mean_of_views, views_of

Embeddings = Float32[np.ndarray, "n E"]


class Encoder(PlacedModel):
    """A dual tower with its tokenizer and its input: everything between a file or a string and its embedding.

    In a run of several processes each decodes and places its share, and all get all results.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        model: DualTower,
        tokenizer: Tokenizer | None = None,
        mesh: Mesh | None = None,
        source: str = "",
        meta: Mapping[str, Any] | None = None,
    ):
        """Put a model on the devices.

        Args:
          spec: what it is.
          model: the towers; parameters that lie on `mesh` already stay where they are.
          tokenizer: None = as `spec.tokenizer` says; a model without one still encodes video, sound and token ids.
          mesh: None = all devices, each with all parameters.
          source: where it comes from.
          meta: of its checkpoint.
        """
        super().__init__(spec=spec, model=model, mesh=mesh, source=source, meta=meta)
        self._tokenizer = tokenizer or (tokenizer_from_meta(dict(spec.tokenizer)) if spec.tokenizer else None)

    @property
    def tokenizer(self) -> Tokenizer:
        """Strings to ids.

        Raises:
          UserError: the model came without a tokenizer.
        """
        if self._tokenizer is None:
            raise UserError(
                f"{self.source or 'this model'} has no tokenizer and encodes no strings: pass token ids to "
                "encode_text_ids, or convert its weights again with the tokenizer's file beside them"
            )
        return self._tokenizer

    @property
    def clip_side(self) -> str:
        """The side that stands for a clip in retrieval: a fusion of video and sound, else "video", else "audio"."""
        if set(self.spec.fused_side.split("+")) == {"video", "audio"}:
            return self.spec.fused_side
        return "video" if "video" in self.spec.towers else "audio"

    @property
    def embed_dim(self) -> int:
        """E."""
        assert self.spec.embed_dim is not None
        return self.spec.embed_dim

    def encode_text(self, strings: Sequence[str], *, batch_size: int = 256) -> Embeddings:
        """Embed strings.

        Args:
          strings: n texts; those longer than the context length are truncated.
          batch_size: how many at a time.

        Returns:
          float32 [n,E], rows of unit length.
        """
        refuse_one(strings, of=str, method="encode_text")
        clean = text_cleaner(self.input.text)
        texts = [clean(string) for string in strings]
        ids, mask, _ = self.tokenizer.encode(texts, context_length=self.input.context_length)
        return self.encode_text_ids(ids, mask=mask, batch_size=batch_size)

    def encode_text_ids(
        self, ids: Int32[np.ndarray, "n L"], *, mask: Bool[np.ndarray, "n L"], batch_size: int = 256
    ) -> Embeddings:
        """Embed token ids.

        Args:
          ids: int32 [n,L], L at most the context length.
          mask: True = a real token.
          batch_size: how many at a time.

        Returns:
          float32 [n,E], rows of unit length.
        """
        ids, mask = np.asarray(ids, np.int32), np.asarray(mask, bool)
        if ids.ndim != 2 or ids.shape != mask.shape:
            raise UserError(f"ids of shape {ids.shape} and mask of shape {mask.shape}; wanted two of the shape [n,L]")
        return self._embed({"text": ids, "text_mask": mask}, side="text", batch_size=batch_size)

    def encode_video(
        self, paths: Iterable[str | Path], *, batch_size: int = 16, workers: int = 0, progress: bool = False
    ) -> Embeddings:
        """Decode and embed media files, with the model's own sampling and preprocessing.

        Args:
          paths: n files of any format that PyAV decodes.
          batch_size: how many at a time.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          float32 [n,E], rows of unit length.

        Raises:
          UserError: a file that does not exist or cannot be decoded; names it and the reason.
        """
        self._needs_frames()
        files = listed(paths, method="encode_video")
        size = self.global_batch(batch_size, total=len(files))
        parts = frames_of_files(self.input, files, batch_size=size, workers=workers, progress=progress)
        embed = functools.partial(self._collect_one, side="video", size=size)
        found = [mean_of_views([embed(view) for view in views_of(part)]) for part in parts]
        return self._joined(found, total=len(files))

    def encode_audio(
        self, paths: Iterable[str | Path], *, batch_size: int = 32, workers: int = 0, progress: bool = False
    ) -> Embeddings:
        """Decode and embed the sound of media files: the middle `audio_seconds` of each.

        Args:
          paths: n sound files, or films with a sound track.
          batch_size: how many at a time.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          float32 [n,E], rows of unit length.

        Raises:
          UserError: the model has no audio tower; or a file without sound, or that cannot be decoded.
        """
        self._needs("audio")
        files = listed(paths, method="encode_audio")
        size = self.global_batch(batch_size, total=len(files))
        parts = sound_of_files(self.input, files, batch_size=size, workers=workers, progress=progress)
        rows = ({"audio": sound, "audio_samples": lengths} for sound, lengths in parts)
        return self._joined([self._collect_one(part, side="audio", size=size) for part in rows], total=len(files))

    def encode_clips(
        self, paths: Iterable[str | Path], *, batch_size: int = 16, workers: int = 0, progress: bool = False
    ) -> Embeddings:
        """Decode and embed films as a whole, pictures and sound, by the model's fusion of video and audio.

        Args:
          paths: n films; those without sound are embedded by their pictures alone, by the same fusion.
          batch_size: how many at a time.
          workers: processes that decode; 0 = one per core.
          progress: draw a progress bar on standard error.

        Returns:
          float32 [n,E], rows of unit length.

        Raises:
          UserError: the model has no fusion of video and audio, or a file that cannot be decoded.
        """
        self._needs_clips()
        self._needs_frames()
        files = listed(paths, method="encode_clips")
        size = self.global_batch(batch_size, total=len(files))
        kind: dict[str, Any] = {"batch_size": size, "workers": workers}
        frames = frames_of_files(self.input, files, progress=progress, **kind)
        sounds = sound_of_files(self.input, files, silent=True, **kind)
        found = []
        embed = functools.partial(self._collect_one, side=self.spec.fused_side, size=size)
        for video, (sound, lengths) in zip(frames, sounds, strict=True):
            heard = {"audio": sound, "audio_samples": lengths, "audio_mask": lengths > 0}
            found.append(mean_of_views([embed({**view, **heard}) for view in views_of(video)]))
        return self._joined(found, total=len(files))

    def encode_clip_arrays(
        self,
        video: UInt8[np.ndarray, "n T H W 3"],
        *,
        audio: Int16[np.ndarray, "n S"],
        lengths: Int32[np.ndarray, "n"] | None = None,
        batch_size: int = 32,
    ) -> Embeddings:
        """Embed frames and sound as one, by the model's fusion of video and audio.

        Args:
          video: uint8 RGB [n,T,H,W,3], preprocessed already.
          audio: int16 [n,S] at `input.audio_rate`, S = that rate * `audio_seconds`.
          lengths: real samples of each row; 0 = the row has no sound. None = all are real.
          batch_size: how many at a time.

        Returns:
          float32 [n,E], rows of unit length.

        Raises:
          UserError: the model has no fusion of video and audio, or arrays of other shapes or dtypes.
        """
        self._needs_clips()
        video, audio = np.asarray(video), np.asarray(audio)
        right = video.dtype == np.uint8 and video.ndim == 5 and audio.dtype == np.int16 and audio.ndim == 2
        if not right or len(video) != len(audio):
            raise UserError(
                f"video of dtype {video.dtype} and shape {video.shape}, sound of {audio.dtype} {audio.shape}; wanted "
                "uint8 [n,T,H,W,3] and int16 [n,S]"
            )
        real = np.full(len(audio), audio.shape[1], np.int32) if lengths is None else np.asarray(lengths, np.int32)
        rows = {"video": video, "audio": audio, "audio_samples": real, "audio_mask": real > 0}
        return self._embed(rows, side=self.spec.fused_side, batch_size=batch_size)

    def encode_video_arrays(self, video: UInt8[np.ndarray, "n T H W 3"], *, batch_size: int = 32) -> Embeddings:
        """Embed frames that are preprocessed already.

        Args:
          video: uint8 RGB [n,T,H,W,3] of the model's own T, H and W; or [n,V,T,H,W,3] of V views, whose embeddings are
            averaged.
          batch_size: how many at a time.

        Returns:
          float32 [n,E], rows of unit length.

        Raises:
          UserError: another dtype or number of axes, or channels that do not come last.
        """
        self._needs_frames()
        video = np.asarray(video)
        if video.dtype != np.uint8 or video.ndim not in (5, 6) or video.shape[-1] != 3:
            raise UserError(
                f"video of dtype {video.dtype} and shape {video.shape}; wanted uint8 pixels 0..255 of shape [n,T,H,W,3]"
                " (channels last)"
            )
        return embed_views(lambda view: self._embed({"video": view}, side="video", batch_size=batch_size), video)

    def encode_audio_arrays(
        self,
        audio: Int16[np.ndarray, "n S"],
        *,
        lengths: Int32[np.ndarray, "n"] | None = None,
        batch_size: int = 64,
    ) -> Embeddings:
        """Embed sound.

        Args:
          audio: int16 [n,S] at `input.audio_rate`, S = that rate * `audio_seconds`.
          lengths: real samples of each row; what follows is padding. None = all.
          batch_size: how many at a time.

        Returns:
          float32 [n,E], rows of unit length.
        """
        self._needs("audio")
        audio = np.asarray(audio)
        if audio.dtype != np.int16 or audio.ndim != 2:
            raise UserError(f"sound of dtype {audio.dtype} and shape {audio.shape}; wanted int16 [n,S]")
        real = np.full(len(audio), audio.shape[1], np.int32) if lengths is None else np.asarray(lengths, np.int32)
        return self._embed({"audio": audio, "audio_samples": real}, side="audio", batch_size=batch_size)

    def embed_local(self, rows: dict[str, np.ndarray], *, side: str, tokens: bool = False) -> dict[str, np.ndarray]:
        """Embed one global batch of which each process gives its own rows; see `rows.embed_rows`."""
        return embed_rows(self._graph, self._state, rows, side=side, mesh=self.mesh, tokens=tokens)

    def save(self, folder: str | Path) -> Path:
        """Write the model as a bundle (`spec.json`, the tokenizer's file, `model.safetensors`); return its folder.

        Raises:
          UserError: the folder is not empty.
        """
        params = {path: np.asarray(value) for path, value in split_model(self.model).items()}
        return write_bundle(folder, spec=self.spec, params=params)

    def _embed(self, rows: dict[str, np.ndarray], *, side: str, batch_size: int) -> Embeddings:
        """Embed rows of which every process holds all."""
        self._needs(side)
        total = len(next(iter(rows.values())))
        size = self.global_batch(batch_size, total=total)
        parts = ({key: value[own] for key, value in rows.items()} for _, own in shares(total, batch_size=size))
        return self._joined([self._collect_one(part, side=side, size=size) for part in parts], total=total)

    def _collect_one(self, part: dict[str, np.ndarray], *, side: str, size: int) -> Embeddings:
        """Embed a global batch of `size` rows of which `part` holds this process's, as far as there are any."""
        local = size // jax.process_count()
        filled = {key: padded(value, size=local) for key, value in part.items()}
        return self.embed_local(filled, side=side)["embedding"]

    def _joined(self, found: list[Embeddings], *, total: int) -> Embeddings:
        return np.concatenate([*found, np.zeros((0, self.embed_dim), np.float32)])[:total]

    def _needs_frames(self) -> None:
        self._needs("video")
        if self.spec.towers["video"]["family"] == "features":
            name = self.spec.features["video"]
            raise UserError(
                f"this model takes precomputed features {name!r} and no frames: prepare clips with such features "
                "(`twinreel features`) and use `twinreel evaluate`, or encode with a model that has an image tower"
            )

    def _needs_clips(self) -> None:
        if self.clip_side != self.spec.fused_side:
            raise UserError(
                "this model does not fuse video and audio (config.model.fusion); encode files by their pictures "
                "(encode_video, --video) or by their sound (encode_audio, --sound)"
            )

    def _needs(self, side: str) -> None:
        if side not in self.spec.towers and side != self.spec.fused_side:
            raise UserError(f"this model has no {side} tower (it has: {', '.join(self.spec.towers)})")


def load(path: str | Path, *, mesh: Mesh | None = None) -> Encoder:
    """Open a model as an `Encoder`.

    Args:
      path: a bundle, the workdir of a run (its newest checkpoint), a checkpoints folder or one checkpoint.
      mesh: the devices that compute; None = all.

    Raises:
      UserError: nothing readable there, a model with a head instead of a joint space, or parameters that do not fit.
    """
    located = locate(path)
    if located.spec.task_heads:
        raise UserError(
            f"{located.path} is a fine-tuned model with a head ({', '.join(located.spec.task_heads)}) and has no joint "
            f"space to encode into; label files with it: `twinreel predict {path} FILE ...`"
        )
    return encoder_of(located, mesh=mesh)


def encoder_of(located: Located, *, mesh: Mesh | None = None) -> Encoder:
    """Build and fill the `Encoder` of a model that was located.

    Raises:
      UserError: a model without a joint space, or parameters that do not fit.
    """
    if located.spec.embed_dim is None:
        towers = " and ".join(located.spec.towers) + ("" if "decoder" in located.spec.towers else " encoder")
        raise UserError(
            f"{located.path} is a {towers} alone and has no joint space of video and text; begin a dual tower "
            f"with it: `twinreel pretrain --init {located.path} ...`"
        )
    model = load_model(located)
    return Encoder(spec=located.spec, model=model, mesh=mesh, source=str(located.path), meta=located.meta)
