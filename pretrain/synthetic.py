"""Synthetic batches of the form that a config trains on, to plan and to measure its step. No tensorflow."""

import dataclasses
import functools

import numpy as np

from ..base.config import Config
from ..base.errors import UserError
from ..data.batches.synthetic import synthetic_batch
from ..data.options import DataOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The vocabulary of a run that has not begun.

    Attributes:
      size: V.
      source: where that was read.
    """

    size: int
    source: str


def vocabulary(data: DataOptions) -> Vocabulary:
    """Return the vocabulary of the tokenizer that `config.data.tokenizer` names, without asking the network.

    Where the tokenizer is yet to be trained, or is not on this machine, it is `config.data.vocab_size`.
    """
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
    data = DataOptions.of(config.data)
    return synthetic_batch(
        0,
        batch_size=rows,
        num_frames=data.input.num_frames,
        image_size=config.model.video.image_size,
        context_length=data.input.context_length,
        vocab_size=vocabulary(data).size,
        seed=config.seed,
        audio_samples=data.input.audio_samples,
        captions=data.feed.captions_per_clip,
    )
