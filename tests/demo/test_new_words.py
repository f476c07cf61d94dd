"""The demo's clips in other words: what is replaced, and that nothing else changes."""

import json
import re

from twinreel.base.config import load_config
from twinreel.data.manifest import read_manifest
from twinreel.data.text.pieces import SentencePieceTokenizer
from twinreel.demo import captions, moving_shapes, new_words, render


def test_every_colour_and_shape_has_a_new_word_that_is_no_old_one():
    old = {word for words in captions.SHAPE_WORDS.values() for word in words} | set(render.COLOURS)
    assert set(new_words.COLOURS | new_words.SHAPES) == old
    new = list((new_words.COLOURS | new_words.SHAPES).values())
    words = [captions.MOTION_WORDS, captions.SIZE_WORDS, captions.TONE_WORDS, captions.TEXTURE_WORDS]
    known = set(re.findall(r"[a-z]+", json.dumps(words)))
    assert len(set(new)) == len(new) and not set(new) & old and not set(new) & known
    for before, after in (new_words.COLOURS | new_words.SHAPES).items():
        assert (before[0] in "aeiou") == (after[0] in "aeiou"), "a or an"


def test_captions_spans_and_foils_are_renamed_and_files_stay(tiny_data, tmp_path):
    source = tiny_data.parent / "videos" / "manifest.jsonl"
    written = new_words.write(tmp_path / "renamed", manifest=source)
    old, new = read_manifest(source), read_manifest(written)
    assert [clip.clip_id for clip in new] == [clip.clip_id for clip in old]
    for before, after in zip(old, new, strict=True):
        assert (written.parent / after.path).samefile(source.parent / before.path)
        assert after.foils.keys() == before.foils.keys() and after.captions[0] not in after.foils.values()
        texts = [*after.captions, *after.foils.values(), *(span.text for span in after.spans), *after.labels]
        assert not [
            word for text in texts for word in new_words.COLOURS | new_words.SHAPES if f" {word} " in f" {text} "
        ]
        assert [span.start_s for span in after.spans] == [span.start_s for span in before.spans]
    old_text = "first a plain red plus sign slides to the left, after that a stringy circle grows while a beep repeats"
    assert new_words.new_words(old_text) == "first a plain rust net slides left, then a stringy ball grows"


def test_no_text_is_longer_than_the_context_of_the_demo():
    config = load_config("demo")
    numbers = {name: config.shapes[name] for name in ("train", "val", "test", "fps")}
    jobs = moving_shapes.plan(seed=0, **numbers)
    known = [text for job in jobs if job.split == "train" for text in job.captions]
    tokenizer = SentencePieceTokenizer.train(known, vocab_size=config.data.vocab_size)
    texts = [new_words.new_words(text) for job in jobs for text in (*job.captions, *job.foils.values())]
    assert 0 < max(tokenizer.lengths(texts)) <= config.data.context_length


def test_the_config_watches_the_old_words():
    config = load_config("demo_retrieve")
    assert config.evaluations.canary.data == "runs/demo/moving_shapes" and config.data.dir == "runs/demo/renamed_shapes"
