"""The report's JSON: its keys, protocol and coverage, and the command that makes it from embeddings alone."""

import json

import numpy as np
import pytest
from fakes import embeddings

from twinreel.base.errors import UserError
from twinreel.evaluate import evaluate, results
from twinreel.evaluate.protocols.retrieval import coverage_of, headline, retrieval_report, split_coverage
from twinreel.evaluate.protocols.twins import order_twins

FIGURES = {"R@1", "R@5", "R@10", "R@50", "MdR", "MnR", "geometric_mean"}
ROWS = [{"clip_id": "a"}, {"clip_id": "b"}, {"clip_id": "c"}]
REJECT = {"clip_id": "d", "path": "d.mp4", "split": "test", "reason": "moov atom not found"}


def test_the_report_has_the_promised_keys():
    fake = embeddings()
    report = retrieval_report(text=fake.text, video=fake.video, video_of_text=fake.video_of_text)
    blocks = {"text_to_video", "video_to_text", "video_to_text_among_captions"}
    assert set(report) == {"protocol", "coverage", "intervals", *blocks}
    for direction, n in (("text_to_video", 48), ("video_to_text", 24)):
        block = report[direction]
        assert set(block) == FIGURES | {"optimistic", "pessimistic", "tied_queries", "n"}
        assert set(block["optimistic"]) == set(block["pessimistic"]) == FIGURES
        assert block["n"] == n
        assert all(0 <= block[f"R@{k}"] <= 100 for k in (1, 5, 10))
    assert report["coverage"]["fraction"] is None
    protocol = report["protocol"]
    assert (protocol["texts"], protocol["distinct_texts"], protocol["videos"]) == (48, 48, 24)
    assert protocol["videos_without_text"] == 0
    assert {"ties", "score", "text_aggregation", "twinreel", "checkpoint", "split", "frames"} <= set(protocol)


def test_hand_computed_case():
    """Three clips at 0, 60 and 120 degrees; caption angles 10, 50, 100, 20; the last belongs to the clip at 120."""
    video, text = (
        np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1)
        for angles in ([0.0, 60.0, 120.0], [10.0, 50.0, 100.0, 20.0])
    )
    report = retrieval_report(text=text, video=video, video_of_text=np.array([0, 1, 2, 2]))
    # ranks of text to video: 1, 1, 1, 3. Video to text, best caption: clip 0 own 10; clip 1 own 50; clip 2 own 100.
    assert report["text_to_video"]["R@1"] == 75
    assert report["text_to_video"]["MnR"] == 1.5
    assert report["video_to_text"]["R@1"] == 100
    assert report["video_to_text"]["n"] == 3


def test_repeated_captions_share_their_place():
    """Five clips, all with the same caption: no one can tell them apart by text, so v2t is at chance."""
    video = np.random.default_rng(0).normal(size=(5, 8))
    report = retrieval_report(text=np.ones((5, 8)), video=video, video_of_text=np.arange(5))
    assert report["protocol"]["distinct_texts"] == 1
    assert report["video_to_text"]["R@1"] == pytest.approx(20)
    assert report["text_to_video"]["R@1"] == pytest.approx(20)
    assert report["video_to_text"]["optimistic"]["R@1"] == 100


def test_a_protocol_key_with_a_typo_is_refused():
    fake = embeddings()
    with pytest.raises(UserError, match="'framse'"):
        retrieval_report(text=fake.text, video=fake.video, video_of_text=fake.video_of_text, protocol={"framse": 8})


def test_headline_is_flat():
    fake = embeddings()
    report = retrieval_report(text=fake.text, video=fake.video, video_of_text=fake.video_of_text)
    flat = headline(report)
    assert flat["t2v_R@1"] == report["text_to_video"]["R@1"]
    assert len(flat) == 10


def prepared(folder, *, rejects, counted):
    (folder / "rejects.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rejects))
    (folder / "prepare.json").write_text(json.dumps({"counts": {"test": {"clips": 3, "rejected": counted}}}))
    return folder


def test_coverage_counts_what_prepare_rejected(tmp_path):
    folder = prepared(tmp_path, rejects=[REJECT, REJECT | {"split": "train"}], counted=1)
    coverage = split_coverage(folder, split="test", rows=ROWS, allow_missing=True)
    assert coverage == {
        "expected": 4,
        "found": 3,
        "missing": 1,
        "fraction": 0.75,
        "missing_clips": [{"clip_id": "d", "reason": "moov atom not found"}],
    }


def test_missing_clips_need_the_flag(tmp_path):
    folder = prepared(tmp_path, rejects=[REJECT], counted=1)
    with pytest.raises(UserError, match=r"75.00 % .* 1 of 4 are missing .*moov atom.*--allow_missing"):
        split_coverage(folder, split="test", rows=ROWS, allow_missing=False)


def test_rejects_that_disagree_with_the_counts_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"lists 0 rejected clips .* counts 2"):
        split_coverage(prepared(tmp_path, rejects=[], counted=2), split="test", rows=ROWS, allow_missing=True)
    (tmp_path / "rejects.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match=r"cannot read .*rejects.jsonl"):
        split_coverage(tmp_path, split="test", rows=ROWS, allow_missing=True)


def test_full_coverage_needs_no_flag(tmp_path):
    folder = prepared(tmp_path, rejects=[], counted=0)
    assert split_coverage(folder, split="test", rows=ROWS, allow_missing=False)["fraction"] == 1
    assert coverage_of(rows=ROWS, rejects=[])["missing_clips"] == []


# ---- order twins


def twins_of(text, video, groups, *, shuffled=None, index=None):
    fake = embeddings(videos=len(video), captions=1)
    fake.text, fake.video = np.array(text), np.array(video)
    fake.controls = {} if shuffled is None else {"shuffled_frames": shuffled}
    fake.video_of_text = np.arange(len(video)) if index is None else np.array(index)
    for row, group in zip(fake.rows, groups, strict=True):
        row["group"] = group
    return order_twins(fake)


def test_twins_count_captions_that_prefer_their_own_clip():
    """Captions of the first pair are right and wrong; the second pair ties; the last clip has no twin."""
    video = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 0.0]]
    text = [[1.0, 0.2], [1.0, 0.3], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
    found = twins_of(text, video, ["p", "p", "q", "q", "alone"])
    assert found == {"accuracy": 50.0, "accuracy_shuffled": None, "n": 4, "without_twin": 1}


def test_shuffled_twins_are_measured_against_the_shuffled_clips():
    video = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = twins_of(video, video, ["p", "p"], shuffled=video[::-1])
    assert (found["accuracy"], found["accuracy_shuffled"]) == (100, 0)


def test_each_caption_of_a_larger_group_weighs_the_same():
    """The caption of clip 0 beats one of its two others, those of clips 1 and 2 beat both."""
    video = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    text = np.array([[0.5, 0.9, 0.1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert twins_of(text, video, ["p"] * 3)["accuracy"] == pytest.approx(100 * (0.5 + 1 + 1) / 3)


def test_no_groups_no_twins():
    assert twins_of(np.eye(3), np.eye(3), [None, "", "x"])["n"] == 0


# ---- twinreel evaluate --embeddings


def save_plain(path, **change):
    fake = embeddings()
    arrays = {"text": fake.text, "video": fake.video, "video_of_text": fake.video_of_text} | change
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_json_alone_is_printed_on_request(tmp_path, capsys):
    path = save_plain(tmp_path / "any.npz")
    assert evaluate.main(["--embeddings", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    fake = embeddings()
    assert report == retrieval_report(text=fake.text, video=fake.video, video_of_text=fake.video_of_text)
    assert evaluate.main(["--embeddings", str(path)]) == 0
    table = capsys.readouterr().out
    assert "embeddings / all: 48 texts, 24 videos" in table and "{" not in table


def test_json_is_alone_on_standard_output_with_a_report_too(tmp_path, capsys):
    path, out = save_plain(tmp_path / "any.npz"), tmp_path / "report"
    assert evaluate.main(["--embeddings", str(path), "--out", str(out), "--json"]) == 0
    assert capsys.readouterr().out == (out / "retrieval.json").read_text(encoding="utf-8")
    assert evaluate.main(["--embeddings", str(path), "--out", str(out)]) == 0
    assert f"report: {out / 'index.html'}" in capsys.readouterr().out


def test_saved_embeddings_give_the_same_json_again(tmp_path, capsys):
    fake = embeddings()
    fake.save(tmp_path / "embeddings.npz")
    evaluate.main(["--embeddings", str(tmp_path / "embeddings.npz"), "--json"])
    text = capsys.readouterr().out
    assert text == results.to_json(results.measure(fake))
    assert json.loads(text)["order_twins"]["n"] == 24
    assert json.loads(text)["protocol"]["dataset"] == "fakes"
    assert [path.name for path in tmp_path.iterdir()] == ["embeddings.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": None}, r"no array 'video' \(it has: text, video_of_text\)"),
        ({"video_of_text": np.arange(48) + 1}, r"'video_of_text'\[23\] is 24; wanted an index from 0 to 23"),
        ({"text": np.zeros((48, 16), np.float32)}, "row 0 of 'text' is all zero"),
        ({"video": np.ones((24, 3))}, "width 16 and 'video' has width 3"),
        ({"control_shuffled_frames": np.ones((2, 3))}, "'control_shuffled_frames' has shape"),
        ({"control_shufled_frames": np.ones((24, 16))}, "did you mean 'shuffled_frames'"),
        ({"side_audio": np.ones((2, 3))}, "'side_audio' has shape"),
        ({"has_sound": np.ones(24)}, r"'has_sound' is float64 \(24,\); wanted bool \[24\]"),
        ({"about": np.zeros(3, np.uint8)}, "'about' is not the JSON"),
        ({"text": np.array([{}])}, "without pickled objects"),
    ],
)
def test_broken_embeddings_name_the_array(tmp_path, change, message):
    path = save_plain(tmp_path / "broken.npz", **change)
    with pytest.raises(UserError, match=message):
        evaluate.main(["--embeddings", str(path)])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("array", "item"),
    [
        ("text", "text 'caption 1 of <clip> 2 & more'"),
        ("video", "clip 'clip005'"),
        ("control_shuffled_frames", "clip 'clip005'"),
    ],
)
def test_scores_that_are_not_finite_name_the_item(tmp_path, array, item, value):
    fake = embeddings()
    rows = fake.controls["shuffled_frames"] if array.startswith("control") else getattr(fake, array)
    rows[5, 3] = value
    with pytest.raises(UserError, match=rf"{item}: row 5 of '{array}' is not finite"):
        results.measure(fake)
    fake.save(tmp_path / "e.npz")
    with pytest.raises(UserError, match=rf"row 5 of '{array}' is not finite"):
        evaluate.main(["--embeddings", str(tmp_path / "e.npz")])


def test_files_that_are_no_npz_are_refused(tmp_path):
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name, message in (
        ("text.npz", "cannot be read"),
        ("array.npy", "one bare array"),
        ("no.npz", "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main(["--embeddings", str(tmp_path / name)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "lacks MODEL"),
        (["run"], "lacks --data DIR"),
        (["run", "--data", "d"], "lacks --out DIR"),
        (["run", "--embeddings", "e.npz"], "give one of them"),
        (["run", "--dta", "d"], "did you mean --data"),
    ],
)
def test_the_command_says_what_it_lacks(argv, message):
    with pytest.raises(UserError, match=message):
        evaluate.main(argv)
