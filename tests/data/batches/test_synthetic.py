"""Synthetic batches: the keys of real ones, a function of seed and step."""

import itertools

import numpy as np

from twinreel.data.batches.synthetic import synthetic_batch, synthetic_batches

SIZES = {
    "batch_size": 3,
    "num_frames": 2,
    "image_size": 8,
    "context_length": 7,
    "vocab_size": 50,
    "audio_samples": 5,
}


def test_keys_shapes_types_and_text():
    batch = synthetic_batch(4, seed=1, **SIZES)
    assert {key: (value.dtype.name, value.shape) for key, value in batch.items()} == {
        "video": ("uint8", (3, 2, 8, 8, 3)),
        "text": ("int32", (3, 7)),
        "text_mask": ("bool", (3, 7)),
        "valid": ("bool", (3,)),
        "clip_index": ("int64", (3,)),
        "caption_index": ("int32", (3,)),
        "audio": ("int16", (3, 5)),
        "audio_mask": ("bool", (3,)),
        "audio_samples": ("int32", (3,)),
    }
    for ids, mask in zip(batch["text"], batch["text_mask"], strict=True):
        length = mask.sum()
        assert mask[:length].all() and ids[0] == 2 and ids[length - 1] == 3 and not ids[length:].any()
        assert ((ids[1 : length - 1] >= 4) & (ids[1 : length - 1] < 50)).all()


def test_resuming_and_repeating():
    straight = list(itertools.islice(synthetic_batches(seed=1, **SIZES), 6))
    resumed = list(itertools.islice(synthetic_batches(seed=1, start_step=3, **SIZES), 3))
    for a, b in zip(straight[3:], resumed, strict=True):
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
    assert (straight[0]["video"] != straight[1]["video"]).any()
    np.testing.assert_array_equal(straight[0]["text"], straight[2]["text"])


def test_candidate_captions():
    batch = synthetic_batch(0, seed=1, captions=4, **SIZES)
    assert batch["text"].shape == batch["text_mask"].shape == (3, 4, 7) and batch["text"].dtype == np.int32
    assert batch["caption_index"].tolist() == [[0, 1, 2, 3]] * 3
    assert batch["text_mask"].any(axis=-1).all() and (batch["text"][:, 0] != batch["text"][:, 1]).any()
