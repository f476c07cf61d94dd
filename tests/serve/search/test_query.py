"""What a query says: words, phrases, weights, terms to avoid; and what is embedded of files."""

import doctest

import numpy as np
import pytest
from brightness_model import brightness_model
from serve_films import SETTINGS

from twinreel.base.errors import UserError
from twinreel.serve.search import query
from twinreel.serve.search.query import Term, embed_terms, parse_text, side_of, weighted


def test_examples():
    assert doctest.testmod(query).failed == 0


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a dog runs", [("a dog runs", 1)]),
        ("t-shirt  under-water", [("t-shirt under-water", 1)]),
        ("beach -people", [("beach", 1), ("people", -0.5)]),
        ('"red car" -"a blue one"^2 fast', [("red car fast", 1), ("a blue one", -2)]),
        ('sea^2 sun^0.5 "at night"^3', [("sea", 2), ("sun", 0.5), ("at night", 3)]),
        ("2^10 is big - really", [("is big - really", 1), ("2", 10)]),
        ("-5 degrees", [("degrees", 1), ("5", -0.5)]),
        ("çocuk 犬 -кот", [("çocuk 犬", 1), ("кот", -0.5)]),
    ],
)
def test_text(text, want):
    assert [(term.value, term.weight) for term in parse_text(text)] == want


@pytest.mark.parametrize("text", ['say "hello', "sun^0", '-""', 'a"b'])
def test_text_that_cannot_be_read(text):
    with pytest.raises(UserError, match="query"):
        parse_text(text)


def test_flags():
    assert weighted("a^b.mp4", kind="like", side="video") == Term(kind="like", value="a^b.mp4")
    assert weighted("a.mp4^2", kind="like", side="video", sign=-1.0).weight == -2
    assert weighted("people", kind="text", side="video", sign=-1.0).weight == -0.5


def test_sides():
    assert side_of("sound", within="", sides=("video", "audio"), name="m") == "audio"
    assert side_of("text", within="", sides=("video",), name="m") == "video"
    assert side_of("text", within="transcript", sides=("video", "transcript"), name="m") == "transcript"
    with pytest.raises(UserError, match=r"no 'transcript' of model m \(no transcript or subtitle file"):
        side_of("text", within="transcript", sides=("video",), name="m")


def test_a_long_film_is_looked_for_by_its_moments(films):
    opened = brightness_model()
    term = Term(kind="like", value=str(films / "long" / "ramp.mp4"))
    (found,) = embed_terms([term], opened=opened, settings=SETTINGS)
    assert found.vectors.shape == (23, 16)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)
    for path, why in ((films / "notes.txt", "cannot be opened"), (films / "absent.mp4", "file does not exist")):
        with pytest.raises(UserError, match=f"cannot be looked for: {why}"):
            embed_terms([Term(kind="like", value=str(path))], opened=opened, settings=SETTINGS)
    with pytest.raises(UserError, match="no sound track"):
        embed_terms([Term(kind="sound", value=term.value)], opened=opened, settings=SETTINGS)
    with pytest.raises(UserError, match="has no audio tower"):
        embed_terms([Term(kind="sound", value=term.value)], opened=brightness_model(sound=False), settings=SETTINGS)
