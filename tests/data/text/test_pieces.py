"""Token ids against SentencePiece's own processor, with the texts that break tokenizers."""

import numpy as np
import pytest
import sentencepiece

from twinreel.base.errors import UserError
from twinreel.data.text import pieces
from twinreel.data.text.pieces import SentencePieceTokenizer
from twinreel.data.text.tokenizer import load_tokenizer, tokenizer_from_meta

CAPTIONS = [
    f"a {size} {colour} {shape} {verb} to the {side}"
    for size in ("small", "large")
    for colour in ("red", "green", "blue")
    for shape in ("square", "disc", "star")
    for verb in ("slides", "falls", "turns")
    for side in ("left", "right")
]


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return SentencePieceTokenizer.train(CAPTIONS, vocab_size=400)


def test_encode_is_begin_pieces_end_padding(tokenizer):
    reference = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    ids, mask, truncated = tokenizer.encode(CAPTIONS[:5], context_length=40)
    assert ids.shape == mask.shape == (5, 40) and ids.dtype == np.int32 and mask.dtype == bool and truncated == 0
    for row, caption in enumerate(CAPTIONS[:5]):
        want = reference.encode(caption, add_bos=True, add_eos=True)
        assert ids[row].tolist() == want + [0] * (40 - len(want))
        assert mask[row].sum() == len(want)


def test_training_twice_gives_equal_bytes(tokenizer):
    assert SentencePieceTokenizer.train(iter(CAPTIONS), vocab_size=400).model == tokenizer.model
    assert tokenizer.vocab_size <= 400


@pytest.mark.parametrize("text", ["a small red square", "一只狗在草地上奔跑", "naïve café 🎥", "emoji 👩‍🚀 only"])
def test_round_trip_of_unseen_scripts_by_byte_fallback(tokenizer, text):
    ids, _, truncated = tokenizer.encode([text], context_length=128)
    assert truncated == 0
    assert tokenizer.decode(ids[0]) == text
    assert 1 not in ids[0], "byte fallback leaves no unknown token"


def test_empty_caption_is_begin_and_end(tokenizer):
    ids, mask, truncated = tokenizer.encode(["", "a red star"], context_length=16)
    assert ids[0].tolist() == [tokenizer.bos_id, tokenizer.eos_id] + [0] * 14
    assert mask[0].sum() == 2 and truncated == 0


def test_caption_of_ten_thousand_words_is_cut_and_counted(tokenizer):
    ids, mask, truncated = tokenizer.encode(["red " * 10_000, "a star", "red " * 10_000], context_length=24)
    assert truncated == 2
    assert mask[0].all() and ids[0, 0] == tokenizer.bos_id and ids[0, -1] == tokenizer.eos_id
    assert not mask[1].all()


def test_long_captions_still_train():
    long = SentencePieceTokenizer.train(["red square " * 10_000], vocab_size=400)
    assert long.decode(long.encode(["red square"], context_length=32)[0][0]) == "red square"


@pytest.mark.parametrize("word", ["一只狗在草地上奔跑", "слово", "aé", "👩\u200d🚀", "a" * 97])
def test_long_captions_without_spaces_are_cut_by_bytes_and_all_of_them_train(word):
    long = word * (20_000 // len(word.encode()))
    lines = pieces._sentences(["short", long, f"{long} {word}"])
    assert max(len(line.encode()) for line in lines) <= 4096 and len(lines) > 8
    assert "".join(lines).replace(" ", "") == "short" + long + long + word
    alone = SentencePieceTokenizer.train([long], vocab_size=400)
    beside = SentencePieceTokenizer.train(["xyz", long], vocab_size=400)
    for trained in (alone, beside):  # the characters of the long caption are pieces, not bytes
        assert trained.lengths([word[:8] * 3])[0] <= len(word[:8] * 3) + 3


def test_captions_with_characters_that_the_trainer_reserves_are_not_dropped():
    trained = SentencePieceTokenizer.train(["zebra \u2585 zebra"] * 5, vocab_size=400)
    assert trained.lengths(["zebra"])[0] < 5
    for captions in (["\u2585"], ["\ufffd"], ["\u200b"]):
        with pytest.raises(UserError, match="every caption is empty"):
            SentencePieceTokenizer.train(captions, vocab_size=400)


@pytest.mark.parametrize("captions", [["x"], ["", "a"], ["一"], ["a b c\nd e"], ["x"] * 100])
def test_tiny_corpora_train(captions):
    tiny = SentencePieceTokenizer.train(captions, vocab_size=1000)
    text = "hello there"
    assert tiny.decode(tiny.encode([text], context_length=64)[0][0]) == text


def test_more_characters_than_places_are_spelled_in_bytes():
    captions = ["".join(chr(0x4E00 + i + j) for j in range(20)) for i in range(0, 2000, 20)]
    chinese = SentencePieceTokenizer.train(captions, vocab_size=400)
    assert chinese.vocab_size <= 400
    assert chinese.decode(chinese.encode([captions[-1]], context_length=128)[0][0]) == captions[-1]


def test_meta_and_file_round_trip(tokenizer, tmp_path):
    path = tmp_path / "captions.model"
    path.write_bytes(tokenizer.model)
    for other in (tokenizer_from_meta(tokenizer.to_meta()), load_tokenizer(path)):
        assert other.model == tokenizer.model
        np.testing.assert_array_equal(
            other.encode(CAPTIONS, context_length=20)[0], tokenizer.encode(CAPTIONS, context_length=20)[0]
        )


def test_errors_name_what_to_change(tokenizer, tmp_path):
    with pytest.raises(UserError, match=r"config\.data\.vocab_size"):
        SentencePieceTokenizer.train(CAPTIONS, vocab_size=100)
    with pytest.raises(UserError, match="every caption is empty"):
        SentencePieceTokenizer.train(["", "  "], vocab_size=1000)
    with pytest.raises(UserError, match="does not exist"):
        load_tokenizer(tmp_path / "none.model")
    with pytest.raises(UserError, match="no SentencePiece model"):
        SentencePieceTokenizer(b"not a model")
    with pytest.raises(UserError, match=r"config\.data\.context_length"):
        tokenizer.encode(["a"], context_length=1)
    with pytest.raises(UserError, match="'bert'"):
        tokenizer_from_meta({"kind": "bert"})
