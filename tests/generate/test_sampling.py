"""A trained generator at work: clips, edits, the judge, and the verbs."""

import json

import numpy as np
import pytest
from html_page import Page

from twinreel import __main__ as cli
from twinreel.base.errors import UserError
from twinreel.data.batches import pipeline
from twinreel.data.batches.records import Records
from twinreel.generate.flow.solve import SolverOptions
from twinreel.generate.sample.cost import training_cost
from twinreel.generate.sample.judge import changed_words, chosen_clips, edit_figures, judged, real_clips
from twinreel.generate.sample.painter import load_painter

SOLVER = SolverOptions(steps=2, method="euler")


@pytest.fixture(scope="module")
def painter(painter_run):
    return load_painter(painter_run)


@pytest.fixture(scope="module")
def videos():
    return np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 3)).astype(np.uint8)


def test_a_clip_depends_on_text_seed_and_number_alone(painter):
    texts = ["a red clip", "a blue clip", "a green clip"]
    one = painter.paint(texts, solver=SOLVER, seed=5)
    assert one.shape == (3, 4, 16, 16, 3) and one.dtype == np.uint8
    again = painter.paint(texts[1:], solver=SOLVER, seed=5, first=1, batch_size=1)
    np.testing.assert_array_equal(one[1:], again)
    assert (painter.paint(texts, solver=SOLVER, seed=6) != one).any()


def test_edits_of_no_strength_keep_every_pixel(painter, videos):
    texts = ["a red clip", "a blue clip", "a green clip"]
    made = painter.edit(videos, new=texts, old=texts[::-1], strength=0.0, solver=SOLVER)
    np.testing.assert_array_equal(made, videos)
    same = painter.edit(videos, new=texts, old=texts, strength=0.5, solver=SolverOptions(steps=2, guidance=1.0))
    np.testing.assert_array_equal(same, videos)  # the difference of a text from itself
    other = painter.edit(videos, new=texts, strength=1.0, method="noise", solver=SOLVER)
    assert (other != videos).any()


def test_bad_requests(painter, videos):
    for call, words in (
        (lambda: painter.paint([]), "wanted a list of texts"),
        (lambda: painter.paint("a red clip"), "wanted a list of texts"),
        (lambda: painter.paint(["  "]), "has no word that the generator knows"),
        (lambda: painter.paint(["red"], seed=-1), "--seed must be from 0"),
        (lambda: painter.paint_like(videos), "is conditioned on texts alone"),
        (lambda: painter.edit(videos, new=["red"] * 3, strength=1.5), "--strength must be a share from 0 to 1"),
        (lambda: painter.edit(videos, new=["red"] * 2), "3 clips, but 2 values of text"),
        (lambda: painter.edit(videos, new=["red"] * 3, method="nois"), "did you mean 'noise'"),
        (lambda: painter.edit(videos[:, :2], new=["red"] * 3), r"wanted uint8 \[n,4,16,16,3\]"),
    ):
        with pytest.raises(UserError, match=words):
            call()


class Lens:
    """Stands for a tower whose embedding of a clip is its mean colour."""

    def __init__(self, spec):
        self.input = spec.input

    def encode_video_arrays(self, video):
        mean = video.reshape(len(video), -1, 3).mean(axis=1) / 255
        return (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)


def test_the_judge_finds_captions_by_colour(painter):
    colours = np.array([[200, 10, 10], [10, 200, 10], [10, 10, 200], [200, 200, 10]], np.uint8)
    video = np.broadcast_to(colours[:, None, None, None], (4, 4, 16, 16, 3))
    lens = Lens(painter.spec)
    texts = lens.encode_video_arrays(video)
    right, wrong = judged(lens, video, texts=texts), judged(lens, video[::-1], texts=texts)
    assert right["v2t"]["R@1"] == right["t2v"]["R@1"] == 100 and right["ranks"] == [1, 1, 1, 1]
    assert wrong["v2t"]["R@1"] == 0 and right["v2t"]["R@1_low"] < 100
    larger = np.repeat(np.repeat(video, 2, axis=2), 2, axis=3)[:, :1]  # of another size and number of frames
    assert judged(lens, larger, texts=texts)["v2t"]["R@1"] == 100


def test_a_damaged_clip_is_no_black_clip_to_judge(painter, colour_data, monkeypatch):
    whole, records = pipeline.eval_batches, Records(colour_data / "data")

    def damaged(*args, **given):
        for batch in whole(*args, **given):
            yield batch | {"valid": batch["valid"] & (batch["clip_index"] != 1)}

    given = {"records": records, "split": "test"}
    assert len(real_clips(painter, **given, only=np.array([0, 1, 2]))) == 3
    monkeypatch.setattr(pipeline, "eval_batches", damaged)
    with pytest.raises(UserError, match=f"clip '{records.rows('test')[1]['clip_id']}' of split 'test' is damaged"):
        real_clips(painter, **given, only=np.array([0, 1, 2]))


def test_figures_of_edits(painter):
    red, blue = (np.full((1, 4, 16, 16, 3), colour, np.uint8) for colour in ((200, 10, 10), (10, 10, 200)))
    lens = Lens(painter.spec)
    old, new = (lens.encode_video_arrays(video) for video in (red, blue))
    half = red.copy()
    half[:, :, :8] = blue[:, :, :8]
    before, after = np.concatenate([red, red, red]), np.concatenate([blue, red, half])
    names = ["colour", "colour", "shape"]
    found = edit_figures(
        lens, before=before, after=after, old=np.repeat(old, 3, 0), new=np.repeat(new, 3, 0), names=names
    )  # fmt: skip
    assert found["colour"] == {"before": 0.0, "after": 50.0, "kept": 50.0, "n": 2}
    assert found["shape"]["kept"] == 50.0 and found["all"]["n"] == 3
    rows = [{"foils": {"shape": "x", "colour": "y"}}, {}, {"foils": {"colour": "z"}}]
    assert changed_words(rows, names=("colour",)) == [(0, "colour", "y"), (2, "colour", "z")]


def run(*argv, capsys):
    status = cli.main(["generate", *map(str, argv)])
    return status, capsys.readouterr()


def test_sample_writes_films_and_a_page(painter_run, tmp_path, capsys):
    (tmp_path / "texts").write_text("a red clip\n\na blue clip\n")
    flags = ["--steps", "2", "--method", "euler", "--count", "2"]
    out = ["--out", tmp_path / "out", "--json"]
    status, said = run("sample", painter_run, "--texts", tmp_path / "texts", *out, *flags, capsys=capsys)
    assert status == 0
    assert json.loads(said.out) == json.loads((tmp_path / "out" / "samples.json").read_text())
    assert [one["text"] for one in json.loads(said.out)["clips"]] == ["a red clip"] * 2 + ["a blue clip"] * 2
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 4
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert {f"media/{i:04d}.webp" for i in range(4)} <= set(page.links) and "a blue clip" in page.text
    frames = load_painter(painter_run).frames_of([tmp_path / "out" / "0000.mp4"])
    assert frames.shape == (1, 4, 16, 16, 3)


def test_edit_writes_each_wish(painter_run, colour_data, tmp_path, capsys):
    film = colour_data / "test_red_0.mp4"
    flags = ["--from", "a red clip", "--to", "a blue clip", "--to", "a green clip", "--strength", "0", "--steps", "2"]
    with pytest.raises(SystemExit):
        cli.main(["generate", "edit", "--help"])
    capsys.readouterr()
    status, said = run("edit", painter_run, film, *flags, "--out", tmp_path / "out", "--json", capsys=capsys)
    assert status == 0 and [one["kept"] for one in json.loads(said.out)["edits"]] == [1.0, 1.0]
    assert (tmp_path / "out" / "0001.mp4").is_file() and "a green clip" in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sample", "RUN", "--out", "OUT"], "give texts (--text, --texts FILE) or clips (--like FILE ...)"),
        (["sample", "RUN", "--text", "a", "--count", "0", "--out", "OUT"], "--count must be at least 1, got 0"),
        (["sample", "RUN", "--texts", "none.txt", "--out", "OUT"], "--texts none.txt: there is no such file"),
        (["sample", "RUN", "--text", "a", "--seconds", "0", "--out", "OUT"], "--seconds must be above 0"),
        (["edit", "RUN", "none.mp4", "--to", "a", "--out", "OUT"], "none.mp4: there is no such file"),
        (["edit", "RUN", "none.mp4", "--out", "OUT"], "say what the clip is to show: --to TEXT"),
        (
            ["score", "RUN", "--judge", "x", "--data", "x", "--edits", "-1", "--out", "OUT"],
            "--edits must be",
        ),
        (["sample", "RUN/stages/autoencoder", "--text", "a", "--out", "OUT"], "is the first stage of a generator"),
        (["sample", "RUN", "--text", "red " * 9, "--out", "OUT"], "tokens, and the generator reads 8; shorten it"),
        (["edit", "RUN", __file__, "--to", "blue " * 9, "--out", "OUT"], "tokens, and the generator reads 8"),
    ],
)
def test_bad_commands(argv, words, painter_run, tmp_path, capsys):
    argv = [one.replace("RUN", str(painter_run)).replace("OUT", str(tmp_path / "out")) for one in argv]
    status, said = run(*argv, capsys=capsys)
    assert status == 2 and words in said.err
    assert not (tmp_path / "out").exists()


def test_the_cost_of_both_stages_is_known(painter_run, tmp_path):
    found = training_cost(painter_run)
    assert (found["autoencoder_steps"], found["flow_steps"]) == (2, 4)
    assert found["autoencoder_s"] > 0 and found["flow_s"] > 0
    assert training_cost(painter_run / "checkpoints" / "4") == found and training_cost(tmp_path) == {}


def test_clips_to_judge_are_drawn_by_the_seed(colour_data):
    from twinreel.data.batches.records import Records

    records = Records(colour_data / "data")
    one = chosen_clips(records, split="test", count=4, seed=0)
    assert len(set(one.tolist())) == 4 and (one == np.sort(one)).all()
    np.testing.assert_array_equal(one, chosen_clips(records, split="test", count=4, seed=0))
    with pytest.raises(UserError, match="--clips must be from 2 to the 6 clips"):
        chosen_clips(records, split="test", count=7, seed=0)
    with pytest.raises(UserError, match="did you mean 'test'"):
        chosen_clips(records, split="tset", count=2, seed=0)
