"""Minimal pairs: what a model does not read stays at chance, ties count half, and the figures outlive their file."""

import numpy as np
import pytest
from fakes import embeddings
from scipy.stats import binomtest

from twinreel.base.errors import UserError
from twinreel.evaluate.embedding.embeddings import Embeddings
from twinreel.evaluate.measures.intervals import wilson_interval
from twinreel.evaluate.protocols.minimal_pairs import Foils, list_foils, minimal_pairs
from twinreel.evaluate.reports.terminal import remarks
from twinreel.evaluate.results import measure

COLOURS, SHAPES = ("red", "green", "blue"), ("disc", "star")
CLIPS = [(colour, shape) for colour in COLOURS for shape in SHAPES]


def reads_colour(text):
    """Embed a caption by its colour only."""
    return np.eye(3)[[colour in text.split() for colour in COLOURS].index(True)]


def test_a_model_that_reads_only_colour_is_right_about_colour_and_at_chance_about_shape():
    rows = [
        {
            "captions": [f"a {colour} {shape}", f"{shape} in {colour}"],
            "foils": {
                "colour": f"a {COLOURS[(COLOURS.index(colour) + 1) % 3]} {shape}",
                "shape": f"a {colour} {SHAPES[1 - SHAPES.index(shape)]}",
            },
        }
        for colour, shape in CLIPS
    ]
    video_of_text = np.repeat(np.arange(6), 2)
    texts, of_text, names = list_foils(rows, video_of_text=video_of_text)
    assert (texts[:2], of_text.tolist()[:4], names[:2]) == (
        ["a green disc", "a red star"],
        [0, 0, 2, 2],
        ["colour", "shape"],
    )
    captions = np.stack([reads_colour(text) for row in rows for text in row["captions"]])
    foils = Foils(embedding=np.stack([reads_colour(t) for t in texts]), of_text=of_text, names=np.array(names))
    found = minimal_pairs(text=captions, video=captions[::2], video_of_text=video_of_text, foils=foils)
    assert {name: (one["accuracy"], one["n"]) for name, one in found.items()} == {"colour": (100, 6), "shape": (50, 6)}


def test_each_pair_is_scored_on_the_clip_of_its_caption():
    rng = np.random.default_rng(0)
    text, video, foil = rng.normal(size=(9, 5)), rng.normal(size=(4, 5)), rng.normal(size=(20, 5))
    video_of_text, of_text = np.sort(rng.integers(4, size=9)), rng.integers(9, size=20)
    foils = Foils(embedding=foil, of_text=of_text, names=np.array(["a", "b"] * 10))
    found = minimal_pairs(text=text, video=video, video_of_text=video_of_text, foils=foils)

    def cosine(x, y):
        return x @ y / np.linalg.norm(x) / np.linalg.norm(y)

    for first, name in enumerate("ab"):
        wins = [
            cosine(text[k], video[video_of_text[k]]) > cosine(foil[i], video[video_of_text[k]])
            for i, k in list(enumerate(of_text))[first::2]
        ]
        assert found[name]["accuracy"] == pytest.approx(100 * np.mean(wins))
        low, high = binomtest(sum(wins), 10).proportion_ci(method="wilson")
        assert (found[name]["low"], found[name]["high"]) == pytest.approx((100 * low, 100 * high))


@pytest.mark.parametrize(("won", "n"), [(0, 1), (3, 7), (240, 240), (125, 250)])
def test_interval_is_wilsons(won, n):
    assert wilson_interval(won / n, n=n) == pytest.approx(binomtest(won, n).proportion_ci(method="wilson"))


def test_saved_embeddings_give_the_same_figures_again(tmp_path):
    fake = embeddings(foils=True)
    fake.save(tmp_path / "e.npz")
    results = measure(fake)
    assert results["minimal_pairs"]["shape"]["accuracy"] == 50.0
    assert measure(Embeddings.load(tmp_path / "e.npz")) == results
    assert any(line.startswith("minimal pairs (chance 50 %): colour ") for line in remarks(results))
    assert "minimal_pairs" not in measure(embeddings())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foil": np.zeros((2, 3))}, "row 0 of 'foil' is all zero"),
        ({"foil": np.ones((2, 2))}, "'foil' has width 2 and 'text' 3"),
        ({"text_of_foil": np.array([0, 9])}, r"'text_of_foil'\[1\] is 9"),
        ({"foil_names": np.array([1, 2])}, "'foil_names' is int64"),
        ({"foil_names": None}, "no array 'foil_names'"),
    ],
)
def test_faulty_foils_are_refused(tmp_path, change, message):
    arrays = {"text": np.eye(3), "video": np.eye(3), "video_of_text": np.arange(3)}
    arrays |= {"foil": np.ones((2, 3)), "text_of_foil": np.array([0, 1]), "foil_names": np.array(["a", "b"])}
    arrays = {key: value for key, value in (arrays | change).items() if value is not None}
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(UserError, match=message):
        measure(Embeddings.load(tmp_path / "e.npz"))
