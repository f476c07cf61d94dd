"""`twinreel monitor` with a tiny model: record, compare, canary set, files without a model, and mistakes."""

import json

import numpy as np
import pytest
from media_files import grey, write_media
from small_encoder import drawn_encoder

from twinreel.__main__ import main
from twinreel.evaluate.embedding.statistics import FILE, SideStatistics, Statistics

FAST = ["--permutations", "200", "--workers", "1"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return drawn_encoder().save(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Twelve short noisy clips with captions, and a manifest of them."""
    folder, lines = tmp_path_factory.mktemp("clips"), []
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 255, (3, 32, 48, 3), np.uint8)
        write_media(folder / f"{i}.mp4", list(noise), fps=4)
        lines.append({"clip_id": str(i), "path": f"{i}.mp4", "captions": [f"a dog number {i} runs", "a cat"]})
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def recorded(bundle, clips):
    """The statistics next to the bundle, with a canary set."""
    manifest = str(clips / "clips.jsonl")
    assert main(["monitor", str(bundle), "--record", manifest, "--canary", manifest, *FAST, "--json"]) == 0
    return bundle / FILE


def run(*argv, capsys):
    status = main(["monitor", *map(str, argv), *FAST])
    streams = capsys.readouterr()
    return status, streams.out, streams.err


def test_the_same_data_have_not_drifted(recorded, bundle, clips, tmp_path, capsys):
    manifest = clips / "clips.jsonl"
    argv = (bundle, "--against", manifest, "--canary", manifest, "--out", tmp_path / "page", "--json")
    status, out, _ = run(*argv, capsys=capsys)
    found = json.loads(out)
    assert status == 0 and found["drift"] == [] and found["reference"] == str(recorded)
    video = found["sides"]["video"]
    assert video["frechet"]["distance"] == pytest.approx(0, abs=1e-6) and video["mmd"]["p"] > 0.5
    assert found["canary"]["R@1"]["difference"] == 0 and found["texts"]["new_words"] == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "No drift" in page and json.loads((tmp_path / "page" / "drift.json").read_text()) == found


def test_other_clips_and_queries_drift(recorded, bundle, tmp_path, capsys):
    for i in range(12):
        write_media(tmp_path / "new" / f"{i}.mp4", grey(i, i, i), fps=4)
    queries = tmp_path / "queries.txt"
    line = "zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich"
    queries.write_text("".join(f"{line} {i}\n" for i in range(30)))
    argv = (bundle, "--against", tmp_path / "new", "--queries", queries, "--max_mean_shift", "0.2")
    status, out, _ = run(*argv, "--out", tmp_path / "page", capsys=capsys)
    assert status == 3
    assert "drift: video: the embeddings differ" in out and "drift: video: mean shift" in out
    assert "drift: queries: 9" in out and "words on average" in out
    assert "boxkämpfer" in (tmp_path / "page" / "index.html").read_text()


def test_statistics_need_no_model(recorded, tmp_path, capsys):
    reference = Statistics.load(recorded)
    rows = reference.sides["video"].sample
    np.savez(tmp_path / "same.npz", video=rows)
    np.savez(tmp_path / "wide.npz", video=np.pad(rows, [(0, 0), (0, 2)]))
    assert run(recorded, "--against", tmp_path / "same.npz", capsys=capsys)[0] == 0
    status, _, err = run(recorded, "--against", tmp_path / "wide.npz", capsys=capsys)
    assert status == 2 and "record the reference again" in err
    np.savez(tmp_path / "few.npz", video=rows[:9])
    status, _, err = run(recorded, "--against", tmp_path / "few.npz", capsys=capsys)
    assert status == 2 and "9 rows of 'video' are too few for a mean and a covariance" in err
    status, _, err = run(recorded, "--against", tmp_path, capsys=capsys)
    assert status == 2 and "has to be embedded: give the MODEL" in err


def test_statistics_return_from_disk(recorded):
    one = Statistics.load(recorded)
    again = Statistics.load(one.save(recorded.parent.parent / "again.npz"))
    assert again.model == one.model and again.made == one.made and again.texts.words == one.texts.words
    np.testing.assert_array_equal(again.sides["text"].cov, one.sides["text"].cov)
    np.testing.assert_array_equal(again.canary.above, one.canary.above)


def test_rows_of_no_length_do_not_count():
    rows = np.random.default_rng(0).normal(size=(60, 4))
    padded = np.concatenate([rows, np.zeros((5, 4))])
    one, two = (SideStatistics.of(values, name="audio") for values in (rows, padded))
    assert two.count == 60 and np.array_equal(one.mean, two.mean) and one.halves > 0
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(one.cov, np.cov(unit, rowvar=False), rtol=1e-9, atol=1e-15)


def test_an_index_is_compared_with_itself(library, tmp_path, capsys):
    stats = tmp_path / "stats.npz"
    assert run(stats, "--record", library, capsys=capsys)[0] == 0
    status, out, _ = run(stats, "--against", library, "--json", capsys=capsys)
    found = json.loads(out)
    assert status == 0 and found["sides"]["video"]["count"] == 30
    assert found["sides"]["video"]["mmd"]["mmd2"] < 0  # unbiased: of equal samples it is below zero


def test_other_weights_are_refused_but_not_on_the_canary_set(recorded, clips, tmp_path, capsys):
    other = drawn_encoder(text={"width": 8, "depth": 2, "heads": 2}).save(tmp_path / "other")
    manifest = clips / "clips.jsonl"
    status, _, err = run(other, "--stats", recorded, "--against", manifest, capsys=capsys)
    assert status == 2 and "embeddings of two models cannot be compared" in err
    status, out, _ = run(other, "--stats", recorded, "--canary", manifest, capsys=capsys)
    assert status in (0, 3) and "canary: R@1" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{bundle}"], "nothing to compare"),
        (["{bundle}", "--record", "a", "--against", "b"], "give one of them"),
        (["{bare}", "--against", "{clips}"], "has no reference statistics"),
        (["hf:some/model", "--record", "{clips}"], "give --stats FILE.npz"),
        (["{bundle}", "--against", "{clips}", "{stats}"], "different kinds"),
        (["{bundle}", "--against", "{clips}", "--alpha", "2"], "--alpha is 2"),
        (["{bundle}", "--queries", "{clips}/none.txt"], "cannot be read as UTF-8 text"),
        (["{stats}", "--canary", "{clips}"], "needs MODEL"),
        (["{bundle}", "--canary", "{clips}/0.mp4"], "has no captions"),
        (["{clips}/clips.jsonl", "--against", "{clips}"], "has no reference statistics"),
    ],
)
def test_mistakes(argv, message, recorded, bundle, clips, tmp_path, capsys):
    places = {"bundle": bundle, "clips": clips, "stats": recorded, "bare": tmp_path}
    status, _, err = run(*(one.format(**places) for one in argv), capsys=capsys)
    assert status == 2 and message in err
