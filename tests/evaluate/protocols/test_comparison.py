"""Two models on the same clips: equal ones do not differ, a better one does, and other clips are refused."""

import json

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.evaluate.embedding.embeddings import Embeddings
from twinreel.evaluate.evaluate import EvaluateOptions, evaluate, main
from twinreel.evaluate.protocols.comparison import compare


def made(noise, *, seed=0, captions=2, clips=60):
    """Embeddings of clips and captions that lie near them."""
    rng = np.random.default_rng(0)
    video = rng.normal(size=(clips, 8))
    index = np.repeat(np.arange(clips), captions)
    text = video[index] + noise * np.random.default_rng(seed).normal(size=(len(index), 8))
    rows = [{"clip_id": f"c{i}"} for i in range(clips)]
    return Embeddings(
        text=text, video=video, video_of_text=index, captions=[f"t{i}" for i in range(len(text))], rows=rows
    )


def r1(embeddings):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (embeddings.text, embeddings.video)]
    return 100 * float(((unit[0] @ unit[1].T).argmax(axis=1) == embeddings.video_of_text).mean())


def test_a_model_does_not_differ_from_itself():
    same = compare(made(0.5), other=made(0.5))
    for figures in same.values():
        for one in figures.values():
            assert one["difference"] == one["low"] == one["high"] == 0 and one["p"] == 1


def test_a_better_model_is_told_from_a_worse_one():
    better, worse = made(0.4), made(1.2, seed=1)
    found = compare(better, other=worse)["text_to_video"]["R@1"]
    assert found["difference"] == pytest.approx(r1(better) - r1(worse))
    assert 0 < found["low"] < found["difference"] < found["high"] and found["p"] < 0.01
    assert found["n"] == 60  # clips, not captions
    back = compare(worse, other=better)["text_to_video"]["R@1"]
    assert (back["low"], back["high"]) == pytest.approx((-found["high"], -found["low"]), abs=3)


def test_the_verb_compares_files_and_shows_it(tmp_path, capsys):
    files = [tmp_path / "better.npz", tmp_path / "worse.npz"]
    for file, one in zip(files, (made(0.4), made(1.2, seed=1)), strict=True):
        one.save(file)
    flags = ["--embeddings", str(files[0]), "--compare", str(files[1])]
    assert main([*flags, "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["compared"][str(files[1])]["text_to_video"]["R@1"]
    assert found == compare(made(0.4), other=made(1.2, seed=1))["text_to_video"]["R@1"]
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Compared with other models" in page and f"{found['difference']:+.1f}" in page
    assert main(flags) == 0
    assert f"less {files[1]}, text to video: R@1 +" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--compare x\.npz goes with embeddings, not with --scores"):
        main(["--scores", str(files[0]), "--compare", "x.npz"])


def test_what_is_asked_for_is_checked_before_a_model_embeds(tmp_path):
    for options, message in (
        ({"read_as": ["clip4clap"]}, r"--as 'clip4clap'"),
        ({"rerank": ["dsl:scal=1"]}, r"parameter of --rerank dsl: 'scal'.*did you mean 'scale'"),
        ({"compare": [tmp_path / "absent.npz"]}, r"absent\.npz' does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate("no model", data=tmp_path, out=tmp_path, options=EvaluateOptions(**options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda other: {"video": other.video[:-1]}, r"B has 120 texts and 59 videos, the model 120 and 60"),
        (lambda other: {"video_of_text": other.video_of_text[::-1]}, r"or in another order"),
        (lambda other: {"rows": [{"clip_id": "x"}, *other.rows[1:]]}, r"clip 0 of B is 'x', that of the model 'c0'"),
        (lambda other: {"captions": [*other.captions[:-1], "x"]}, r"text 119 of B is 'x', that of the model 't119'"),
    ],
)
def test_other_clips_are_refused(change, message):
    other = made(0.5)
    for key, value in change(other).items():
        setattr(other, key, value)
    with pytest.raises(UserError, match=message):
        compare(made(0.5), other=other, name="B")
