"""No caption twice in a batch: by keys as by a loop over texts, after any cleaning."""

import json
import random

import ftfy
import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from twinreel.data.batches.table import read_tables
from twinreel.data.batches.unique import Unique
from twinreel.data.index.keys import alike_key
from twinreel.data.text.clean import TEXT_OPS, text_cleaner

WORDS = ["A dog", "a dog", "a dog.", "a  dog", "A DOG!", "a cat", "dog a", "caf\u00e9", "cafe\u0301", "a dog &amp; cat"]


def table(folder, captions):
    rows = [{"split": "train", "clip_id": f"c{i}", "captions": own} for i, own in enumerate(captions)]
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_tables(folder)["train"]


def by_loop(captions, record, drawn, clean):
    taken, chosen = set(), []
    for r, number in zip(record, drawn, strict=True):
        order = [(number + j) % len(captions[r]) for j in range(len(captions[r]))] if number >= 0 else []
        free = [n for n in order if clean(captions[r][n]) not in taken]
        chosen.append(free[0] if free else -1)
        taken |= {clean(captions[r][n]) for n in free[:1]}
    return chosen


@pytest.mark.parametrize("cleaning", ["", "lower", "canonicalize", "fix_unicode|unescape_html|lower", "max_words(1)"])
def test_it_chooses_as_a_loop_over_the_texts(tmp_path, cleaning):
    rng, clean = random.Random(0), text_cleaner(cleaning)
    captions = [[rng.choice(WORDS) + rng.choice(["", " 1", " 2"]) for _ in range(rng.randint(0, 3))] for _ in range(60)]
    unique = Unique([table(tmp_path, captions)], clean=clean, cleaning=cleaning)
    dropped = 0
    for _ in range(20):
        record = np.array(rng.sample(range(60), 24))
        drawn = np.array([rng.randrange(len(captions[r])) if captions[r] else -1 for r in record])
        found = unique.choose(np.zeros(24, np.int32), record=record, caption=drawn[:, None].astype(np.int32))
        assert found[:, 0].tolist() == by_loop(captions, record.tolist(), drawn.tolist(), clean)
        dropped += int((found < 0).sum() - (drawn < 0).sum())
    assert dropped > 0, "no row lost its caption: the test tests little"


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.text(), st.sampled_from([op for op in TEXT_OPS if op not in ("max_words", "full_stop")]))
def test_cleaning_keeps_the_key_of_texts_that_are_alike(text, operation):
    """So texts that are equal after cleaning have equal keys, whatever the cleaning is."""
    cleaned = text_cleaner(operation)(text)
    hypothesis.assume(text_cleaner(operation)(cleaned) == cleaned)
    # Of a broken encoding, case may decide whether ftfy sees it.
    hypothesis.assume(operation == "fix_unicode" or ftfy.fix_text(text) == text)
    assert alike_key(cleaned) == alike_key(text)


def test_texts_are_looked_at_only_where_keys_cannot_tell(tmp_path, monkeypatch):
    captions = [[f"clip {i % 30_000} number {j}" for j in range(2)] for i in range(40_000)]
    unique = Unique([table(tmp_path, captions)], clean=str.lower, cleaning="lower")
    record = np.random.default_rng(0).permutation(40_000)[:32_768]
    looked, text = [], unique._text
    monkeypatch.setattr(unique, "_text", lambda row, **of: looked.append(row) or text(row, **of))
    found = unique.choose(np.zeros(32_768, np.int32), record=record, caption=np.zeros((32_768, 1), np.int32))
    texts = [captions[r][n] for r, n in zip(record.tolist(), found[:, 0].tolist(), strict=True) if n >= 0]
    assert len(set(texts)) == len(texts) > 30_000
    assert not looked  # repeated ones are equal, which their keys tell
