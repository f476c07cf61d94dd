"""Word vectors as text files, and the tokenizer of their words."""

import json

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.text.tokenizer import (
    WordTokenizer,
    load_tokenizer,
    tokenizer_from_files,
    tokenizer_from_meta,
    tokenizer_to_files,
)
from twinreel.data.text.words import read_vectors

GLOVE = "dog 1 0.5\nParis -2 3e-1\nrun's 0 0\nété 7 8\n"
TEXTS = ["The DOG in Paris, the dog", "paris", "run's ÉTÉ dog", "", "nothing known"]


@pytest.mark.parametrize("header", ["", "4 2\n"])
def test_vectors_with_and_without_a_header(header, tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text(header + GLOVE + "dog 9 9\n", encoding="utf-8")  # of two, the first counts
    words, vectors = read_vectors(path)
    assert words == ["dog", "Paris", "run's", "été"] and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[1, 0.5], [-2, 0.3], [0, 0], [7, 8]])


def test_unknown_words_are_skipped_and_texts_cut(tmp_path):
    path = tmp_path / "own.vec"
    path.write_text(GLOVE, encoding="utf-8")
    tokenizer = load_tokenizer(path)
    ids, mask, cut = tokenizer.encode(TEXTS, context_length=2)
    np.testing.assert_array_equal(ids, [[1, 2], [0, 0], [3, 4], [0, 0], [0, 0]])  # "paris" is not "Paris"
    np.testing.assert_array_equal(mask, ids > 0)
    assert cut == 2 and tokenizer.lengths(TEXTS).tolist() == [3, 0, 3, 0, 0]
    assert tokenizer.decode(ids[2]) == "run's été" and tokenizer.vocab_size == 5


def test_a_bundle_carries_the_words(tmp_path):
    tokenizer = WordTokenizer(["dog", "été"])
    again = tokenizer_from_meta(json.loads(json.dumps(tokenizer.to_meta())))
    meta = json.loads(json.dumps(tokenizer_to_files(tokenizer, folder=tmp_path)))
    read = tokenizer_from_files(meta, folder=tmp_path)
    for other in (again, read):
        np.testing.assert_array_equal(
            other.encode(TEXTS, context_length=4)[0], tokenizer.encode(TEXTS, context_length=4)[0]
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"dog 1 2\ncat 3\n", "line 2: 1 numbers after the word, 2"),
        (b"dog 1 x\n", "cannot be read as word vectors"),
        (b"\xff\xfe dog", "cannot be read as word vectors"),
        (b"", "holds no word vectors"),
        (b"2 300\n", "holds no word vectors"),
        (b"dog\ncat\n", "holds no word vectors"),
    ],
    ids=str,
)
def test_files_that_hold_no_vectors(content, message, tmp_path):
    path = tmp_path / "bad.vec"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_vectors(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "no word"), (["a", "a"], "a word twice"), (["a b"], "the word 'a b'"), ([""], "the word ''")],
)
def test_lists_that_are_none(words, message):
    with pytest.raises(UserError, match=message):
        WordTokenizer(words)
