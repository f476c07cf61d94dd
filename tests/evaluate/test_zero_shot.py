"""`evaluate --zero_shot` on a split of real records, with an encoder that is a few lines of NumPy."""

import dataclasses
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
def relabelled(tiny_data, tmp_path):
    """Return a function that copies the data set with other labels of its test clips."""

    def copy(*labels):
        folder = shutil.copytree(tiny_data, tmp_path / "data")
        path = folder / "clips.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for row in lines:
            if row["split"] == "test":
                row["labels"] = list(labels[row["index"] % len(labels)])
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))
        return folder

    return copy


def run(data, out, *argv):
    return main(["fake/run", "--zero_shot", "--data", str(data), "--out", str(out), *argv])


def test_a_split_is_classified_and_measured_again_from_its_embeddings(tiny_data, tmp_path, capsys, encoder):
    (tmp_path / "mine.txt").write_text("a {} thing\n\n{} moves\n")
    assert run(tiny_data, tmp_path / "out", "--templates", str(tmp_path / "mine.txt"), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    records = Records(tiny_data)
    colours = sorted({label for split in records.splits for row in records.rows(split) for label in row["labels"]})
    rows = list(records.rows("test"))
    assert [row["name"] for row in found["per_class"]] == colours
    assert [clip["clip_id"] for clip in found["clips"]] == [row["clip_id"] for row in rows]
    assert [clip["label"] for clip in found["clips"]] == [row["labels"][0] for row in rows]
    protocol = found["protocol"]
    assert protocol["templates"] == ["a {} thing", "{} moves"] and protocol["template_set"].endswith("mine.txt")
    assert (protocol["scale"], protocol["checkpoint"], protocol["step"]) == (20.0, "fake/run", 3)
    assert (protocol["frames"], protocol["split"], protocol["texts_truncated"]) == (4, "test", 0)
    assert found["coverage"]["found"] == len(rows)
    with np.load(tmp_path / "out" / "zero_shot.npz") as arrays:
        text, video = arrays["class_text"], arrays["video"]
        assert arrays["labels"].tolist() == [colours.index(row["labels"][0]) for row in rows]
    assert text.shape == (len(colours), 2, 12) and video.shape == (len(rows), 12)
    mask = np.ones((1, 64), bool)
    ids, mask, _ = encoder.tokenizer.encode([f"a {colours[1]} thing"], context_length=64)
    np.testing.assert_allclose(text[1, 0], encoder.text(ids, mask)[0], atol=1e-3)
    unit = text / np.linalg.norm(text, axis=-1, keepdims=True)
    first = (video @ (unit.mean(axis=1) / np.linalg.norm(unit.mean(axis=1), axis=-1, keepdims=True)).T).argmax(axis=1)
    assert [clip["predicted"] for clip in found["clips"]] == [colours[number] for number in first]
    page = (tmp_path / "out" / "zero_shot.html").read_text()
    assert all(colour in page for colour in colours) and "Most confused" in page and "Calibration" in page
    again = ["--zero_shot", "--embeddings", str(tmp_path / "out" / "zero_shot.npz")]
    assert main([*again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main([*again, "--rule", "mean_of_cosines"]) == 0
    assert "rule mean_of_cosines" in capsys.readouterr().out


def test_classes_of_a_file_with_names(tiny_data, tmp_path, capsys):
    records = Records(tiny_data)
    colours = sorted({label for row in records.rows("test") for label in row["labels"]})
    lines = [*colours[1:], f"{colours[0]}\tthe first one", "never seen"]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    assert run(tiny_data, tmp_path / "out", "--classes", str(tmp_path / "classes.txt")) == 0
    told = capsys.readouterr().out
    assert "classes without a clip, which can only be wrong answers: never seen (1)" in told
    found = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    assert found["per_class"][-2]["read_as"] == "the first one" and found["per_class"][-2]["name"] == colours[0]
    assert found["per_class"][-1] == {"name": "never seen", "n": 0, "top1": None, "read_as": "never seen"} | {
        "predicted": found["per_class"][-1]["predicted"]
    }
    assert found["mean_class_accuracy"]["absent"] == 1
    (tmp_path / "few.txt").write_text(colours[0])
    with pytest.raises(UserError, match=r"has label .* which is none of the 1 classes of --classes"):
        run(tiny_data, tmp_path / "out", "--classes", str(tmp_path / "few.txt"))
    assert run(tiny_data, tmp_path / "out", "--classes", str(tmp_path / "few.txt"), "--allow_missing") == 0
    captured = capsys.readouterr()
    found = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    counted = found["protocol"]["labels_that_are_no_class"]
    assert sum(counted.values()) + found["accuracy"]["n"] == records.splits["test"]
    assert "labels are no class and are not measured" in captured.err and "are no class" in captured.out


def test_clips_without_a_label_are_counted_and_camel_case_is_pointed_out(relabelled, tmp_path, capsys):
    data = relabelled(["ApplyEyeMakeup"], [], ["brush_hair"], ["Archery"])
    assert run(data, tmp_path / "out") == 0
    err = capsys.readouterr().err
    assert "warning: 2 clips have no label and are not measured" in err
    assert "warning: 2 class names are no words, such as 'ApplyEyeMakeup'" in err
    found = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    assert (found["protocol"]["clips"], found["protocol"]["clips_without_label"]) == (6, 2)
    names = {row["name"]: row["read_as"] for row in found["per_class"]}
    assert names["brush_hair"] == "brush_hair" and found["protocol"]["class_names"] == "as_is"
    assert run(data, tmp_path / "out", "--class_names", "words") == 0
    assert "no words" not in capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    names = {row["name"]: row["read_as"] for row in found["per_class"]}
    assert (names["brush_hair"], names["ApplyEyeMakeup"]) == ("brush hair", "apply eye makeup")


def test_clips_with_several_labels(relabelled, tmp_path, capsys):
    data = relabelled(["run", "jump"], ["run"], ["jump", "swim", "jump"])
    assert run(data, tmp_path / "out", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert "accuracy" not in found and 0 < found["multilabel"]["mAP"] <= 100
    assert {tuple(clip["labels"]) for clip in found["clips"]} == {("jump", "run"), ("run",), ("jump", "swim")}
    assert main(["--zero_shot", "--embeddings", str(tmp_path / "out" / "zero_shot.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert "AP, %" in (tmp_path / "out" / "zero_shot.html").read_text()
    assert run(data, tmp_path / "out", "--labels", "first", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {clip["label"] for clip in found["clips"]} == {"run", "jump"} and found["protocol"]["labels"] == "first"


@pytest.mark.parametrize("rule", ["score", "prob", "max", "prob_max"])
def test_scores_of_windows_are_combined_by_the_named_rule(tiny_data, tmp_path, capsys, rule):
    flags = ("--windows", "3", "--window_seconds", "1", "--view_rule", rule)
    assert run(tiny_data, tmp_path, *flags, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocol"]["view_rule"] == rule and found["protocol"]["windows"] == 3
    with np.load(tmp_path / "zero_shot.npz") as arrays:
        text, views, video = arrays["class_text"][:, 0], arrays["views"].astype(float), arrays["video"]
    assert views.shape == (8, 3, 12)
    mean = (views / np.linalg.norm(views, axis=-1, keepdims=True)).mean(axis=1)
    text = text / np.linalg.norm(text, axis=-1, keepdims=True)
    for clip, row in zip(found["clips"], views, strict=True):
        scores = []
        for view in row:
            cosines = 20 * (text @ view / np.linalg.norm(view))
            chances = np.exp(cosines - cosines.max())
            scores.append(chances / chances.sum() if rule.startswith("prob") else cosines)
        combined = np.max(scores, axis=0) if rule.endswith("max") else np.mean(scores, axis=0)
        assert clip["predicted"] == found["per_class"][int(combined.argmax())]["name"]
        weights = np.exp(combined - combined.max()) if not rule.startswith("prob") else combined
        if rule != "prob_max":  # those do not add up to 1
            assert clip["probability"] == pytest.approx((weights / weights.sum()).max(), abs=1e-6)
    again = ["--zero_shot", "--embeddings", str(tmp_path / "zero_shot.npz"), "--json"]
    assert main([*again, "--view_rule", rule]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(again) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["protocol"]["view_rule"] == "embedding"
    np.testing.assert_allclose(video / np.linalg.norm(video, axis=1, keepdims=True), _unit(mean), atol=1e-3)


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_truncated_class_texts_are_pointed_out(tiny_data, tmp_path, capsys, encoder):
    encoder.input = dataclasses.replace(encoder.input, context_length=8)
    assert run(tiny_data, tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "zero_shot.json").read_text())
    texts = found["protocol"]["classes"]
    assert found["protocol"]["texts_truncated"] == texts
    assert f"{texts} of {texts} class texts are longer than 8 tokens and were truncated" in capsys.readouterr().err


def test_what_cannot_be_classified_is_refused_before_the_model_is_read(relabelled, tmp_path, monkeypatch):
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda model: pytest.fail("the model was read"))
    data = relabelled(["brush_hair"], ["brush hair"])
    with pytest.raises(UserError, match="'brush hair' and 'brush_hair' are both read 'brush hair'"):
        run(data, tmp_path / "out", "--class_names", "words")
    for argv, message in (
        (["--split", "tests"], "unknown split 'tests'"),
        (["--rule", "class_mean"], "unknown value of --rule 'class_mean'"),
        (["--labels", "second"], "unknown value of --labels 'second'"),
        (["--class_names", "word"], "did you mean 'words'"),
        (["--templates", "clip_kinetic"], "did you mean 'clip_kinetics'"),
        (["--classes", str(tmp_path / "none.txt")], "none.txt cannot be read"),
        (["--frame_rule", "unit_frames"], "a model gives one embedding per clip"),
        (["--view_rule", "probs"], "unknown value of --view_rule 'probs'; did you mean 'prob'"),
        (["--view_rule", "prob"], "combines several windows of a clip, and there is one; add --windows 3"),
    ):
        with pytest.raises(UserError, match=message):
            run(data, tmp_path / "out", *argv)


def test_a_split_without_labels_is_refused(relabelled, tmp_path):
    (tmp_path / "classes.txt").write_text("run\njump\n")
    with pytest.raises(UserError, match="none of the 8 clips has a label among the 2 classes"):
        run(relabelled([]), tmp_path / "out", "--classes", str(tmp_path / "classes.txt"))
