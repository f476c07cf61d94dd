"""Multiple choice through the verb, against InternVideo2's figure, and among the foils of a split."""

import json

import numpy as np
import pytest
from evaluate_golden import arrays, figures
from fakes import embeddings

from twinreel.base.errors import UserError
from twinreel.evaluate.evaluate import main
from twinreel.evaluate.protocols.multiple_choice import foil_choices
from twinreel.evaluate.reports.terminal import remarks
from twinreel.evaluate.results import measure


@pytest.fixture
def file(tmp_path):
    """Return a function that writes an `.npz` and returns its path."""

    def write(**named):
        np.savez(tmp_path / "given.npz", **{key: value for key, value in named.items() if value is not None})
        return str(tmp_path / "given.npz")

    return write


def golden(**changes):
    found = arrays("qa")
    made = {"options": found["mc_options"], "video": found["mc_video"], "answers": found["mc_answers"]}
    return made | changes


def measured(capsys, *argv):
    assert main(["--multiple_choice", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_figure_of_internvideo2(file, capsys, tmp_path):
    want = figures("qa")["multiple_choice"]
    types = np.array(["what", "how"] * 15)
    found = measured(capsys, "--embeddings", file(**golden(types=types)), "--out", str(tmp_path / "out"))
    assert found == json.loads((tmp_path / "out" / "multiple_choice.json").read_text())
    block = found["multiple_choice"]
    assert block["first_wins"] == pytest.approx(want["acc"], abs=5.1e-3)
    assert block["accuracy"] == pytest.approx(want["acc in expectation over ties (computed here)"])
    assert (block["n"], block["chance"], found["protocol"]["options"]) == (30, pytest.approx(20), 5)
    halves = found["per_type"]
    assert (halves["what"]["accuracy"] + halves["how"]["accuracy"]) / 2 == pytest.approx(block["accuracy"])


def test_scores_give_what_embeddings_give(file, capsys):
    found = arrays("qa")
    unit = [found[key] / np.linalg.norm(found[key], axis=-1, keepdims=True) for key in ("mc_video", "mc_options")]
    want = measured(capsys, "--embeddings", file(**golden()))["multiple_choice"]
    path = file(scores=np.einsum("ne,noe->no", *unit).round(9), answers=found["mc_answers"])
    assert measured(capsys, "--scores", path)["multiple_choice"] == want
    assert main(["--multiple_choice", "--scores", path]) == 0
    assert "all: 64.00 % of 30 questions (chance 20.0 %); " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": None}, "has no array 'answers'"),
        ({"answers": np.full(30, 5)}, "the answer of question '0' is 5"),
        ({"answers": np.zeros(30)}, "'answers' is float64"),
        ({"answers": np.zeros(29, int)}, "'video' has 30 entries and 'answers' has 29"),
        ({"video": np.ones((29, 8))}, r"'options' has shape \(30, 5, 8\) and 'video' \(29, 8\)"),
        ({"video": np.zeros((30, 8))}, "row 0 of 'video' is all zero"),
        ({"options": np.full((30, 5, 8), np.nan)}, "row 0 of 'options' is not finite"),
        ({"options": np.ones((30, 8))}, "'options' is float64 of shape"),
        ({"ids": np.array(["a"])}, "'ids' has 1"),
    ],
)
def test_bad_arrays_are_refused(changes, message, file):
    with pytest.raises(UserError, match=message):
        main(["--multiple_choice", "--embeddings", file(**golden(**changes))])


def test_a_score_that_is_not_finite_names_its_question(file):
    scores = np.zeros((2, 3))
    scores[1, 0] = np.nan
    with pytest.raises(UserError, match="scores of question 'q7'"):
        main(["--multiple_choice", "--scores", file(scores=scores, answers=[0, 1], ids=np.array(["q6", "q7"]))])


@pytest.mark.parametrize("argv", [[], ["a/model"], ["--embeddings", "a.npz", "--scores", "b.npz"]])
def test_it_takes_one_file(argv):
    with pytest.raises(UserError, match=r"takes MODEL --data DIR --out DIR, or --embeddings FILE.npz, or --sc"):
        main(["--multiple_choice", *argv])
    with pytest.raises(UserError, match="--zero_shot does not go with --multiple_choice"):
        main(["--multiple_choice", "--zero_shot", "--scores", "b.npz"])


def test_the_foils_of_a_split_are_options():
    fake = embeddings(foils=True)
    results = measure(fake)
    block = results["multiple_choice"]
    unit = [
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (fake.text, fake.video, fake.foils.embedding)
    ]
    wanted = []
    for text in sorted(set(fake.foils.of_text.tolist())):
        clip = unit[1][fake.video_of_text[text]]
        scores = [unit[0][text] @ clip, *(unit[2][fake.foils.of_text == text] @ clip)]
        best = [one > max(scores) - 1e-6 for one in scores]
        wanted.append(best[0] / sum(best))
    assert block["accuracy"] == pytest.approx(100 * np.mean(wanted))
    assert block["n"] == 24 and block["chance"] == pytest.approx(100 / 3) and "first_wins" not in block
    assert any(line.startswith("multiple choice, caption and foils: ") for line in remarks(results))
    assert "multiple_choice" not in measure(embeddings())
    with pytest.raises(UserError, match="'foil' has width 16 and 'text' 8"):
        foil_choices(text=fake.text[:, :8], video=fake.video[:, :8], video_of_text=fake.video_of_text, foils=fake.foils)
