"""Embedding a split of real records, with an encoder that is a few lines of NumPy."""

import dataclasses
import io
import json

import numpy as np
import pytest
from fake_encoder import Encoder
from PIL import Image
from small_encoder import small_encoder
from tower_loops import randomised

from twinreel.base.errors import UserError
from twinreel.data.batches.pipeline import eval_batches
from twinreel.data.batches.records import Records
from twinreel.data.batches.table import read_tables
from twinreel.data.manifest import write_jsonl
from twinreel.data.options import DataOptions, FeedOptions
from twinreel.data.prepare.prepare import prepare
from twinreel.demo import moving_shapes
from twinreel.evaluate import evaluate
from twinreel.evaluate.embedding.embed import Asked, embed_split
from twinreel.evaluate.embedding.embeddings import Embeddings
from twinreel.evaluate.embedding.loaded import LoadedSplit, Tokens
from twinreel.evaluate.measures.ranks import among_videos, ranks, recall_at
from twinreel.evaluate.measures.rerank import qb_norm
from twinreel.evaluate.reports.pictures import clip_frames

CLIPS = 12
KEYS = ("video", "video_mask")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve test clips, four of them twins, and two of train; the last test clip but one is like the third."""
    source = tmp_path_factory.mktemp("shapes")
    moving_shapes.write(source, train=2, val=2, test=CLIPS, size=32, fps=6, workers=1, progress=False)
    lines = [json.loads(line) for line in (source / "manifest.jsonl").read_text().splitlines()]
    test = [line for line in lines if line["split"] == "test"]
    test[10] |= {"path": test[8]["path"], "captions": test[8]["captions"]}
    test.append(test[0] | {"clip_id": "broken", "path": "broken.mp4", "meta": {}})
    (source / "broken.mp4").write_bytes(b"no video")
    train = [line for line in lines if line["split"] == "train"]
    (source / "mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in test + train))
    out = source / "prepared"
    prepare(source / "mine.jsonl", out=out, fps=6, short_side=32, audio=False, workers=1, max_bad_fraction=0.2)
    return out


@pytest.fixture(scope="module")
def records(folder):
    return Records(folder)


def loaded_test(records, **options):
    return LoadedSplit(records, split="test", **options)


@pytest.fixture(scope="module")
def found(records):
    asked = Asked(controls=["shuffled_frames"], seed=1)
    return embed_split(Encoder(), loaded=loaded_test(records), batch_size=5, asked=asked, progress=False)


def test_every_clip_and_caption_is_there_in_order(found, records):
    rows = list(records.rows("test"))
    assert found.rows == rows
    assert found.video.shape == (CLIPS, 12)
    assert found.captions == [text for row in rows for text in row["captions"]]
    assert [rows[clip]["clip_id"] for clip in found.video_of_text] == [
        row["clip_id"] for row in rows for _ in row["captions"]
    ]
    assert (found.text.dtype, found.video.dtype) == (np.float32, np.float32)
    for clip in range(CLIPS):  # the mean brightness of four frames, looked up by another way
        jpegs, _ = clip_frames(records, split="test", index=clip)
        assert found.video[clip].mean() == pytest.approx(mean_of(jpegs), abs=12)


def mean_of(jpegs):
    return np.mean([np.asarray(Image.open(io.BytesIO(jpeg))).mean() for jpeg in jpegs])


def test_the_size_of_a_batch_does_not_matter(found, records):
    encoder = Encoder()
    other = embed_split(encoder, loaded=loaded_test(records), batch_size=32, progress=False)
    assert set(encoder.sizes) == {32}
    np.testing.assert_allclose(other.video, found.video, atol=1e-3)
    np.testing.assert_allclose(other.text, found.text, atol=1e-3)
    assert other.controls == {} and other.has_sound is None


def test_equal_texts_and_equal_clips_get_one_embedding(found):
    """The encoder gives each place in the batch other noise, as a device may in the last bit."""
    assert (found.video[8] == found.video[10]).all()
    texts = {}
    for text, row in zip(found.captions, found.text, strict=True):
        assert (texts.setdefault(text.replace(" ", ""), row) == row).all()
    assert len(texts) < len(found.captions)


def test_shuffled_clips_hold_the_same_frames_in_another_order(found):
    frames, shuffled = (rows.reshape(CLIPS, 4, 3) for rows in (found.video, found.controls["shuffled_frames"]))
    np.testing.assert_allclose(np.sort(frames, axis=1), np.sort(shuffled, axis=1), atol=1e-3)
    assert np.abs(frames - shuffled).max() > 0.1


def test_captions_go_into_the_prompt_after_their_cleaning(records, found):
    loaded = loaded_test(records, prompt="a video of {}")
    prompted = embed_split(Encoder(), loaded=loaded, batch_size=5, progress=False)
    assert prompted.captions == found.captions and prompted.protocol["prompt"] == "a video of {}"
    texts = [f"a video of {text}" for text in found.captions]
    wanted = Tokens.of(Encoder(), texts=texts).embed(Encoder(), what="", batch_size=5, progress=False)
    np.testing.assert_allclose(prompted.text, wanted, atol=1e-3)
    assert np.abs(prompted.text - found.text).max() > 0.1 and found.protocol["prompt"] == "{}"
    with pytest.raises(UserError, match=r"--prompt 'a video' must have one \{\}"):
        loaded_test(records, prompt="a video")


def test_another_split_is_the_query_bank(folder, records, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder())
    argv = ["run", "--data", str(folder), "--out", str(tmp_path), "--allow_missing", "--rerank", "qb_norm", "--json"]
    assert evaluate.main([*argv, "--bank_split", "train"]) == 0
    results, saved = json.loads(capsys.readouterr().out), Embeddings.load(tmp_path / "embeddings.npz")
    texts = [text for row in records.rows("train") for text in row["captions"]]
    assert saved.bank_text.shape == (len(texts), 12) and results["protocol"]["bank_split"] == "train"
    bank, text, video = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for rows in (saved.bank_text.astype(float), saved.text.astype(float), saved.video.astype(float))
    )
    wanted = qb_norm(text @ video.T, bank=bank @ video.T, beta=20.0, k=1)
    hits = recall_at(ranks(wanted.scores, positives=saved.video_of_text), k=1)
    assert results["reranked"]["qb_norm:beta=20,k=1"]["text_to_video"]["R@1"] == pytest.approx(hits)
    for flags, said in [
        ([], r"add --bank_split train"),
        (["--bank_split", "test"], "is the split that is measured"),
        (["--bank_split", "trian"], "'trian'; did you mean 'train'"),
    ]:
        with pytest.raises(UserError, match=said):
            evaluate.main([*argv, *flags])


def test_a_clip_may_be_scored_by_its_best_window(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder())
    argv = ["run", "--data", str(folder), "--out", str(tmp_path), "--allow_missing", "--rerank", "window_max", "--json"]
    with pytest.raises(UserError, match="add --windows 2 or more"):
        evaluate.main(argv)
    assert evaluate.main([*argv, "--windows", "2"]) == 0
    results, saved = json.loads(capsys.readouterr().out), Embeddings.load(tmp_path / "embeddings.npz")
    assert saved.video_windows.shape == (CLIPS, 2, 12)
    text, windows = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (saved.text, saved.video_windows))
    scores = np.array([[max(t @ w for w in clip) for clip in windows] for t in text])
    block = results["reranked"]["window_max"]
    assert block["text_to_video"]["MnR"] == pytest.approx(ranks(scores, positives=saved.video_of_text).expected.mean())
    wanted = among_videos(scores, video_of_text=saved.video_of_text).expected.mean()
    assert block["video_to_text"]["MnR"] == pytest.approx(wanted)
    assert block["text_to_video"]["MnR"] != results["text_to_video"]["MnR"]


def test_first_captions_cleaning_and_a_clip_without_caption(records, monkeypatch, tmp_path):
    rows = [row | ({"captions": []} if row["index"] == CLIPS - 1 else {}) for row in records.rows("test")]
    write_jsonl(tmp_path / "clips.jsonl", lines=rows)
    monkeypatch.setattr(records, "rows", lambda split: read_tables(tmp_path)[split])
    encoder = Encoder(text="strip_punctuation", context_length=8)
    found = embed_split(encoder, loaded=loaded_test(records, captions="first"), progress=False)
    assert found.video_of_text.tolist() == list(range(CLIPS - 1))
    assert found.protocol["texts_truncated"] == CLIPS - 1
    assert found.protocol["text_cleaning"] == "strip_punctuation"
    assert found.protocol["captions"] == "first"
    assert found.protocol["fps"] == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "tset"}, "unknown split 'tset'; did you mean 'test'"),
        ({"captions": "frist"}, "unknown value of captions 'frist'; did you mean 'first'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_arguments_are_named(records, change, message):
    with pytest.raises(UserError, match=message):
        size = {"batch_size": change.pop("batch_size", 32)}
        embed_split(Encoder(), loaded=LoadedSplit(records, **{"split": "test"} | change), progress=False, **size)


def test_a_split_without_captions_is_refused(records, monkeypatch):
    rows = [row | {"captions": []} for row in records.rows("test")]
    monkeypatch.setattr(records, "rows", lambda split: rows)
    with pytest.raises(UserError, match="none of the 12 clips of the split has a caption"):
        embed_split(Encoder(), loaded=loaded_test(records), progress=False)


def test_a_part_of_a_split_is_loaded_and_tokenised_once(found, records):
    encoder, asked = Encoder(), []
    encode = encoder.tokenizer.encode
    encoder.tokenizer.encode = lambda strings, **options: asked.append(len(strings)) or encode(strings, **options)
    only = np.array([1, 4, 8, 10, 11])
    loaded = LoadedSplit(records, split="test", captions="first", only=only)
    for most in (15, 2):  # all captions and foils; then only the captions that come with a batch of two clips
        asked.clear()
        part = embed_split(encoder, loaded=loaded, batch_size=2, progress=False)
        assert [row["clip_id"] for row in part.rows] == [records.rows("test")[i]["clip_id"] for i in only]
        np.testing.assert_allclose(part.video, found.video[only], atol=1e-3)
        assert part.captions == [row["captions"][0] for row in part.rows] and part.protocol["captions"] == "first"
        assert max(asked) == most


def test_saved_embeddings_come_back(found, tmp_path):
    found.save(tmp_path / "e.npz")
    again = Embeddings.load(tmp_path / "e.npz")
    for name in ("text", "video", "video_of_text"):
        assert (getattr(again, name) == getattr(found, name)).all()
    assert (again.controls["shuffled_frames"] == found.controls["shuffled_frames"]).all()
    for name in ("captions", "rows", "protocol", "coverage", "further"):
        assert getattr(again, name) == getattr(found, name)


def test_missing_clips_are_refused_before_the_checkpoint_is_read(folder, tmp_path):
    with pytest.raises(UserError, match=r"1 of 13 are missing .*broken.*--allow_missing"):
        evaluate.main(["no_checkpoint", "--data", str(folder), "--out", str(tmp_path)])


def test_the_command_writes_the_report(folder, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text(json.dumps({"step": 1, "kind": "train", "loss": 3.0}) + "\n")
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder())
    argv = [str(run), "--data", str(folder), "--out", str(tmp_path / "out"), "--allow_missing", "--batch_size", "5"]
    assert evaluate.main(argv) == 0
    printed = capsys.readouterr().out
    assert "coverage 92.31 %: 1 clips are missing" in printed
    results = json.loads((tmp_path / "out" / "retrieval.json").read_text())
    assert results["coverage"]["missing_clips"][0]["clip_id"] == "broken"
    assert results["protocol"]["videos_without_text"] == 0
    assert results["protocol"]["step"] == 3
    assert results["protocol"]["dataset"] == "prepared"
    assert len(results["protocol"]["source_sha256"]) == 64
    assert results["order_twins"]["accuracy_shuffled"] is not None
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<h2>Training</h2>" in page
    assert list((tmp_path / "out" / "media").glob("clip-*.webp"))

    # The same page again from the embeddings, with the records for its pictures.
    argv = [
        "--embeddings",
        str(tmp_path / "out" / "embeddings.npz"),
        "--data",
        str(folder),
        "--out",
        str(tmp_path / "b"),
        "--json",
    ]
    assert evaluate.main(argv) == 0
    assert json.loads(capsys.readouterr().out) == results
    assert {p.name for p in (tmp_path / "b" / "media").iterdir()} == {
        p.name for p in (tmp_path / "out" / "media").iterdir()
    }


def test_clips_that_the_pipeline_loses_are_named(records, monkeypatch):
    from twinreel.data.batches import pipeline

    batch = {"video": np.zeros((1, 4, 16, 16, 3), np.uint8), "clip_index": np.array([0])}
    monkeypatch.setattr(pipeline, "eval_batches", lambda *args, **kwargs: iter([batch]))
    second = records.rows("test")[1]["clip_id"]
    with pytest.raises(UserError, match=f"1 of the 12 clips .*first missing: '{second}'"):
        embed_split(Encoder(), loaded=loaded_test(records), progress=False)


@pytest.mark.parametrize("windows", [1, 2])
def test_padding_of_short_windows_is_masked_in_each_view_and_by_controls(records, windows):
    """0.4 s at 6 frames/s are three or four frames; against the tower on what the pipeline gives."""
    encoder = small_encoder()
    encoder.spec = encoder.spec.replace(input=dataclasses.replace(encoder.input, mask_frames=True, audio_seconds=0.0))
    encoder.model = randomised(encoder.model, seed=2)
    feed = FeedOptions(batch_size=1, eval_clips=windows, window_seconds=0.4)
    asked = Asked(controls=["reversed_frames"])
    got = embed_split(encoder, loaded=loaded_test(records), feed=feed, asked=asked, batch_size=16, progress=False)
    data = DataOptions(input=encoder.input, feed=dataclasses.replace(feed, dir=str(records.folder)))
    [batch] = eval_batches(data, tokenizer=encoder.tokenizer, split="test", batch_size=CLIPS, records=records)
    video, mask = (batch[key].reshape(CLIPS, windows, 4, *batch[key].shape[windows // 2 + 2 :]) for key in KEYS)
    counts = mask.sum(axis=2)
    assert counts.min() == 3
    backwards = np.copy(video)
    for clip, view in np.ndindex(counts.shape):
        backwards[clip, view, : counts[clip, view]] = video[clip, view, : counts[clip, view]][::-1]
    for pixels, found in ((video, got.video), (backwards, got.controls["reversed_frames"])):
        views = [encoder.model.encode_video(pixels[:, v], mask=mask[:, v]) for v in range(windows)]
        mean = np.mean([np.asarray(view, np.float64) for view in views], axis=0)
        np.testing.assert_allclose(found, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-5)
