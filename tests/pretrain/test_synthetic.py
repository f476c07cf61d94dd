"""Synthetic batches are like those that training gets, and know the vocabulary that it will have."""

from pathlib import Path

import pytest

from twinreel.base.config import load_config
from twinreel.data.options import DataOptions
from twinreel.data.text.tokenizer import load_tokenizer
from twinreel.pretrain.step_parts import make_parts
from twinreel.pretrain.synthetic import batch_like, vocabulary

CLIP = Path(__file__).parents[1] / "golden" / "tokenizers" / "clip_slow"


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["data.foils_per_clip=2"],
        ["data.captions_per_clip=3"],
        ["data.audio_seconds=0.5", "data.captions_per_clip=2"],
    ],
)
def test_they_have_the_keys_shapes_and_dtypes_of_the_pipeline(tiny_overrides, changes):
    from twinreel.data.batches.pipeline import make_tokenizer, train_batches

    config = load_config("demo", overrides=[*tiny_overrides, *changes])
    data = DataOptions.of(config.data)
    stream = train_batches(data, tokenizer=make_tokenizer(data), seed=0, start_step=0)
    real = next(stream)
    stream.close()
    made = batch_like(config, rows=data.feed.batch_size)
    assert {key: (x.dtype, x.shape) for key, x in made.items()} == {key: (x.dtype, x.shape) for key, x in real.items()}


def test_the_vocabulary_is_that_of_a_tokenizer_that_is_here(tmp_path):
    there = load_tokenizer(CLIP).vocab_size
    found = vocabulary(DataOptions.of({"batch_size": 8, "tokenizer": str(CLIP)}))
    assert found.size == there != 8000 and str(CLIP) in found.source
    assert vocabulary(DataOptions.of({"batch_size": 8, "vocab_size": 600})).size == 600
    for name in (str(tmp_path / "none"), "hf:nobody/has-this-one"):
        absent = vocabulary(DataOptions.of({"batch_size": 8, "tokenizer": name}))
        assert absent.size == 8000 and "config.data.vocab_size" in absent.source and name in absent.source


def test_the_step_is_made_for_candidates_and_that_vocabulary():
    config = load_config("demo", overrides=["data.captions_per_clip=3", "loss.name=mil_nce", "loss.hard_negative=0.0",
                                            "data.foils_per_clip=0", f"data.tokenizer={CLIP}"])  # fmt: skip
    parts = make_parts(config)
    assert parts.batch["text"].shape == (64, 3, 44) and parts.batch["caption_index"].shape == (64, 3)
    table = parts.builder.abstract.params["text/embedding"]
    assert table.shape == (load_tokenizer(CLIP).vocab_size, 128)
