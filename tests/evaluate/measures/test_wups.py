"""WUPS against a hand-made taxonomy, alone and as a WordNet that NLTK reads."""

import gc
import sys
import warnings

import pytest

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.wups import wordnet_similarity, wups

PARENTS = {
    "thing": None,
    "animal": "thing",
    "tool": "thing",
    "pet": "animal",
    "dog": "pet",
    "cat": "pet",
    "saw": "tool",
}


def ancestors(word):
    return [word, *ancestors(PARENTS[word])] if word else []


def wu_palmer(a, b):
    """Of a tree: twice the depth of the deepest common ancestor by the sum of both depths; the root has depth 1."""
    if a not in PARENTS or b not in PARENTS:
        return 0.0
    shared = next(one for one in ancestors(a) if one in ancestors(b))
    return 2 * len(ancestors(shared)) / (len(ancestors(a)) + len(ancestors(b)))


def test_the_formula_by_hand():
    assert wu_palmer("dog", "cat") == 2 * 3 / (4 + 4) and wu_palmer("dog", "saw") == 2 * 1 / (4 + 3)
    guesses = ["dog", "dog", "a dog", "dog cat", "saw dog", "unicorn", "unicorn", "", "dog"]
    answers = ["cat", "saw", "the Dog", "dog", "cat saw", "unicorn", "dog", "dog", ""]
    far = [0.75, 2 / 7, 1, 0.75, 0.75, 1, 0, 0, 0]
    given = {"answers": answers, "similarity": wu_palmer}
    assert wups(guesses, **given, threshold=0.0)["per_question"] == pytest.approx([100 * x for x in far])
    near = [0.075, 0.2 / 7, 1, 0.075, 0.075, 1, 0, 0, 0]
    found = wups(guesses, **given, threshold=0.9)
    assert found["per_question"] == pytest.approx([100 * x for x in near]) and found["n"] == 9
    assert found["wups"] == pytest.approx(100 * sum(near) / 9)
    assert wups(guesses, **given, threshold=0.75)["per_question"][0] == pytest.approx(75)


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"from 0 to 1, got 1\.5"):
        wups(["a"], answers=["b"], similarity=wu_palmer, threshold=1.5)
    with pytest.raises(UserError, match="answers"):
        wups(["a"], answers=[], similarity=wu_palmer)


def test_wordnet_without_nltk_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(UserError, match=r"pip install 'twinreel\[wups\]'"):
        wordnet_similarity(tmp_path)


def write_wordnet(folder):
    """The taxonomy in WordNet's own files; "saw" is also a kind of pet (a second sense)."""
    folder.mkdir()
    for name in ("cntlist.rev", "index.sense", *(f"{part}.exc" for part in ("adj", "adv", "noun", "verb"))):
        (folder / name).write_text("")
    for part in ("adj", "adv", "verb"):
        (folder / f"index.{part}").write_text("")
        (folder / f"data.{part}").write_text("")
    (folder / "lexnames").write_text("00\tnoun.Tops\t1\n")
    senses = [*((word, parent) for word, parent in PARENTS.items()), ("saw", "pet")]
    widths = [len(line(0, word, 0 if parent else None)) for word, parent in senses]
    places = [sum(widths[:i]) for i in range(len(senses))]
    first = {word: place for (word, _), place in reversed(list(zip(senses, places, strict=True)))}
    with (folder / "data.noun").open("w") as data:
        for (word, parent), place in zip(senses, places, strict=True):
            data.write(line(place, word, first[parent] if parent else None))
    with (folder / "index.noun").open("w") as index:
        for word in sorted(PARENTS):
            own = [place for (name, _), place in zip(senses, places, strict=True) if name == word]
            numbers = " ".join(f"{place:08d}" for place in own)
            index.write(f"{word} n {len(own)} 1 @ {len(own)} 0 {numbers}  \n")
    return folder


def line(place, word, parent):
    pointers = "000" if parent is None else f"001 @ {parent:08d} n 0000"
    return f"{place:08d} 00 n 01 {word} 0 {pointers} | made by hand  \n"


def test_nltk_reads_the_same_taxonomy_as_a_wordnet(tmp_path):
    with pytest.raises(UserError, match=r"has no WordNet: cntlist\.rev, .* are missing; give the unpacked folder"):
        wordnet_similarity(tmp_path)
    similarity = wordnet_similarity(write_wordnet(tmp_path / "wordnet"))
    for a in PARENTS:
        for b in PARENTS:
            if "saw" not in (a, b):
                assert similarity(a, b) == pytest.approx(wu_palmer(a, b)), (a, b)
    assert similarity("dog", "saw") == similarity("saw", "dog") == pytest.approx(0.75)  # the nearer sense counts
    assert similarity("dog", "unicorn") == 0
    del similarity
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # NLTK leaves its files open
        gc.collect()
