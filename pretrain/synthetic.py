"""Synthetic batches of the form that a config trains on, to plan and to measure its step. No tensorflow."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..base.config import Config
from ..base.errors import UserError
from ..data.batches.synthetic import synthetic_batch, synthetic_texts
from ..data.options import DataOptions
from ..zoo.build import argument_of, feature_width
from ..zoo.language_models import CAPTIONING, is_language_model
from ..zoo.spec import features_of
from .begin import fed
from .teacher import teacher_like, teacher_options, tokens_like
from .terms.captioning import CAPTION


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The vocabulary of a run that has not begun.

    Attributes:
      size: V.
      source: where that was read.
    """

    size: int
    source: str


def vocabulary(data: DataOptions, *, text: Mapping[str, Any] | None = None) -> Vocabulary:
    """Return the vocabulary of the tokenizer that `config.data.tokenizer` names, without asking the network.

    Where the tokenizer is yet to be trained, or is not on this machine, it is `config.data.vocab_size`.

    Args:
      data: `config.data`.
      text: `config.model.text`, whose `vocab_size` holds if it has one (that of a source).
    """
    if text and text.get("vocab_size"):
        return Vocabulary(size=text["vocab_size"], source="config.model.text.vocab_size")
    if data.feed.tokenizer == "train":
        return Vocabulary(size=data.feed.vocab_size, source="config.data.vocab_size, the most that training makes")
    try:
        return Vocabulary(size=_tokenizer_size(data.feed.tokenizer), source=f"tokenizer {data.feed.tokenizer}")
    except UserError as error:
        return Vocabulary(
            size=data.feed.vocab_size, source=f"config.data.vocab_size, as it cannot be read here: {error}"
        )


@functools.lru_cache(maxsize=8)
def _tokenizer_size(name: str) -> int:
    from ..data.text.tokenizer import load_tokenizer

    return load_tokenizer(name, fetch=False).vocab_size


def batch_like(config: Config, *, rows: int) -> dict[str, np.ndarray]:
    """Make a random batch with the keys, shapes and dtypes of the config's batches.

    Args:
      config: sections data and model, and seed.
      rows: b, the rows of the batch, whatever the config says.

    Raises:
      UserError: a field of section data that is not known.
    """
    model = config.model.to_dict()
    data = fed(DataOptions.of(config.data), towers=model)
    widths = {name: feature_width(model[side]) for side, name in features_of(model).items()}
    batch = synthetic_batch(
        0,
        batch_size=rows,
        num_frames=data.input.num_frames,
        image_size=argument_of(model["video"], side="video", field="image_size") or 0,
        context_length=data.input.context_length,
        vocab_size=vocabulary(data, text=model.get("text")).size,
        seed=config.seed,
        audio_samples=data.input.audio_samples,
        captions=data.feed.captions_per_clip,
        foils=data.feed.foils_per_clip,
        features={name: (rows, widths[name]) for name, rows in data.feed.features.items() if name in widths},
    )
    head = (model.get("heads") or {}).get(CAPTIONING)
    if head is not None and is_language_model(head) and "decoder" in head:
        given = {"length": data.input.context_length, "vocab_size": head["decoder"]["vocab_size"]}
        text, mask = synthetic_texts(np.random.default_rng(config.seed), rows, **given)
        batch |= {CAPTION: text, f"{CAPTION}_mask": mask}
    teacher = teacher_options(config.loss.to_dict())
    if teacher is None:
        return batch
    given = {"model": model, "num_frames": data.input.num_frames, "rows": rows}
    return batch | teacher_like(teacher, rows=rows) | tokens_like(teacher, **given)
