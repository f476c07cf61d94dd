"""The contrastive objective with tiny towers, and synthetic batches for it."""

from collections.abc import Iterator

import numpy as np

from twinreel.data.options import InputSpec
from twinreel.engine.sharding.rules import PRESETS
from twinreel.pretrain.objective import Contrastive

BATCH, FRAMES, SIDE, CONTEXT, VOCAB = 8, 2, 8, 6, 32
MODEL = {
    "embed_dim": 8,
    "video": {"image_size": SIDE, "patch": 4, "width": 16, "depth": 1, "heads": 2, "temporal_depth": 1},
    "text": {"width": 16, "depth": 1, "heads": 2},
}


def objective(*, loss=None, **model) -> Contrastive:
    """The towers, with other fields of `config.model`, and `config.loss`."""
    spec = InputSpec(num_frames=FRAMES, context_length=CONTEXT)
    return Contrastive(model=MODEL | model, loss=loss or {}, input=spec, vocab_size=VOCAB)


def sharding_rules(preset: str) -> tuple:
    """A preset of the sharding table that splits small arrays as well: these towers have no others."""
    return tuple((p, ":".join(s.split(":")[:2]) if isinstance(s, str) else s) for p, s in PRESETS[preset])


def batch_of(step: int, *, process: int = 0, processes: int = 1) -> dict[str, np.ndarray]:
    """Global batch `step`, or one process's rows of it; every clip has a text of its own."""
    rng = np.random.default_rng([11, step])
    batch = {
        "video": rng.integers(0, 256, (BATCH, FRAMES, SIDE, SIDE, 3), dtype=np.uint8),
        "text": rng.integers(1, VOCAB, (BATCH, CONTEXT), dtype=np.int32),
        "text_mask": np.arange(CONTEXT)[None] < rng.integers(2, CONTEXT + 1, (BATCH, 1)),
        "valid": np.ones(BATCH, bool),
        "clip_index": np.arange(BATCH, dtype=np.int64) + step * BATCH,
    }
    rows = slice(process * BATCH // processes, (process + 1) * BATCH // processes)
    return {key: value[rows] for key, value in batch.items()}


def batches(start: int, **options) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches from `start` on."""
    step = start
    while True:
        yield batch_of(step, **options)
        step += 1
