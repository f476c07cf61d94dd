"""Controls and pairs from films to the report, with a model whose every answer is known.

It sees whether a picture grows brighter, hears whether a tone is low, and reads a verb and a noun of each.
"""

import json
from types import SimpleNamespace

import fake_encoder
import numpy as np
import pytest
from html_page import Page

from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.options import FeedOptions
from twinreel.data.prepare.prepare import prepare
from twinreel.evaluate import evaluate
from twinreel.evaluate.embedding.embed import Asked, embed_split
from twinreel.evaluate.embedding.loaded import LoadedSplit
from twinreel.evaluate.protocols import controls
from twinreel.evaluate.protocols.controls import CONTROLS, other_sounds, reorder_frames
from twinreel.evaluate.reports.terminal import print_table
from twinreel.evaluate.results import measure

VERBS, NOUNS = {"rises": 1, "sinks": -1}, {"drum": -1, "bell": 1, "nothing": 0}
CLIPS = [(verb, noun) for verb in VERBS.values() for noun in NOUNS.values()]
HERTZ = {-1: 300.0, 1: 3000.0}


class Encoder(fake_encoder.Encoder):
    """Three numbers for each text and clip: a constant, the direction of the light, and the height of the tone."""

    def __init__(self, fused="video+audio"):
        super().__init__(audio_seconds=0.5, context_length=64)
        towers = {"video": {"family": "vivit"}, "text": {}, "audio": {}}
        self.spec = SimpleNamespace(towers=towers, features={}, fused_side=fused)
        self.clip_side = fused if fused == "video+audio" else "video"

    def embed_local(self, rows, *, side):
        taken = [key for key in rows if key in ("video", "text", "text_mask", "audio", "audio_samples")]
        rest = {key: value for key, value in rows.items() if key not in taken}
        light, tone = np.zeros((2, len(rows[taken[0]])))
        if "video" in side:
            bright = rows["video"].astype(float).mean(axis=(2, 3, 4))
            light = np.sign(np.round((bright[:, -1] - bright[:, 0]) / 10))
        if "audio" in side:
            crossings = (np.diff(np.sign(rows["audio"].astype(int)), axis=1) != 0).sum(axis=1)
            tone = np.where(rows["audio_mask"], np.where(crossings > 1000, 1, -1), 0)
        if "text" in side:
            texts = ["".join(map(chr, row[row > 0])) for row in rows["text"]]
            found = [[sum(n * (w in text) for w, n in words.items()) for words in (VERBS, NOUNS)] for text in texts]
            light, tone = light + np.array(found)[:, 0] * ("video" not in side), tone + np.array(found)[:, 1]
        return {"embedding": unit(np.stack([np.ones(len(light)), light, tone], axis=1)).astype(np.float32), **rest}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def films(tmp_path_factory, media):
    """Six films of two directions by two tones or none; returns the folder of their records."""
    folder, lines = tmp_path_factory.mktemp("films"), []
    for (verb, light), (noun, tone) in ((v, n) for v in VERBS.items() for n in NOUNS.items()):
        path = folder / f"{verb}_{noun}.mp4"
        levels = np.linspace(20, 230, 8).astype(int)[::light]
        sound = media.tone(1.0, hertz=HERTZ[tone]) if tone else None
        media.write(path, media.grey(*levels.tolist(), size=(32, 32)), fps=8, sound=sound)
        captions = [f"a picture {verb} with a {noun}", f"the light {verb} slowly and a {noun}"]
        lines.append({"clip_id": path.stem, "path": path.name, "captions": captions, "split": "test"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(folder / "manifest.jsonl", out=folder / "data", fps=8.0, short_side=32, audio=True, workers=1)
    assert [row["clip_id"] for row in Records(folder / "data").rows("test")] == [line["clip_id"] for line in lines]
    return folder / "data"


def tagger_of(model):
    """Stand in for spaCy: the words of this file."""
    parts = dict.fromkeys(VERBS, "VERB") | dict.fromkeys((*NOUNS, "picture", "light"), "NOUN")
    return lambda texts: [[parts.get(word, "X") for word in words] for words in texts]


@pytest.fixture(autouse=True, scope="module")
def tagger():
    """A tagger of the words of this file, as if spaCy were installed with a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "tagger_of", tagger_of)
        patch.setattr(controls, "tagger_name", lambda model: f"{model} of the test")
        patch.setattr(controls, "tagger_missing", lambda model: "")
        yield patch


@pytest.fixture(scope="module")
def report(films, tmp_path_factory):
    """The folder of a report with all controls and pairs."""
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder())
        argv = ["run", "--data", str(films), "--out", str(out), "--control", "all", "--control_seed", "5"]
        assert evaluate.main([*argv, "--pairs", "all", "--batch_size", "4"]) == 0
    return out


def recall(texts, videos):
    """R@1 in percent of texts (two per video) among videos, by counting."""
    texts, videos = ([np.array([1.0, *row]) / np.linalg.norm([1.0, *row]) for row in rows] for rows in (texts, videos))
    hit = []
    for place, text in enumerate(texts):
        scores = [round(float(text @ video), 9) for video in videos]
        best = [k for k, score in enumerate(scores) if score == max(scores)]
        hit.append((place in best) / len(best))
    return 100 * sum(hit) / len(hit)


def expected(name):
    """What a control makes of the texts and the clips."""
    texts = [(light * (name != "masked_verbs"), tone * (name != "masked_nouns")) for light, tone in CLIPS]
    partner = other_sounds(np.array([tone != 0 for _, tone in CLIPS]), seed=5) if name == "swapped_sound" else range(6)
    videos = []
    for clip, (light, _) in enumerate(CLIPS):
        if CONTROLS[name].changes == "frames":
            ramp = light * np.arange(4, dtype=float)[:, None, None, None]
            changed = reorder_frames(ramp, name=name, key=(5, clip)).ravel()
            light = np.sign(changed[-1] - changed[0])
        videos.append((light, CLIPS[partner[clip]][1] * (name != "muted")))
    return texts, videos


@pytest.mark.parametrize("name", CONTROLS)
def test_each_control_costs_what_it_takes_away(report, name):
    results = json.loads((report / "retrieval.json").read_text())
    assert (results["text_to_video"]["R@1"], results["video_to_text"]["R@1"]) == (100, 100)
    row = results["controls"]["rows"][name]
    texts, videos = expected(name)
    assert row["text_to_video"]["R@1"] == pytest.approx(recall(texts, videos))
    assert row["video_to_text"]["R@1"] == pytest.approx(recall(videos, texts))
    drop = row["drop"]["text_to_video"]["R@1"]
    assert drop["difference"] == pytest.approx(100 - row["text_to_video"]["R@1"])
    assert drop["low"] - 1e-9 <= drop["difference"] <= drop["high"] + 1e-9


def test_what_is_known_of_controls_stands_in_the_protocol(report):
    block = json.loads((report / "retrieval.json").read_text())["controls"]
    about, rows = block["protocol"], block["rows"]
    assert about["seed"] == 5 and about["not_applicable"] == {} and about["tagger"] == "en_core_web_sm of the test"
    assert list(rows) == list(about["rules"]) == list(CONTROLS)
    changed = {name: (row["changed"], row["n"]) for name, row in rows.items()}
    assert changed["reversed_frames"] == (6, 6) and changed["muted"] == (4, 6)
    partner = other_sounds(np.array([tone != 0 for _, tone in CLIPS]), seed=5)
    assert changed["swapped_sound"] == (sum(CLIPS[own][1] != CLIPS[other][1] for own, other in enumerate(partner)), 6)
    assert changed["masked_nouns"] == changed["masked_verbs"] == (12, 12)


def test_each_pair_is_measured_on_the_clips_with_sound(report):
    block = json.loads((report / "retrieval.json").read_text())["pairs"]
    assert (block["protocol"]["clips"], block["protocol"]["texts"], block["protocol"]["left_out"]) == (4, 8, 2)
    found = {name: pair[name]["R@1"] for pair in block["rows"].values() for name in pair if "_to_" in name}
    assert found == {
        "text_to_video": 50, "video_to_text": 50,  # each direction of light has two of the four clips
        "video_to_audio": 25, "audio_to_video": 25,  # neither says anything of the other
        "text_to_audio": 50, "audio_to_text": 50,
        "text_to_video+audio": 100, "video+audio_to_text": 100,
    }  # fmt: skip


def test_the_file_gives_the_same_again_without_the_model(report, capsys):
    path = ["--embeddings", str(report / "embeddings.npz"), "--json"]
    assert evaluate.main(path) == 0
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((report / "retrieval.json").read_text())
    assert evaluate.main([*path, "--control", "muted", "--pairs", "text:audio"]) == 0
    some = json.loads(capsys.readouterr().out)
    assert list(some["controls"]["rows"]) == ["muted"] and list(some["pairs"]["rows"]) == ["audio_text"]
    assert some["controls"]["rows"]["muted"] == results["controls"]["rows"]["muted"]
    assert some["pairs"]["rows"]["audio_text"] == results["pairs"]["rows"]["audio_text"]


def test_tables_and_page_show_both(report, capsys):
    print_table(json.loads((report / "retrieval.json").read_text()))
    table = capsys.readouterr().out
    assert "reversed frames" in table and "+100.0 (100.0 to 100.0)" in table
    assert "text → audio" in table and "2 clips without sound are left out" in table
    text = (report / "index.html").read_text(encoding="utf-8")
    assert "<h2>What the model uses</h2>" in text and "<h2>Pairs of modalities</h2>" in text
    assert "no sound: masked" in text and "controls-" in text
    Page(text)


def test_windows_have_their_own_sound(films):
    asked = Asked(controls=["muted", "reversed_frames"], pairs=["all"])
    feed = FeedOptions(batch_size=1, eval_clips=2)
    loaded = LoadedSplit(Records(films), split="test")
    results = measure(embed_split(Encoder(), loaded=loaded, batch_size=4, progress=False, asked=asked, feed=feed))
    assert (
        results["text_to_video"]["R@1"] == 100 and results["pairs"]["rows"]["audio_text"]["text_to_audio"]["R@1"] == 50
    )
    assert results["controls"]["rows"]["reversed_frames"]["text_to_video"]["R@1"] == 0
    assert results["controls"]["rows"]["muted"]["text_to_video"]["R@1"] == pytest.approx(100 / 3)


def test_a_side_that_fuses_texts_has_a_row_for_each_caption(films):
    found = embed_split(
        Encoder(fused="video+text"), loaded=LoadedSplit(Records(films), split="test"), batch_size=4, progress=False,
        asked=Asked(pairs=["audio:text+video"]),
    )  # fmt: skip
    wanted = unit(np.array([(1, *CLIPS[clip]) for clip in found.video_of_text], float))
    np.testing.assert_allclose(found.sides["video+text"], wanted, atol=1e-6)
    assert measure(found)["pairs"]["rows"]["video+text_audio"]["video+text_to_audio"]["R@1"] == 50


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--control", "mutd"], "unknown --control 'mutd'; did you mean 'muted'"),
        (["--pairs", "text:adio"], "unknown modality in --pairs text:adio: 'adio'; did you mean 'audio'"),
        (["--pairs", "audio"], "unknown pair in --pairs 'audio'"),
        (
            ["--pairs", "text+audio:video"],
            "no such pair; it has: video_text, video_audio, audio_text, video.audio_text",
        ),
        (
            ["--control", "muted", "--clip_side", "video"],
            "--control muted does not apply: what stands for a clip has no",
        ),
    ],
)
def test_what_cannot_be_measured_is_named(films, tmp_path, monkeypatch, flags, message):
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder())
    with pytest.raises(UserError, match=message):
        evaluate.main(["run", "--data", str(films), "--out", str(tmp_path), *flags])


def test_all_leaves_out_what_does_not_apply_with_the_reason(films, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("twinreel.encode.embed.encoder.load", lambda path: Encoder())
    monkeypatch.setattr(controls, "tagger_missing", lambda model: f"needs {model}")
    argv = ["run", "--data", str(films), "--out", str(tmp_path), "--clip_side", "video", "--control", "all"]
    assert evaluate.main(argv) == 0
    block = json.loads((tmp_path / "retrieval.json").read_text())["controls"]
    assert set(block["protocol"]["not_applicable"]) == {"swapped_sound", "muted", "masked_nouns", "masked_verbs"}
    assert block["protocol"]["not_applicable"]["masked_nouns"] == "needs en_core_web_sm"
    assert "control muted is not measured: what stands for a clip has no sound" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--control masked_nouns needs de_core_news_sm"):
        evaluate.main([*argv, "--control", "masked_nouns", "--tagger", "de_core_news_sm"])
    with pytest.raises(UserError, match=r"--control muted: the file has no such embeddings \(it has: shuffled_frames,"):
        evaluate.main(["--embeddings", str(tmp_path / "embeddings.npz"), "--control", "muted"])
    with pytest.raises(UserError, match=r"--pairs text:audio: the file has no such pair \(it has: none\)"):
        evaluate.main(["--embeddings", str(tmp_path / "embeddings.npz"), "--pairs", "text:audio"])
