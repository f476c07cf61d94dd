"""The page: it stands alone, escapes what it shows, and its pictures are there and move."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from fakes import embeddings, frames
from html_page import Page
from PIL import Image

from twinreel.evaluate import results
from twinreel.evaluate.embedding.embeddings import Embeddings
from twinreel.evaluate.measures.ranks import Ranks
from twinreel.evaluate.reports import charts, gallery
from twinreel.evaluate.reports.examples import pick_queries


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Write a whole report of fakes; called again, write it again. Returns its folder."""
    folder = tmp_path_factory.mktemp("retrieval")
    history = folder / "metrics.jsonl"
    lines = [{"step": s, "kind": "train", "loss": 4 - s / 10, "scale": 14.0 + s} for s in range(0, 30, 5)]
    lines += [{"step": s, "kind": "eval", "val/t2v_R@1": 10.0 + s} for s in (10, 20)]
    history.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 3')

    def write():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gallery, "clip_frames", frames)
            results.write(embeddings(noise=2.0, foils=True), out=folder / "report", records=object(), history=history)
        return folder / "report"

    return write


@pytest.fixture(scope="module")
def page(written):
    """The folder of the report and the text of its page."""
    out = written()
    return out, (out / "index.html").read_text(encoding="utf-8")


def test_the_folder_is_whole(page):
    out, text = page
    parsed = Page(text)
    assert {path.name for path in out.iterdir()} == {
        *("index.html", "retrieval.json", "embeddings.npz", "ranks.npz", "media", "queries.js"),
        *("tables.md", "tables.tex", "tables.csv"),
    }
    local = [link for link in parsed.links if not link.startswith("data:image/png")]
    assert local
    assert all((out / link).is_file() for link in local)
    data = json.loads((out / "queries.js").read_text().removeprefix("window.twinreelQueries = ").removesuffix(";\n"))
    browsed = {f"media/clip-{int(clip):05d}.webp" for clip, (_, pictured) in data["clips"].items() if pictured}
    assert {f"media/{path.name}" for path in (out / "media").iterdir()} == browsed | {
        link for link in local if link.startswith("media/")
    }
    assert json.loads((out / "retrieval.json").read_text())["order_twins"]["n"] == 24


def test_nothing_comes_from_the_network(page):
    _, text = page
    without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "http" not in without_names
    assert "@import" not in without_names
    assert [link for link in Page(text).links if link.endswith(".js")] == ["queries.js"]


def test_captions_are_escaped(page):
    _, text = page
    assert "caption 0 of &lt;clip&gt;" in text
    assert "<clip>" not in text


def test_every_section_is_there(page):
    _, text = page
    names = (
        "Retrieval",
        "What the model uses",
        "Protocol",
        "Order twins",
        "Minimal pairs",
        "Example queries",
        "Worst queries",
        "Groups",
        "Queries",
    )
    for name in (*names, "Ranks and scores", "Training"):
        assert f"<h2>{name}</h2>" in text
    assert "Coverage 100 %" in text
    assert "Unreadable lines of metrics.jsonl left out: 1." in text
    assert text.count("<svg") == 9
    assert len(set(re.findall(r'\bid="([^"]+)"', text))) == len(re.findall(r'\bid="([^"]+)"', text))


def test_minimal_pairs_stand_in_page_and_json_best_first(page):
    out, text = page
    rows = re.findall(r'<th scope="row">(colour|shape)</th><td>([\d.]+)</td><td>([\d.]+) to ([\d.]+)</td>', text)
    found = json.loads((out / "retrieval.json").read_text())["minimal_pairs"]
    assert [row[0] for row in rows] == sorted(found, key=lambda name: -found[name]["accuracy"])
    for name, *figures in rows:
        assert figures == [f"{found[name][key]:.1f}" for key in ("accuracy", "low", "high")]
    assert "Chance is 50 %" in text


def test_thumbnails_move(page):
    out, _ = page
    moving = [path for path in (out / "media").iterdir() if "strip" not in path.name]
    assert moving
    with Image.open(moving[0]) as picture:
        assert picture.n_frames == 8
        assert picture.size == (64, 48)


def test_the_same_report_is_the_same_bytes(page, written):
    _, text = page
    assert (written() / "index.html").read_text(encoding="utf-8") == text


def test_missing_clips_are_said(tmp_path):
    fake = embeddings()
    missing = [{"clip_id": "x<1>", "reason": "no such file"}]
    fake.coverage = {"expected": 25, "found": 24, "missing": 1, "fraction": 0.96, "missing_clips": missing}
    results.write(fake, out=tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Coverage 96.00 %: 24 of 25 clips." in text
    assert "x&lt;1&gt;" in text


def test_coverage_never_rounds_up_to_whole():
    from twinreel.evaluate.reports.headline import _exact

    assert (_exact(100.0), _exact(99.9999), _exact(12.345)) == ("100", "99.99", "12.35")


def test_arrays_alone_make_a_page_without_examples(tmp_path):
    fake = embeddings()
    bare = Embeddings(text=fake.text, video=fake.video, video_of_text=fake.video_of_text)
    results.write(bare, out=tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    Page(text)
    assert "Example queries" not in text
    assert "Coverage unknown" in text


def test_two_clips_are_enough_for_a_page(tmp_path):
    results.write(embeddings(videos=2, captions=1, groups=False), out=tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    Page(text)  # raises on tags that do not close
    assert "2 captions against 2 clips" in text


def test_queries_are_a_sample_and_the_worst_of_different_clips():
    fake = embeddings(videos=5, captions=2)
    fake.captions[6] = fake.captions[2]
    fake.captions[8] = fake.captions[0]
    ranks = Ranks(above=np.array([0, 0, 9, 8, 0, 3, 2, 1, 0, 0]), equal=np.zeros(10, int))
    sampled, worst = pick_queries(ranks, embeddings=fake, seed=0)
    assert worst == [2, 5, 7]  # neither 3, whose clip is shown already, nor 6, whose text is
    assert sampled == [0, 1, 3, 4, 9]
    assert pick_queries(ranks, embeddings=fake, seed=0) == (sampled, worst)


def test_no_failures_no_worst():
    ranks = Ranks(above=np.zeros(3, int), equal=np.zeros(3, int))
    assert pick_queries(ranks, embeddings=embeddings(videos=3, captions=1), seed=0)[1] == []


def test_charts_are_well_formed_and_follow_the_page():
    fake = embeddings(noise=2.0)
    ranks = Ranks(above=np.arange(40), equal=np.arange(40) % 3)
    drawn = [
        charts.recall_curves(text_to_video=ranks, video_to_text=ranks, videos=60),
        charts.rank_histogram(text_to_video=ranks, video_to_text=ranks),
        charts.cosine_map(fake.text[:24] @ fake.video.T),
        charts.score_histogram(fake.text[:24] @ fake.video.T, right=np.eye(24, dtype=bool)),
        charts.training_curves([{"step": 1, "kind": "train", "loss": 2.0}, {"step": 2, "kind": "train", "loss": 1.0}]),
    ]
    for svg in drawn:
        ET.fromstring(svg)
        assert "var(--" in svg
        assert "DejaVu" not in svg
        assert not re.search(r"#0[1-5]0[1-5]0[1-5]", svg)
    assert charts.training_curves([{"step": 1, "kind": "train", "lr": 2.0}]) == ""


def test_a_resumed_run_shows_the_later_line():
    lines = [{"step": 1, "kind": "train", "loss": loss} for loss in (5.0, 3.25)]
    lines += [{"step": step, "kind": "train", "loss": loss} for step, loss in ((2, float("nan")), (3, float("inf")))]
    assert ">3.25<" in charts.training_curves(lines)


def test_equal_scores_make_a_heat_map():
    for drawn in (
        charts.cosine_map(np.full((4, 4), 0.5)),
        charts.score_histogram(np.full((4, 4), 0.5), right=np.eye(4, dtype=bool)),
    ):
        assert ET.fromstring(drawn).tag.endswith("svg")
