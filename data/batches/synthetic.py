"""Random batches with the keys, shapes and dtypes of the real ones, for benchmarks, tests, planning. No tensorflow."""

from collections.abc import Iterator, Mapping

import numpy as np

PAD_ID, BOS_ID, EOS_ID = 0, 2, 3  # as in data/tokenizer.py, which is not imported: sentencepiece may be absent


def synthetic_batch(
    k: int,
    *,
    batch_size: int,
    num_frames: int,
    image_size: int,
    context_length: int,
    vocab_size: int,
    seed: int,
    audio_samples: int = 0,
    captions: int = 1,
    foils: int = 0,
    features: Mapping[str, tuple[int, int]] | None = None,
) -> dict[str, np.ndarray]:
    """Make batch number `k`, a pure function of `(seed, k)`.

    Args:
      k: the number of the batch, from 0.
      batch_size: clips b.
      num_frames: frames T of a clip.
      image_size: height and width in pixels.
      context_length: text tokens L, at least 3.
      vocab_size: ids lie in `[4, vocab_size)` between begin (2) and end (3).
      seed: any non-negative integer.
      audio_samples: samples S of sound at 16 kHz; 0 leaves out the audio keys.
      captions: candidate captions C of a row.
      foils: wrong captions n of a row; 0 leaves out the foil keys.
      features: name of precomputed features -> rows n and columns D.

    Returns:
      `video uint8 [b,T,H,W,3]` (left out where T is 0), `text int32 [b,L]`, `text_mask bool [b,L]`, `valid bool [b]`,
      `clip_index int64 [b]`, `caption_index int32 [b]` and, with sound, `audio int16 [b,S]`, `audio_mask bool [b]`,
      `audio_samples int32 [b]`; `features_NAME float32 [b,n,D]` and `features_NAME_mask bool [b,n]`. With C above 1
      the texts are [b,C,L] and `caption_index` is [b,C]. With foils `foil int32 [b,n,L]`, `foil_mask bool [b,n,L]` and
      `foil_valid bool [b,n]`.
    """
    rng = np.random.default_rng((seed, k))
    b = batch_size
    text, mask = synthetic_texts(rng, b * captions, length=context_length, vocab_size=vocab_size)
    several = (captions,) if captions > 1 else ()
    batch: dict[str, np.ndarray] = {
        "text": text.reshape(b, *several, context_length),
        "text_mask": mask.reshape(b, *several, context_length),
        "valid": np.ones(b, bool),
        "clip_index": k * b + np.arange(b, dtype=np.int64),
        "caption_index": np.tile(np.arange(captions, dtype=np.int32), (b, 1)).reshape(b, *several),
    }
    if num_frames:
        batch["video"] = _pixels(rng, (b, num_frames, image_size, image_size, 3))
    for name, shape in (features or {}).items():
        batch[f"features_{name}"] = rng.standard_normal((b, *shape), np.float32)
        batch[f"features_{name}_mask"] = np.ones((b, shape[0]), bool)
    if foils:
        text, mask = synthetic_texts(rng, b * foils, length=context_length, vocab_size=vocab_size)
        batch["foil"], batch["foil_mask"] = (part.reshape(b, foils, context_length) for part in (text, mask))
        batch["foil_valid"] = np.ones((b, foils), bool)
    if audio_samples:
        batch["audio"] = rng.integers(-(2**15), 2**15, size=(b, audio_samples), dtype=np.int16)
        batch["audio_mask"] = np.ones(b, bool)
        batch["audio_samples"] = np.full(b, audio_samples, np.int32)
    return batch


def synthetic_batches(
    *,
    batch_size: int,
    num_frames: int,
    image_size: int,
    context_length: int,
    vocab_size: int,
    seed: int,
    audio_samples: int = 0,
    captions: int = 1,
    start_step: int = 0,
    distinct: int = 2,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches `start_step, start_step + 1, ...` without end; see `synthetic_batch` for the arguments.

    Only `distinct` batches are made and then repeated in turn, so that a benchmark of the step measures the step.
    """
    made: dict[int, dict[str, np.ndarray]] = {}
    k = start_step
    while True:
        slot = k % distinct
        if slot not in made:
            made[slot] = synthetic_batch(
                slot,
                batch_size=batch_size,
                num_frames=num_frames,
                image_size=image_size,
                context_length=context_length,
                vocab_size=vocab_size,
                seed=seed,
                audio_samples=audio_samples,
                captions=captions,
            )
        yield dict(made[slot])
        k += 1


def synthetic_texts(
    rng: np.random.Generator, rows: int, *, length: int, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids int32 [n,L] between begin and end, and the mask bool [n,L]."""
    pieces = rng.integers(1, length - 1, size=(rows, 1))  # between begin and end, so that each has its own length
    position = np.arange(length)[None, :]
    text = rng.integers(4, vocab_size, size=(rows, length))
    text = np.where(position <= pieces, text, np.where(position == pieces + 1, EOS_ID, PAD_ID))
    text[:, 0] = BOS_ID
    return text.astype(np.int32), position <= pieces + 1


def _pixels(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(rng.bytes(int(np.prod(shape))), np.uint8).reshape(shape).copy()
