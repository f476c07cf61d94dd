"""`twinreel.load`: a checkpoint as a model that encodes media files and strings."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..base.errors import UserError
from ..base.section import section
from ..data.options import ClipData
from ..data.text.clean import text_cleaner
from ..data.text.tokenizer import Tokenizer, tokenizer_from_meta
from ..engine.keeping import checkpoint
from ..models.dual import DualTower, build, for_loss
from .views import embed_views


@functools.partial(jax.jit, static_argnums=0)
def _video(graph: nnx.GraphDef[DualTower], state: nnx.State, video: jax.Array) -> jax.Array:
    return nnx.merge(graph, state).encode_video(video)


@functools.partial(jax.jit, static_argnums=0)
def _text(graph: nnx.GraphDef[DualTower], state: nnx.State, text: jax.Array, mask: jax.Array) -> jax.Array:
    return nnx.merge(graph, state).encode_text(text, mask=mask)


class Encoder:
    """A dual tower with its tokenizer and its preprocessing: everything between a file or a string and its embedding.

    Attributes:
      model: the towers.
      tokenizer: strings to ids.
      data: the settings of the input (frames, sampling, crop, context length) that the towers were trained with.
      meta: the checkpoint's meta (config, step, seed, tokenizer, versions).
    """

    def __init__(self, *, model: DualTower, tokenizer: Tokenizer, data: ClipData, meta: dict[str, Any]):
        self.model, self.tokenizer, self.data, self.meta = model, tokenizer, data, meta

    @property
    def model(self) -> DualTower:
        """The towers; set it to encode with other parameters of the same shape (nothing is compiled again)."""
        return nnx.merge(self._graph, self._state)

    @model.setter
    def model(self, model: DualTower) -> None:
        self._graph, self._state = nnx.split(model)

    def embed_video_batch(self, video: np.ndarray) -> np.ndarray:
        """Embed frames that are preprocessed already: uint8 `[b,T,H,W,3]` -> float32 `[b,E]`, unit rows."""
        return np.asarray(_video(self._graph, self._state, jnp.asarray(video)))

    def embed_text_batch(self, text: np.ndarray, *, mask: np.ndarray) -> np.ndarray:
        """Embed token ids: int32 `[b,L]` and bool `[b,L]` -> float32 `[b,E]`, unit rows."""
        return np.asarray(_text(self._graph, self._state, jnp.asarray(text), jnp.asarray(mask)))

    def encode_text(self, strings: Sequence[str], *, batch_size: int = 256) -> np.ndarray:
        """Embed strings.

        Args:
          strings: n texts; those longer than the context length are truncated.
          batch_size: how many at a time.

        Returns:
          float32 `[n,E]`, rows of unit length.
        """
        if isinstance(strings, str):
            raise UserError(f"encode_text wants a list of strings, got one string; write encode_text([{strings!r}])")
        clean = text_cleaner(self.data.text)
        ids, mask, _ = self.tokenizer.encode([clean(s) for s in strings], context_length=self.data.context_length)
        parts = []
        for i in range(0, len(ids), batch_size):
            part = slice(i, i + batch_size)
            parts.append(self.embed_text_batch(_pad(ids[part], batch_size), mask=_pad(mask[part], batch_size)))
        return _joined(parts, rows=len(ids), width=self.model.embed_dim)

    def encode_video(self, paths: Iterable[str | Path], *, batch_size: int = 16) -> np.ndarray:
        """Decode and embed media files with the checkpoint's own sampling and preprocessing.

        Args:
          paths: n files of any format that PyAV decodes.
          batch_size: how many at a time.

        Returns:
          float32 `[n,E]`, rows of unit length.

        Raises:
          UserError: a file that does not exist or cannot be decoded; names it and the reason.
        """
        if isinstance(paths, (str, Path)):
            raise UserError(f"encode_video wants a list of paths, got one; write encode_video([{str(paths)!r}])")
        paths = [Path(p) for p in paths]
        parts = []
        for i in range(0, len(paths), batch_size):
            frames = np.stack([self._frames(path) for path in paths[i : i + batch_size]])
            parts.append(embed_views(self.embed_video_batch, _pad(frames, batch_size)))
        return _joined(parts, rows=len(paths), width=self.model.embed_dim)

    def _frames(self, path: Path) -> np.ndarray:
        from ..data.batches.pipeline import encode_frames
        from ..data.media.decode import DecodeError, DecodeOptions, decode_clip

        prepared = self.meta["data"]["prepare"]
        fields = {field.name for field in dataclasses.fields(DecodeOptions)}
        options = DecodeOptions(**{key: prepared[key] for key in fields & prepared.keys()} | {"audio": False})
        try:
            return encode_frames(self.data, clip=decode_clip(path, options=options))
        except DecodeError as error:
            raise UserError(f"{path} cannot be encoded: {error}") from error


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    """Fill up to `size` rows with zeros, so that every batch compiles to one program."""
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])


def _joined(parts: list[np.ndarray], *, rows: int, width: int) -> np.ndarray:
    return np.concatenate([*parts, np.zeros((0, width), np.float32)])[:rows]


def load(path: str | Path) -> Encoder:
    """Open a checkpoint (a step folder, a checkpoints folder or a workdir) as an `Encoder`.

    Raises:
      UserError: no readable checkpoint there, one of another objective, or parameters that do not fit.
    """
    step_folder = checkpoint.resolve(Path(path))
    meta = checkpoint.read_meta(step_folder)
    if meta.get("objective") != "contrastive":
        raise UserError(
            f"{step_folder} is a checkpoint of objective {meta.get('objective')!r}, encoding wants 'contrastive'; "
            "give the checkpoint of a `twinreel pretrain` run"
        )
    tokenizer = tokenizer_from_meta(meta["tokenizer"])
    data = section(ClipData, meta["config"]["data"], name="data")
    model = section(
        build,
        for_loss(meta["config"]["model"], loss=meta["config"].get("loss", {}).get("name", "infonce")),
        name="model",
        num_frames=data.num_frames,
        context_length=data.context_length,
        vocab_size=tokenizer.vocab_size,
        audio_samples=data.audio_samples,
        rngs=nnx.Rngs(0),
    )
    checkpoint.restore_model(step_folder, model=model)
    return Encoder(model=model, tokenizer=tokenizer, data=data, meta=meta)
