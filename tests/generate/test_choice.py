"""The best of several clips for a text, and the verb that has a tower find the captions of generated clips."""

import json

import numpy as np
import pytest
from html_page import Page

from twinreel import __main__ as cli
from twinreel.base.errors import UserError
from twinreel.generate.flow.solve import SolverOptions
from twinreel.generate.sample.choice import paint_best
from twinreel.generate.sample.painter import load_painter
from twinreel.generate.sample.towers import embedded, load_tower

SOLVER = SolverOptions(steps=2, method="euler")
TEXTS = ["a red clip", "a blue clip", "a green clip"]


@pytest.fixture(scope="module")
def painter(painter_run):
    return load_painter(painter_run)


def test_the_best_is_the_candidate_of_the_highest_cosine(painter, tower):
    ranker = load_tower(tower / "seed0", painter=painter, flag="--rank_by")
    made = np.stack([painter.paint(TEXTS, solver=SOLVER, seed=7 + k) for k in range(4)])
    words = ranker.encode_text(TEXTS)
    cosines = np.stack([np.einsum("ne,ne->n", embedded(ranker, video), words) for video in made])
    chosen, rows = cosines.argmax(axis=0), np.arange(len(TEXTS))
    best = paint_best(painter, TEXTS, ranker=ranker, candidates=4, solver=SOLVER, seed=7)
    np.testing.assert_array_equal(best.candidate, chosen)
    np.testing.assert_array_equal(best.video, made[chosen, rows])
    np.testing.assert_allclose(best.score, cosines.max(axis=0), atol=1e-6)
    ready = paint_best(painter, TEXTS, ranker=ranker, candidates=4, solver=SOLVER, seed=7, first=made[0])
    np.testing.assert_array_equal(ready.video, best.video)
    one = paint_best(painter, TEXTS, ranker=ranker, candidates=1, solver=SOLVER, seed=9, batch_size=1)
    np.testing.assert_array_equal(one.video, made[2])
    with pytest.raises(UserError, match="--best_of must be at least 1"):
        paint_best(painter, TEXTS, ranker=ranker, candidates=0)


def run(*argv, capsys):
    status = cli.main(["generate", *map(str, argv)])
    return status, capsys.readouterr()


FAST = ["--steps", "2", "--method", "euler"]


def test_score_has_a_row_for_the_best_of_several(painter_run, colour_data, tower, tmp_path, capsys):
    data = ["--data", colour_data / "data", "--clips", "6", *FAST]
    flags = ["--judge", tower / "seed1", "--best_of", "3", "--rank_by", tower / "seed0"]
    status, said = run("score", painter_run, *data, *flags, "--out", tmp_path / "out", "--json", capsys=capsys)
    assert status == 0
    found = json.loads(said.out)
    assert found == json.loads((tmp_path / "out" / "generation.json").read_text())
    assert found["protocol"]["best_of"] == 3 and found["chance"] == pytest.approx(100 / 6)
    assert found["texts_truncated"] == found["protocol"]["texts_truncated"] == 0
    for row in ("real", "autoencoder", "generated", "best"):
        assert len(found[row]["ranks"]) == 6 and 0 <= found[row]["v2t"]["R@1"] <= 100
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "best of several generated clips" in page.text and "media/00_best.webp" in page.links
    status, said = run(
        "score", painter_run, *data, "--judge", tower / "seed1", "--out", tmp_path / "one", capsys=capsys
    )
    assert status == 0 and "autoencoder alone" in said.out and "best of" not in said.out
    assert "best" not in json.loads((tmp_path / "one" / "generation.json").read_text())
    flags = ["--judge", tower / "seed0", "--best_of", "3", "--rank_by", tower / "seed0"]
    status, said = run("score", painter_run, *data, *flags, "--out", tmp_path / "two", capsys=capsys)
    assert status == 2 and "would judge its own choice" in said.err and not (tmp_path / "two").exists()


def test_sample_says_which_candidate_was_kept(painter_run, tower, tmp_path, capsys):
    flags = ["--text", TEXTS[0], "--text", TEXTS[1], "--best_of", "2", "--rank_by", tower / "seed0", *FAST]
    status, said = run("sample", painter_run, *flags, "--out", tmp_path / "out", "--json", capsys=capsys)
    found = json.loads(said.out)
    assert status == 0 and found["protocol"]["best_of"] == 2 and len(found["clips"]) == 2
    assert all(one["candidate"] in (0, 1) and -1 <= one["score"] <= 1 for one in found["clips"])


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--text", "a", "--best_of", "0"], "--best_of must be at least 1, got 0"),
        (["--text", "a", "--best_of", "4"], "--best_of 4 needs a dual tower that ranks"),
        (["--text", "a", "--rank_by", "x"], "--rank_by x has nothing to rank"),
        (["--like", "a.mp4", "--best_of", "4", "--rank_by", "x"], "--rank_by compares clips with texts"),
    ],
)
def test_bad_choices(flags, words, painter_run, tmp_path, capsys):
    status, said = run("sample", painter_run, *flags, "--out", tmp_path / "out", capsys=capsys)
    assert status == 2 and words in said.err and not (tmp_path / "out").exists()
