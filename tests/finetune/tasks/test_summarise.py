"""Summaries from a bundle to files: the task on films of the demo's clips, and the verb with and without its head."""

import io
import itertools
import json
import re
import shutil
from types import SimpleNamespace

import av
import numpy as np
import pytest
from files import lines
from media_files import grey, tone, write_media
from PIL import Image
from small_encoder import small_encoder

import twinreel
from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.manifest import read_manifest
from twinreel.data.media.decode import DecodeOptions, decode_clip
from twinreel.data.prepare.prepare import prepare
from twinreel.demo import films
from twinreel.finetune.commands import predict, summarise
from twinreel.finetune.commands.finetune import finetune
from twinreel.finetune.reports import storyboard

SHORT = [
    *("data.batch_size=8", "data.num_frames=16", "task.width=16", "task.heads=2", "task.depth=1", "train.steps=4"),
    *("train.log_every=1", "train.eval_every=2", "train.checkpoint_every=2", "optimizer.warmup_steps=1"),
]


@pytest.fixture(scope="module")
def shape_films(tiny_data, tmp_path_factory):
    """Twelve films of three of the tiny clips each, and their records."""
    folder = tmp_path_factory.mktemp("shape_films")
    source = tiny_data.parent / "videos" / "manifest.jsonl"
    manifest = films.write(folder / "films", manifest=source, fewest=3, most=3, workers=1, progress=False)
    prepare(manifest, out=folder / "data", fps=4.0, short_side=52, workers=1)
    return folder


@pytest.fixture(scope="module")
def start(shape_films, tmp_path_factory):
    """A function (workdir, overrides) -> report; the towers are random ones."""
    root = tmp_path_factory.mktemp("summaries")
    small_encoder().save(root / "towers")

    def start(workdir, *overrides, **more):
        given = [f"data.dir={shape_films / 'data'}", f"task.features_dir={root / 'features'}", *SHORT, *overrides]
        return finetune(load_config("demo_summarise", overrides=given), init=root / "towers", workdir=workdir, **more)

    start.root = root
    return start


@pytest.fixture(scope="module")
def learned(start):
    """Workdir and report of a run."""
    return start.root / "run", start(start.root / "run")


def test_films_join_clips_in_their_order(shape_films, tiny_data):
    """Times, pictures and sound of the second clip of a film are those of the clip; scores go with its events."""
    clips = {clip.clip_id: clip for clip in read_manifest(tiny_data.parent / "videos" / "manifest.jsonl")}
    made = read_manifest(shape_films / "films" / "manifest.jsonl")
    assert {film.split for film in made} == {"train", "val", "test"}
    film, options = made[0], DecodeOptions(fps=None, short_side=0)
    whole = decode_clip(shape_films / "films" / film.path, options=options)
    events = film.meta["events"]
    assert whole.duration_s == pytest.approx(events[-1]["end_s"], abs=0.01)
    first, second = film.meta["joins"][:2]
    shown = [event for event in events if first <= event["start_s"] < second]
    [source] = [c for c in clips.values() if len(c.meta["events"]) == len(shown) and same(c.meta["events"], shown)]
    alone = decode_clip(tiny_data.parent / "videos" / source.path, options=options)
    begin = int(np.searchsorted(whole.timestamps_s, first - 1e-3))
    assert len(alone.encoded) == np.searchsorted(whole.timestamps_s, second - 1e-3) - begin
    for i in (0, len(alone.encoded) - 1):
        assert np.abs(pixels(whole.encoded[begin + i]) - pixels(alone.encoded[i])).mean() < 4
    heard, wanted = (part.astype(float) for part in (whole.audio[round(first * 16_000) :], alone.audio))
    assert np.corrcoef(heard[4000 : len(wanted) - 4000], wanted[4000:-4000])[0, 1] > 0.95
    assert film.meta["shot_changes"] == [event["start_s"] for event in events[1:]]
    scores = np.array(film.meta["importance"])
    assert scores.shape == (5, round(events[-1]["end_s"] / 0.5)) and scores.min() >= 1 and scores.max() <= 5
    with pytest.raises(UserError, match="made with films=240 "):
        films.write(shape_films / "films", manifest=tiny_data.parent / "videos" / "manifest.jsonl", films=1)


def same(events, shown):
    keys = ("shape", "colour", "size", "texture", "motion")
    return all(a[key] == b[key] for a, b in zip(events, shown, strict=True) for key in keys)


def pixels(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)), np.float64)


def test_the_report_is_of_every_film_of_the_test_split(learned, shape_films):
    workdir, report = learned
    rows = Records(shape_films / "data").rows("test")
    whole = json.loads((workdir / "report" / "summaries.json").read_text())
    assert [one["clip_id"] for one in whole["examples"]] == [row["clip_id"] for row in rows] and report["n"] == len(
        rows
    )
    assert set(report) == {"protocol", "n", "changes", "model", "untrained", "random", "uniform", "annotators"}
    assert report["changes"]["changes"] == sum(len(row["meta"]["shot_changes"]) for row in rows)
    for one in whole["examples"]:
        shots = one["shots"]
        assert shots[0][0] == 0 and shots[-1][1] == pytest.approx(one["duration_s"], abs=1e-3)
        assert (
            sum(shots[i][1] - shots[i][0] for i in one["summary"]) <= 0.15 * one["duration_s"]
            or len(one["summary"]) == 1
        )
    page = (workdir / "report" / "index.html").read_text()
    pictures = re.findall(r'src="([^"]+)"', page)
    assert len(pictures) == len(rows) and all((workdir / "report" / picture).is_file() for picture in pictures)
    assert "http" not in page and "annotators" in page
    values = [(line["val/kendall"], -line["step"]) for line in lines(workdir, "eval")]
    assert report["protocol"]["checkpoint_step"] == -max(values)[1] and len(values) == 2


def test_a_run_goes_on_from_a_checkpoint_as_if_nothing_was(start, learned):
    again = shutil.copytree(learned[0], start.root / "again")
    report = start(again, resume_step=2)
    losses = [{line["step"]: line["loss"] for line in lines(folder, "train")} for folder in (learned[0], again)]
    assert sorted(losses[0]) == list(range(1, 5)) and losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert (again / "checkpoints" / "dropped-4").is_dir()
    assert report["model"] == learned[1]["model"]


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("task.query=clip", "summaries are learned from 'annotated' films"),
        ("task.share=0.0", r"config\.task\.share=0 of a film's length; wanted above 0 and at most 1"),
        ("task.share=1.5", r"config\.task\.share=1\.5"),
        ("task.shortest_s=0.0", r"config\.task\.shortest_s=0"),
        ("task.margin=-1.0", "margin must be at least 0"),
    ],
)
def test_mistakes_are_named_before_the_workdir_is_taken(start, override, wanted):
    with pytest.raises(UserError, match=wanted):
        start(start.root / "refused", override)
    assert not (start.root / "refused").exists()


def test_data_without_annotators_are_refused(start, tiny_data):
    with pytest.raises(UserError, match=r"has annotators' scores or summaries \(`meta\.importance`"):
        start(start.root / "refused", f"data.dir={tiny_data}")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Twelve seconds: stripes of four kinds, three seconds each, with a pitch each."""
    kinds = [grey(60 + 50 * i, 60 + 50 * i)[0].copy() for i in range(4)]
    for i, kind in enumerate(kinds):
        kind[:, :: 2 + i] = 255 - kind[:, :: 2 + i]
    sound = np.concatenate([tone(3, hertz=400 + 300 * i) for i in range(4)])
    return write_media(tmp_path_factory.mktemp("film") / "film.mkv", [k for k in kinds for _ in range(24)], sound=sound)


def read(path):
    """Times of the pictures of a film, and the sound."""
    with av.open(str(path)) as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray()[0] for frame in container.decode(audio=0)] if container.streams.audio else []
    return times, np.concatenate(sound) if sound else None


@pytest.mark.parametrize("trained", [False, True])
def test_a_film_is_summarised_into_files(start, learned, film, tmp_path, capsys, trained):
    model = learned[0] if trained else start.root / "towers"
    capsys.readouterr()
    flags = ["--share", "0.5", "--penalty", "0.5", "--workers", "1", "--json"]
    assert summarise.main([str(model), str(film), "--out", str(tmp_path), *flags]) == 0
    [printed], out = json.loads(capsys.readouterr().out)["films"], tmp_path / "film"
    assert printed["out"] == str(out) and json.loads((out / "summary.json").read_text())["shots"] == printed["shots"]
    shots = printed["shots"]
    assert shots[0]["start_s"] == 0 and shots[-1]["end_s"] == pytest.approx(12, abs=0.01)
    assert all(a["end_s"] == b["start_s"] for a, b in itertools.pairwise(shots))
    kept = [shot for shot in shots if shot["chosen"]]
    frames = sum(round(8 * shot["end_s"]) - round(8 * shot["start_s"]) for shot in kept)
    times, sound = read(out / "summary.mp4")
    assert len(times) == frames and times[-1] == pytest.approx(printed["summary_s"] - 0.125, abs=0.01)
    assert len(sound) / 16_000 == pytest.approx(printed["summary_s"], abs=0.1)
    assert printed["summary_s"] <= 6.01
    assert sorted(p.name for p in (out / "keyframes").iterdir()) == [shot["keyframe"].split("/")[1] for shot in kept]
    for shot in kept:
        time = float(shot["keyframe"].rsplit("-", 1)[1].removesuffix(".jpg"))
        assert shot["start_s"] <= time < shot["end_s"]
        assert pixels((out / shot["keyframe"]).read_bytes()).shape == (32, 48, 3)
    page = (out / "index.html").read_text()
    sources = [one for one in re.findall(r'src="([^"]+)"', page) if not one.startswith("data:")]
    assert sources == ["summary.mp4", *(shot["keyframe"] for shot in kept)] and "http" not in page
    assert page.count("data:image/jpeg") == len(shots)
    if trained:
        assert predict.main([str(model), str(film), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said == {"path": str(film), **twinreel.load(model).predict([film])[0]}
        assert said["summary_s"] <= 0.15 * 12 or sum(shot["chosen"] for shot in said["shots"]) == 1


def test_films_without_sound_and_of_one_frame(start, tmp_path, capsys):
    silent = write_media(tmp_path / "a" / "film.mp4", grey(*[60] * 16, *[200] * 16))
    frame = write_media(tmp_path / "b" / "film.mp4", grey(90))
    files = [str(silent), str(frame)]
    assert summarise.main([str(start.root / "towers"), *files, "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    assert "0.1 of 0.1 s, 1 of 1 shots" in capsys.readouterr().out
    assert read(tmp_path / "out" / "film" / "summary.mp4")[1] is None  # the second one is in film-2
    assert len(read(tmp_path / "out" / "film-2" / "summary.mp4")[0]) == 1


def test_neighbouring_shots_are_cut_together_up_to_a_length(monkeypatch):
    monkeypatch.setattr(storyboard, "LONGEST_PART_S", 5.0)
    shots = np.array([[0.0, 2.0], [2.0, 4.0], [4.0, 6.0], [6.0, 13.0], [13.0, 14.0]])
    summary = SimpleNamespace(film=SimpleNamespace(path="film.mkv"), shots=shots, chosen=(0, 1, 2, 4))
    parts = storyboard.stretches(summary)
    assert [(part.start_s, part.end_s) for part in parts] == [(0.0, 4.0), (4.0, 6.0), (13.0, 14.0)]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--share", "0"], "share=0 of a film's length"),
        (["--share", "1.2"], "share=1.2 of a film's length"),
        (["--shortest", "-1"], "shortest_s=-1"),
        (["--seconds", "0"], "seconds=0"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
    ],
)
def test_flags_out_of_range_are_refused(start, film, tmp_path, flags, wanted):
    with pytest.raises(UserError, match=wanted):
        summarise.main([str(start.root / "towers"), str(film), "--out", str(tmp_path), *flags])


def test_other_models_and_files_are_refused(start, learned, film, tmp_path):
    out = ["--out", str(tmp_path), "--workers", "1"]
    with pytest.raises(UserError, match="1 of 1 files do not exist"):
        summarise.main([str(start.root / "towers"), "none.mp4", *out])
    with pytest.raises(UserError, match="has moments of its own; leave --seconds out"):
        summarise.main([str(learned[0]), str(film), "--seconds", "1", *out])
    (tmp_path / "text.mp4").write_text("no film")
    with pytest.raises(UserError, match=r"text\.mp4 cannot be read"):
        summarise.main([str(start.root / "towers"), str(tmp_path / "text.mp4"), *out])
    with pytest.raises(UserError, match="takes no text: it finds shots; leave"):
        predict.main([str(learned[0]), str(film), "--text", "red"])
