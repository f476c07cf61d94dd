"""twinreel's models in MTEB (mteb 2.x; extra `mteb`), for its tasks with text, video, images and sound.

    import mteb
    import twinreel

    model = twinreel.mteb.Model("runs/demo")
    mteb.evaluate(model, mteb.get_tasks(tasks=["MSRVTTT2V"]))

MTEB's test sets are not those of papers: its MSR-VTT has 879 pairs, and its main score is nDCG@10. Such figures do not
stand beside those of `twinreel evaluate --benchmark msrvtt-1ka`.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from ..base.errors import UserError
from ..data.options import SAMPLE_RATE, InputSpec
from ..encode.embed.encoder import Encoder, load
from ..encode.embed.views import embed_views
from ..encode.media.decoded import frames_of_decoded
from ..engine.step.state import split_model
from ..zoo.digest import params_sha256

try:
    from mteb.models.abs_encoder import AbsEncoder  # pyright: ignore[reportMissingImports]
    from mteb.models.model_meta import ModelMeta, ScoringFunction  # pyright: ignore[reportMissingImports]
except ImportError as error:
    raise UserError(f"twinreel.mteb needs mteb ({error}); install it: pip install 'twinreel[mteb]'") from error

_COLUMNS = ("text", "image", "video", "audio")


class Model(AbsEncoder):
    """A dual tower as MTEB's encoder: every item gets one embedding of unit length.

    Frames are drawn and transformed as the model's own input says, not by MTEB's even spacing; sound is the middle of
    the clip. An item of several columns gets one embedding: the model's fusion of video and sound where it has one,
    else the unit embeddings of the columns are added. Texts go in as they are, without instructions.

    Attributes:
      encoder: the model.
      mteb_model_meta: what MTEB writes beside the results; its revision is the hash of the weights.
    """

    def __init__(self, model: str | Path | Encoder, *, name: str = "", windows: int = 1):
        """Open a model.

        Args:
          model: a run, one of its checkpoints, a bundle, public weights, or an `Encoder`.
          name: "ORGANISATION/NAME" in MTEB's results; "" = that of `hf:` weights, else "twinreel/" and the folder's.
          windows: windows of each video, evenly spread, whose embeddings are averaged.

        Raises:
          UserError: nothing readable there, or a model without a joint space.
        """
        self.encoder = model if isinstance(model, Encoder) else load(model)
        self._windows = windows
        given = self.encoder.source if isinstance(model, Encoder) else str(model)
        self.mteb_model_meta = _meta(self.encoder, name=name or _name(given), windows=windows)

    def encode(self, inputs: Any, **about: Any) -> np.ndarray:
        """Embed the items of a loader.

        Args:
          inputs: MTEB's `DataLoader`.
          about: MTEB's description of the task; `show_progress_bar` counts, the rest does not change embeddings.

        Returns:
          float32 [n,E], rows of unit length, in the order of the loader.

        Raises:
          UserError: no column that the model encodes.
        """
        from rich.console import Console
        from rich.progress import track

        columns = [name for name in _COLUMNS if name in inputs.dataset.features]
        wanted = [name for name in columns if _side(name) in self.encoder.spec.towers]
        if not wanted:
            has, towers = ", ".join(inputs.dataset.features), ", ".join(self.encoder.spec.towers)
            raise UserError(f"the task has the columns {has}, and the model has towers for {towers}")
        inputs.collate_fn = functools.partial(collate, columns=wanted, spec=self.encoder.input, windows=self._windows)
        hidden = not about.get("show_progress_bar", True)
        shown = track(inputs, "embed", console=Console(stderr=True), disable=hidden, transient=True)
        found = [self._embed(batch) for batch in shown]
        return np.concatenate(found) if found else np.zeros((0, self.encoder.embed_dim), np.float32)

    def _embed(self, batch: dict[str, list[Any]]) -> np.ndarray:
        """Embed a batch: column -> its items, None where an item lacks it."""
        count = len(next(iter(batch.values())))
        total = np.zeros((count, self.encoder.embed_dim), np.float32)
        if {"video", "audio"} <= batch.keys() and self.encoder.clip_side != "video":
            video, audio = batch.pop("video"), batch.pop("audio")
            batch["clip"] = [None if v is None else (v, a) for v, a in zip(video, audio, strict=True)]
            batch["audio"] = [a if v is None else None for v, a in zip(video, audio, strict=True)]
        for name, items in batch.items():
            rows = [row for row, item in enumerate(items) if item is not None]
            if rows:
                total[rows] += self._embed_column(name, [items[row] for row in rows])
        length = np.linalg.norm(total, axis=1, keepdims=True)
        if not length.all():
            raise UserError(f"item {int(np.argmin(length))} of a batch has none of {', '.join(batch)}")
        return total / length

    def _embed_column(self, name: str, items: Sequence[Any]) -> np.ndarray:
        encoder, size = self.encoder, len(items)
        if name == "text":
            return encoder.encode_text(items, batch_size=size)
        if name == "audio":
            sound, lengths = _stacked(items, samples=encoder.input.audio_samples)
            return encoder.encode_audio_arrays(sound, lengths=lengths, batch_size=size)
        if name == "clip":
            sound, lengths = _stacked([audio for _, audio in items], samples=encoder.input.audio_samples)
            heard = {"audio": sound, "lengths": lengths, "batch_size": size}
            video = np.stack([video for video, _ in items])
            return embed_views(lambda view: encoder.encode_clip_arrays(view, **heard), video)
        return encoder.encode_video_arrays(np.stack(items), batch_size=size)


def collate(
    rows: Sequence[dict[str, Any]], *, columns: Sequence[str], spec: InputSpec, windows: int = 1
) -> dict[str, list[Any]]:
    """Turn the rows of a data set into what the model takes.

    Args:
      rows: of MTEB's data set: text, PIL images, torchcodec's decoders of video, decoded sound.
      columns: those that are read.
      spec: what the model eats.
      windows: of each video.

    Returns:
      Column -> an item per row, None where the row lacks it: strings; uint8 `[T,H,W,3]` or `[V,T,H,W,3]`; int16 `[s]`
      at 16 kHz.
    """
    make = {
        "text": str,
        "image": functools.partial(_image, spec=spec),
        "video": functools.partial(_video, spec=spec, windows=windows),
        "audio": functools.partial(_audio, samples=spec.audio_samples),
    }
    return {name: [None if row[name] is None else make[name](row[name]) for row in rows] for name in columns}


def _video(video: Any, *, spec: InputSpec, windows: int) -> np.ndarray:
    """Read the frames that the model draws; where the last ones cannot be decoded, the clip ends before them."""
    about = video.metadata
    count, fps = about.num_frames, about.average_fps

    def read(indices: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.asarray(video.get_frames_at(indices.tolist()).data), 1, -1)

    while True:
        try:
            return frames_of_decoded(spec, read=read, count=count, fps=fps, windows=windows)
        except RuntimeError as error:
            if "no more frames" not in str(error) or count < 2:
                raise
            count -= 1


def _image(image: Any, *, spec: InputSpec) -> np.ndarray:
    """Show a picture as a clip of one frame."""
    picture = np.asarray(image.convert("RGB"))[None]
    return frames_of_decoded(spec, read=picture.__getitem__, count=1, fps=1.0)


def _audio(audio: Any, *, samples: int) -> np.ndarray:
    """Return the middle of the sound, at most `samples`, int16 at 16 kHz; channels are averaged."""
    wave = np.atleast_2d(np.asarray(audio["array"], np.float32)).mean(axis=0, keepdims=True)
    sound = resampled(wave, rate=int(audio["sampling_rate"]))
    start = max(0, (len(sound) - samples) // 2)
    return sound[start : start + samples]


def resampled(wave: np.ndarray, *, rate: int) -> np.ndarray:
    """Resample float32 [1,s] in -1..1 at `rate` Hz to int16 [k] at 16 kHz, as the sound of files is (libswresample)."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format="fltp", layout="mono")
    frame.rate = rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray().reshape(-1) for part in parts])


def _stacked(items: Sequence[np.ndarray | None], *, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sound int16 [n,S], padded with silence, and int32 [n], the real samples of each; None has none."""
    sound, lengths = np.zeros((len(items), samples), np.int16), np.zeros(len(items), np.int32)
    for row, item in enumerate(items):
        if item is not None:
            sound[row, : len(item)], lengths[row] = item, len(item)
    return sound, lengths


def _side(column: str) -> str:
    return "video" if column == "image" else column


def _name(source: str) -> str:
    """Return what MTEB calls a model.

    >>> _name("hf:google/siglip-base-patch16-224@main"), _name("runs/demo/")
    ('google/siglip-base-patch16-224', 'twinreel/demo')
    """
    if source.startswith("hf:"):
        return source.removeprefix("hf:").partition("@")[0]
    return f"twinreel/{Path(source).name or 'model'}"


def _meta(encoder: Encoder, *, name: str, windows: int) -> Any:
    """Describe the model; what is not known is None."""
    params = split_model(encoder.model)
    towers = encoder.spec.towers
    return ModelMeta(
        loader=None,
        name=name,
        revision=params_sha256(params),
        release_date=None,
        languages=None,
        n_parameters=sum(value.size for value in params.values()),
        memory_usage_mb=sum(value.nbytes for value in params.values()) / 2**20,
        max_tokens=encoder.input.context_length if "text" in towers else None,
        embed_dim=encoder.embed_dim,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["JAX"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=False,
        training_datasets=None,
        modalities=[name for name in _COLUMNS if _side(name) in towers],
        experiment_kwargs={"windows": windows} if windows > 1 else None,
    )
