"""Synthetic batches of the form that a config trains on, to plan and to measure its step. No tensorflow."""

import numpy as np

from ..configs.load import Config
from ..configs.section import section
from ..data.batches.synthetic import synthetic_batch
from ..data.options import ClipData


def batch_like(config: Config, *, rows: int) -> dict[str, np.ndarray]:
    """Make a random batch with the keys, shapes and dtypes of the config's batches.

    Args:
      config: sections data and model, and seed.
      rows: b, the rows of the batch, whatever the config says.

    Raises:
      UserError: a field of section data that is not known.
    """
    data = section(ClipData, config.data, name="data")
    return synthetic_batch(
        0,
        batch_size=rows,
        num_frames=data.num_frames,
        image_size=config.model.video.image_size,
        context_length=data.context_length,
        vocab_size=data.vocab_size,
        seed=config.seed,
        audio_samples=data.audio_samples,
    )
