"""Captions for media files and arrays, by a model with a captioning head."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ...base.errors import UserError
from ...base.section import section
from ...models.generate import GenerateOptions, generate
from ...models.layers.draws import numbered_keys
from ...zoo.language_models import caption_tokenizer, hears
from ...zoo.load import load_model, locate
from ...zoo.spec import ModelSpec
from ..devices.placed import PlacedModel
from ..devices.rows import Rows, padded
from ..media.files import frames_of_files, listed, sound_of_files

SOUND = ("audio", "audio_mask", "audio_samples")
"""Arrays of a batch that a model takes which hears."""


class Captioner(PlacedModel):
    """A dual tower with a captioning head, and its input.

    Attributes:
      tokenizer: of its captions: the text tower's, or that of the language model which writes them.
      options: how captions are written.
      hears: whether captions are of what is heard, too.
    """

    def __init__(
        self,
        *,
        spec: ModelSpec,
        model: nnx.Module,
        options: Mapping[str, Any] | None = None,
        mesh: Mesh | None = None,
        source: str = "",
    ):
        """Put a model on the devices.

        Args:
          spec: what it is.
          model: the towers with the head.
          options: fields of `models.generate.GenerateOptions`; `max_tokens` is the context length by default.
          mesh: None = all devices, each with all parameters.
          source: where it comes from.

        Raises:
          UserError: a model without a captioning head, several views of a clip, or a tokenizer without an end token.
        """
        name = source or "this model"
        _check_head(spec, name=name)
        super().__init__(spec=spec, model=model, mesh=mesh, source=source)
        self.tokenizer, self.hears = caption_tokenizer(spec), hears(spec)
        if self.tokenizer.eos_id < 0:
            raise UserError(f"the tokenizer of {name} has no end token, so a caption would not end; take another one")
        given = {"max_tokens": spec.input.context_length, **(options or {})}
        self.options = section(GenerateOptions, given, name="generate")

    def caption(
        self,
        paths: Iterable[str | Path],
        *,
        batch_size: int = 16,
        workers: int = 0,
        seed: int = 0,
        progress: bool = False,
    ) -> list[dict[str, Any]]:
        """Describe media files, with the model's own sampling and preprocessing.

        Args:
          paths: n files of any format that PyAV decodes.
          batch_size: files at a time.
          workers: processes that decode; 0 = one per core.
          seed: of sampling; file i draws the same whatever the batch size.
          progress: draw a progress bar on standard error.

        Returns:
          For each file `path`, `caption`, `score` (log-probability in nats; of a beam search divided by tokens **
          length_penalty) and, of a beam search, `others`, the further captions.

        Raises:
          UserError: a file that cannot be decoded.
        """
        files = listed(paths, method="caption")
        size = self.global_batch(batch_size, total=len(files))
        parts = frames_of_files(self.spec.input, files, batch_size=size, workers=workers, progress=progress)
        how = {"batch_size": size, "workers": workers, "silent": True}
        sounds = sound_of_files(self.spec.input, files, **how) if self.hears else None
        found, begin = [], jax.process_index() * (size // jax.process_count())
        for rows in parts:
            number, begin = begin + np.arange(len(rows["video"])), begin + size
            if sounds is not None:
                sound, samples = next(sounds)
                rows = rows | {"audio": sound, "audio_samples": samples, "audio_mask": samples > 0}
            given = rows | {"clip_index": number, "valid": np.ones(len(number), bool)}
            found += [one for _, _, one in self.caption_rows(given, size=size, seed=seed)]
        return [{"path": str(path), **one} for path, one in zip(files, found, strict=False)]

    def caption_rows(self, rows: Rows, *, size: int, seed: int = 0) -> Iterator[tuple[int, bool, dict[str, Any]]]:
        """Describe one global batch of clips; all processes must call it.

        Args:
          rows: this process's rows: `video` uint8 [b,T,H,W,3] and, with masks of frames, `video_mask`; of a model that
            hears `audio` int16 [b,S], `audio_mask` bool [b] and perhaps `audio_samples`; `clip_index` int [b] and
            `valid` bool [b].
          size: rows of a global batch; fewer are padded.
          seed: of sampling.

        Yields:
          For each row of the global batch, padding included, `clip_index`, `valid` and what `caption` returns but the
          path. Sampling depends on the seed and `clip_index`.
        """
        if rows["video"].ndim != 5:
            raise UserError(
                f"config.data.eval_video={self.spec.input.eval_video!r} makes several views of a clip; captions are of "
                "one: use center_crop"
            )
        local = size // jax.process_count()
        keys = ("video", "video_mask", *(SOUND if self.hears else ()), "clip_index", "valid")
        given = {key: padded(rows[key], size=local) for key in keys if key in rows}
        given["clip_index"] = given["clip_index"].astype(np.int32)
        shared = {"seed": np.asarray(seed, np.uint32)}
        function = _captions(self.options, self.tokenizer.eos_id, self.tokenizer.pad_id)
        made = self.apply_local(given, function=function, shared=shared)
        for i, number in enumerate(made["clip_index"].tolist()):
            both = zip(made["tokens"][i], made["lengths"][i], made["scores"][i].tolist(), strict=True)
            ranked = [{"caption": self.tokenizer.decode(one[:length]), "score": score} for one, length, score in both]
            yield number, bool(made["valid"][i]), ranked[0] | ({"others": ranked[1:]} if len(ranked) > 1 else {})


def _check_head(spec: ModelSpec, *, name: str) -> None:
    """Raise UserError unless the model has a captioning head."""
    if "captioning" not in spec.joint_heads:
        raise UserError(
            f"{name} has no captioning head, so it writes no captions; train one with config.model.heads="
            "{'captioning': {'kind': 'decoder'}} and config.loss.terms={'captioning': {'weight': 2.0}}"
        )


@functools.cache
def _captions(options: GenerateOptions, eos_id: int, pad_id: int) -> Any:
    """Return the function that describes rows of clips; one for each way to write, so that each compiles once."""

    def function(model: Any, rows: dict[str, jax.Array]) -> dict[str, jax.Array]:
        inputs = {key: rows[key] for key in ("video", "video_mask") if key in rows}
        head, (_, seen) = model.heads["captioning"], model.encode_clips(inputs, drop_patches=False)
        clips = model.clips(seen.steps, mask=rows.get("video_mask"))._replace(patches=seen.patches)
        if "audio" in rows:
            sound, real = model.audio.features(rows["audio"], lengths=rows.get("audio_samples"))
            clips = clips._replace(sound=sound, sound_mask=real & rows["audio_mask"][:, None])
        context = head.context(clips)
        prompt = jax.numpy.full((len(seen.steps), 1), head.start_id, jax.numpy.int32)
        keys = numbered_keys(jax.random.key(rows["seed"]), numbers=rows["clip_index"])
        given = {"eos_id": eos_id, "pad_id": pad_id, "options": options, "keys": keys}
        made = generate(head.decoder, prompt=prompt, context=context, **given)
        return made._asdict() | {key: rows[key] for key in ("clip_index", "valid")}

    return function


def load_captioner(
    path: str | Path, *, options: Mapping[str, Any] | None = None, mesh: Mesh | None = None
) -> Captioner:
    """Open a model with a captioning head: a bundle, a run (its newest checkpoint) or one checkpoint.

    Raises:
      UserError: nothing readable there, or see `Captioner`.
    """
    located = locate(path)
    _check_head(located.spec, name=str(located.path))  # before its parameters are read
    model = load_model(located)
    return Captioner(spec=located.spec, model=model, options=options, mesh=mesh, source=str(located.path))
