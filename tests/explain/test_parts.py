"""The pieces of explanations: cells, baselines, words, curves, the way of integrated gradients, pictures with heat."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from twinreel.data.text.tokenizer import load_tokenizer
from twinreel.explain.cells import baseline_of, onto_grid, spread, sums
from twinreel.explain.curves import counts_of, curves, rows_of
from twinreel.explain.heat import beside, heat, strip
from twinreel.explain.methods import path_points
from twinreel.explain.words import token_words, without

TOKENIZER = load_tokenizer(Path(__file__).parents[1] / "golden" / "tokenizers" / "clip_fast")
RNG = np.random.default_rng(0)


def cell(place, size, cells):
    return place * cells // size


def test_cells_cover_pixels_as_a_loop_says():
    """Sides that the grid does not divide: cells then differ by a pixel."""
    video, keep = RNG.normal(size=(2, 4, 7, 5, 3)).astype(np.float32), RNG.random((2, 2, 3, 3)) < 0.5
    over, wanted = np.asarray(spread(jnp.asarray(keep), shape=(4, 7, 5, 3))), np.zeros((2, 2, 3, 3))
    assert over.shape == (2, 4, 7, 5, 1)
    for b, t, y, x in np.ndindex(2, 4, 7, 5):
        at = (b, cell(t, 4, 2), cell(y, 7, 3), cell(x, 5, 3))
        assert over[b, t, y, x, 0] == keep[at]
        wanted[at] += video[b, t, y, x].sum()
    np.testing.assert_allclose(sums(jnp.asarray(video), steps=2, grid=3), wanted, atol=1e-5)


def test_patches_are_shared_out_by_area():
    values = RNG.random((2, 3, 4))
    fine = np.repeat(np.repeat(values, 4, axis=1), 3, axis=2) / 12  # twelfths of each side
    wanted = fine.reshape(2, 2, 6, 2, 6).sum(axis=(2, 4))
    np.testing.assert_allclose(onto_grid(values, grid=2), wanted)
    assert onto_grid(values, grid=5).sum() == pytest.approx(values.sum())


def test_baselines():
    video = RNG.integers(0, 256, (6, 2, 2, 3), np.uint8)
    assert not baseline_of(video, name="black", steps=3).any()
    colour = baseline_of(video, name="mean_colour", steps=3)
    assert colour.shape == video.shape and abs(colour[4, 1, 0].astype(float) - video.mean(axis=(0, 1, 2))).max() <= 0.5
    mean = baseline_of(video, name="mean_frame", steps=3)
    assert abs(mean[3].astype(float) - video.mean(axis=0)).max() <= 0.5
    near = baseline_of(video, name="neighbours", steps=3).astype(float)
    assert abs(near[2] - video[[0, 1, 4, 5]].mean(axis=0)).max() <= 0.5
    assert abs(near[0] - video[2:4].mean(axis=0)).max() <= 0.5 and abs(near[5] - video[2:4].mean(axis=0)).max() <= 0.5


@pytest.mark.parametrize("length", [60, 9])
def test_tokens_know_their_words_and_words_that_were_cut_off_have_none(length):
    words = ["an", "unbelievably", "striped", "hexagon,", "turning"]
    owner = token_words(words, tokenizer=TOKENIZER, context_length=length)
    [ids], [mask], cut = TOKENIZER.encode([" ".join(words)], context_length=length)
    assert owner[0] == -1 and owner[mask.sum() - 1] == -1 and not (owner[~mask] >= 0).any()
    assert bool(cut) == (length == 9) and (owner[mask][1:-1] >= 0).all()
    for number, word in enumerate(words):
        text = TOKENIZER.decode(ids[owner == number]).replace(" ", "")
        assert word.startswith(text) and (cut or text == word)
    assert without(words, keep=np.array([[1, 0, 0, 1, 0], [0] * 5], bool)) == ["an hexagon,", ""]


def test_curves_are_those_of_a_loop():
    """A score to which each part adds its weight."""
    weights = RNG.normal(size=(5, 5))
    calls = []

    def score(keep, *, tick):
        calls.append(len(keep))
        return (keep * weights).sum(axis=(1, 2)) + 1

    found = curves(weights, score=score, value=np.exp, draws=3, seed=0)
    counts = counts_of(25)
    assert calls == [rows_of(25, draws=3)] and counts[0] == 0 and counts[-1] == 25 and len(counts) == 21
    falling = np.sort(weights.reshape(-1))[::-1]
    for number, count in enumerate(counts):
        assert found.deletion[number] == pytest.approx(np.exp(1 + falling[count:].sum()))
        assert found.insertion[number] == pytest.approx(np.exp(1 + falling[:count].sum()))
    areas = found.areas()
    assert areas["deletion"] == pytest.approx(np.trapezoid(found.deletion, counts / 25))
    assert areas["deletion"] < areas["random_deletion"] and areas["insertion"] > areas["random_insertion"]
    assert areas["random_deletion_std"] == pytest.approx(
        np.std([np.trapezoid(row, counts / 25) for row in found.random_deletion], ddof=1)
    )
    assert found.random_insertion[:, 0] == pytest.approx(np.e) and found.to_dict()["draws"] == 3


@pytest.mark.parametrize("power", [0.0, -0.5, 0.5, 3.0])
def test_the_way_integrates_powers(power):
    points, weights = path_points(8)
    assert (weights * points**power).sum() == pytest.approx(1 / (power + 1), rel=1e-2 if power < 0 else 1e-4)


def test_pictures_with_heat():
    frame = np.full((60, 80, 3), 100, np.uint8)
    cells = np.zeros((4, 4))
    cells[0, 0], cells[3, 3] = 1.0, -1.0
    drawn = heat(frame, cells=cells, top=1.0).astype(int)
    assert drawn[2, 2, 0] > drawn[2, 2, 2] + 80 and drawn[57, 77, 2] > drawn[57, 77, 0] + 80
    assert abs(drawn[30, 10] - 100).max() <= 1
    both = beside(frame, cells=cells, top=1.0)
    assert both.shape == (240, 2 * 320 + 4, 3) and (both[:, :320] == 100).all()
    bars = strip(100, edges=np.array([0.0, 1.0, 4.0]), values=np.array([2.0, -1.0]), time_s=2.0)
    assert (bars[-1, :25, 0] == 255).all() and (bars[-1, 26:49, 0] < 30).all() and (bars[:, 50:52] == 235).all()
