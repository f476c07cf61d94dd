"""The share of what the vocabulary has no token for, by each kind of tokenizer."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from twinreel.data.text.tokenizer import HfTokenizer, SentencePieceTokenizer, WordTokenizer, load_tokenizer

GOLDEN = Path(__file__).parents[2] / "golden" / "tokenizers"


def test_words_without_a_vector_are_unknown():
    words = WordTokenizer(["a", "red", "dog"])
    assert words.unknown_share(["a red fox", "A dog runs fast"]) == pytest.approx(3 / 7)
    assert words.unknown_share([""]) == 0


def test_the_unknown_token_of_a_tokenizer_json():
    backend = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "a": 2, "dog": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["[UNK]", "[CLS]"])
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    assert HfTokenizer(backend.to_str()).unknown_share(["a dog", "a cat runs"]) == pytest.approx(2 / 5)
    assert load_tokenizer(GOLDEN / "clip_fast").unknown_share(["東京 zwölf"]) == 0, "bytes are tokens of CLIP's own"


def test_bytes_in_place_of_pieces_count_as_unknown():
    pieces = SentencePieceTokenizer.train(["a red dog runs", "the blue cat sleeps"] * 20, vocab_size=300)
    assert pieces.unknown_share(["a red dog"]) == 0
    ids, mask, _ = pieces.encode(["red 京"], context_length=16)
    spelled = [pieces.decode([token]) for token in ids[0, mask[0]][1:-1]]
    assert 0 < pieces.unknown_share(["red 京"]) == pytest.approx(3 / len(spelled)), "three bytes of UTF-8"
