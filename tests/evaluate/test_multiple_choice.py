"""`evaluate MODEL --multiple_choice` on real records, with an encoder that is a few lines of NumPy."""

import json
import shutil

import numpy as np
import pytest
from fake_encoder import Encoder

from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.evaluate.evaluate import main


@pytest.fixture(autouse=True)
def encoder(monkeypatch):
    made = Encoder(context_length=64)
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda model: made)
    return made


@pytest.fixture
def asked(tiny_data, tmp_path):
    """Return a function that copies the data set with questions of its test clips."""

    def copy(*questions):
        folder = shutil.copytree(tiny_data, tmp_path / "data")
        lines = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
        for row in lines:
            if row["split"] == "test":
                row["questions"] = list(questions[row["index"] % len(questions)])
        (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
        return folder

    return copy


def run(data, out, *argv):
    assert main(["fake/run", "--multiple_choice", "--data", str(data), "--out", str(out), *argv]) == 0
    return json.loads((out / "multiple_choice.json").read_text())


def choice(*options, correct=0):
    return {"question": "", "answers": [], "options": list(options), "correct": correct}


def test_options_are_scored_by_their_cosine_with_the_clip(asked, encoder, tmp_path, capsys):
    data = asked([choice("red", "blue", "green"), choice("a disc", "a square", correct=1)], [choice("up", "down")], [])
    found = run(data, tmp_path / "out")
    main(["fake/run", "--data", str(data), "--out", str(tmp_path / "plain")])
    with np.load(tmp_path / "plain" / "embeddings.npz") as arrays:
        video = arrays["video"]
    rows = list(Records(data).rows("test"))
    hits, chosen = [], []
    for clip, row in zip(video, rows, strict=True):
        for one in row["questions"]:
            ids, mask, _ = encoder.tokenizer.encode(one["options"], context_length=64)
            text = np.stack([encoder.text(ids[[i]], mask[[i]])[0] for i in range(len(ids))])
            cosines = [float(t @ clip / np.linalg.norm(t) / np.linalg.norm(clip)) for t in text]
            chosen.append(one["options"][int(np.argmax(cosines))])
            hits.append(np.argmax(cosines) == one["correct"])
    assert [one["chosen"] for one in found["questions"]] == chosen
    block = found["multiple_choice"]
    assert (block["accuracy"], block["n"], block["tied"]) == (pytest.approx(100 * np.mean(hits)), len(hits), 0)
    assert block["interval_95"][0] <= block["accuracy"] <= block["interval_95"][1]
    names = [one["question"] for one in found["questions"]]
    assert names[:2] == [rows[0]["clip_id"], f"{rows[0]['clip_id']}#2"]
    assert found["protocol"]["options"] == [2, 3] and found["protocol"]["split"] == "test"
    assert found["coverage"]["found"] == 8
    told = capsys.readouterr().out
    assert "2 clips have no question that is measured" in told and f"% of {len(hits)} questions" in told


def test_equal_options_tie_and_unknown_answers_are_counted(asked, tmp_path, capsys):
    data = asked([choice("same", "same")], [choice("a", "b", correct=None) | {"correct": None}, choice("x", "x")])
    found = run(data, tmp_path / "out", "--json")
    assert json.loads(capsys.readouterr().out) == found
    block = found["multiple_choice"]
    assert (block["accuracy"], block["first_wins"], block["tied"], block["n"]) == (50, 100, 8, 8)
    assert "4 questions have no right option and are not measured" in found["protocol"]["warnings"]


def test_what_cannot_be_answered_is_refused_before_the_model_is_read(asked, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda model: pytest.fail("the model was read"))
    with pytest.raises(UserError, match="none of the 8 clips has a question with options of which one is right"):
        run(asked([{"question": "why?", "answers": ["so"]}]), tmp_path / "out")
    with pytest.raises(UserError, match="unknown split 'tests'"):
        run(tiny_data, tmp_path / "out", "--split", "tests")
    with pytest.raises(UserError, match=r"not by a benchmark's name; .*prepare msrvtt_mc --splits"):
        run(tiny_data, tmp_path / "out", "--benchmark", "msrvtt-mc")
    with pytest.raises(UserError, match="msrvtt-1ka belongs to retrieval, and the flags ask for multiple choice"):
        run(tiny_data, tmp_path / "out", "--benchmark", "msrvtt-1ka")
    with pytest.raises(UserError, match="--as does not go with --multiple_choice"):
        run(tiny_data, tmp_path / "out", "--as", "pe")
    with pytest.raises(UserError, match="takes MODEL --data DIR --out DIR, or --embeddings"):
        main(["--multiple_choice", "--data", str(tiny_data)])
