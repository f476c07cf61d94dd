"""Token ids of every family against those that the public libraries gave (tests/golden/make_tokenizers.py)."""

import json
from pathlib import Path

import numpy as np
import pytest

from twinreel.data.text.clean import text_cleaner
from twinreel.data.text.tokenizer import load_tokenizer, tokenizer_from_meta

GOLDEN = Path(__file__).parents[2] / "golden" / "tokenizers"
NAMES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
CLEAN = {"siglip": "canonicalize"}  # which the public class does inside; here it is declared


def texts_of(name: str, case: str) -> list[str]:
    texts = json.loads((GOLDEN / "texts.json").read_text())
    if case.startswith("plain") or (name, case[:4]) == ("t5_fast", "safe"):
        texts["special"] = []
    texts = [*texts["texts"], *texts["special"]]
    return [text for text in texts if "▁" not in text] if name == "siglip" else texts


def cases() -> list[tuple[str, str]]:
    return [(name, case) for name in NAMES for case in json.loads((GOLDEN / f"{name}.json").read_text())]


def test_the_golden_files_are_all_there():
    assert len(NAMES) == 9 and len(cases()) == 48


@pytest.mark.parametrize("name,case", cases())
def test_ids_mask_and_counts_equal_the_public_library(name, case):
    want = json.loads((GOLDEN / f"{name}.json").read_text())[case]
    tokenizer = load_tokenizer(GOLDEN / name)
    texts = list(map(text_cleaner(CLEAN.get(name, "")), texts_of(name, case)))
    ids, mask, truncated = tokenizer.encode(texts, context_length=want["context_length"])
    for text, row, real, expected in zip(texts, ids, mask, want["ids"], strict=True):
        assert row[real].tolist() == expected, text
        assert real.sum() == len(expected) and real[: len(expected)].all(), "padding is on the right"
        assert (row[~real] == want["pad_id"]).all()
    assert truncated == want["truncated"]
    assert tokenizer.lengths(texts).tolist() == want["lengths"]
    assert tokenizer.pad_id == want["pad_id"]
    assert ids.max() < tokenizer.vocab_size


@pytest.mark.parametrize("name", NAMES)
def test_meta_is_json_and_holds_all(name):
    tokenizer = load_tokenizer(GOLDEN / name)
    other = tokenizer_from_meta(json.loads(json.dumps(tokenizer.to_meta())))
    texts = texts_of(name, "safe")
    for a, b in zip(*(t.encode(texts, context_length=20) for t in (tokenizer, other)), strict=True):
        np.testing.assert_array_equal(a, b)
    for field in ("pad_id", "bos_id", "eos_id", "vocab_size"):
        assert getattr(tokenizer, field) == getattr(other, field)


@pytest.mark.parametrize("name", NAMES)
def test_no_caption_makes_a_special_token(name):
    tokenizer = load_tokenizer(GOLDEN / name)
    around = {tokenizer.bos_id, tokenizer.eos_id} - {-1}
    texts = texts_of(name, "all")[-5:]
    ids, mask, _ = tokenizer.encode(texts, context_length=100)
    for row, real in zip(ids, mask, strict=True):
        inner = row[real][tokenizer.bos_id >= 0 : real.sum() - (tokenizer.eos_id >= 0)]
        assert not around & set(inner.tolist()) and len(inner) > 5


def test_canonicalize_is_that_of_siglip():
    texts = json.loads((GOLDEN / "texts.json").read_text())
    clean = text_cleaner("canonicalize")
    assert [clean(text) for text in texts["texts"] + texts["special"]] == texts["canonical"]


def test_clip_pads_with_its_end_token_and_the_mask_alone_tells():
    tokenizer = load_tokenizer(GOLDEN / "clip_fast")
    ids, mask, _ = tokenizer.encode(["a dog", ""], context_length=10)
    assert tokenizer.pad_id == tokenizer.eos_id
    assert (ids == tokenizer.eos_id).sum() > mask.shape[0]
    assert ids[1, mask[1]].tolist() == [tokenizer.bos_id, tokenizer.eos_id]


@pytest.mark.parametrize("name", NAMES)
def test_decode_gives_the_words_back(name):
    tokenizer = load_tokenizer(GOLDEN / name)
    ids, _, _ = tokenizer.encode(["a man runs across the street"], context_length=40)
    assert tokenizer.decode(ids[0]) == "a man runs across the street"
