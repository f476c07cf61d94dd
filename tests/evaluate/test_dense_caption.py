"""`twinreel caption --dense`: films to events with captions and subtitles, a split to its figures and the page."""

import json
import re

import pytest
from java import stand_in_java
from small_encoder import drawn_encoder

from twinreel.base.errors import UserError
from twinreel.data.batches.records import Records
from twinreel.data.prepare.prepare import prepare
from twinreel.data.subtitles import read_subtitles
from twinreel.evaluate.caption import main
from twinreel.evaluate.dense_caption import caption_events_of_split, write_event_subtitles
from twinreel.evaluate.measures.captions import ptb_tokens
from twinreel.evaluate.measures.dense_captions import dense_caption_scores

HEADS = {"captioning": {"kind": "decoder", "width": 8, "depth": 1, "heads": 2}}
CUT = ["--shortest", "1", "--penalty", "0", "--max_tokens", "8", "--batch_size", "8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A bundle of tiny towers with a captioning head."""
    return drawn_encoder(heads=HEADS).save(tmp_path_factory.mktemp("dense") / "run")


def test_the_events_of_a_split_are_compared_with_its_spans(run, tiny_data, tmp_path, capsys):
    out, java = tmp_path / "events", stand_in_java(tmp_path)
    argv = [str(run), "--data", str(tiny_data), "--dense", "--out", str(out), *CUT]
    assert main([*argv, "--meteor", str(java["jar"]), "--java", java["java"]]) == 0
    printed = capsys.readouterr().out
    saved, rows = json.loads((out / "captions.json").read_text()), Records(tiny_data).rows("test")
    assert [one["clip_id"] for one in saved["clips"]] == [row["clip_id"] for row in rows]
    for clip, row in zip(saved["clips"], rows, strict=True):
        spans = [(span["start_s"], span["end_s"], span["text"]) for span in row["spans"]]
        assert [tuple(one.values()) for one in clip["references"]] == spans
        edges = [one["start_s"] for one in clip["events"]] + [clip["duration_s"]]
        assert edges[0] == 0 and [one["end_s"] for one in clip["events"]] == edges[1:]
        assert clip["duration_s"] == pytest.approx(row["duration_s"], abs=2e-3)
    found, truth = (
        [[one | {"caption": ptb_tokens(one["caption"])} for one in clip[name]] for clip in saved["clips"]]
        for name in ("events", "references")
    )
    wanted = dense_caption_scores(found, references=truth)
    assert [clip["SODA"] for clip in saved["clips"]] == pytest.approx(wanted.pop("per_film"), abs=1e-4)
    for name in ("ROUGE-L", "BLEU-4", "precision", "recall", "films", "predicted", "references"):
        assert saved["events"][name] == pytest.approx(wanted[name])
    assert saved["events"]["SODA"]["ROUGE-L"] == pytest.approx(wanted["SODA"]["ROUGE-L"])
    assert saved["events"]["METEOR"] >= 0 and saved["events"]["SODA"]["METEOR"].keys() == {"precision", "recall", "F1"}
    assert saved["protocol"]["event_penalty"] == 0.0 and saved["protocol"]["meteor"]["jar"] == "meteor.jar"
    assert f"recall {100 * wanted['recall']:.1f}" in printed and "SODA (METEOR)" in printed
    page = (out / "index.html").read_text()
    pictures = re.findall(r'src="([^"]+webp)"', page)
    assert len(pictures) == 8 and all((out / picture).is_file() for picture in pictures) and "http" not in page
    assert page.count('class="track truth"') == 8 and rows[0]["spans"][0]["text"] in page


def test_films_become_lines_and_subtitles(run, tiny_data, tmp_path, capsys):
    videos = tiny_data.parent / "videos"
    files = [str(videos / Records(tiny_data).rows("test")[i]["file"]) for i in (0, 1)]
    argv = [str(run), *files, "--dense", "--subtitles", str(tmp_path / "srt"), "--workers", "1", *CUT]
    assert main([*argv, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == files and all(len(line["events"]) >= 1 for line in lines)
    for file, line in zip(files, lines, strict=True):
        said = read_subtitles(tmp_path / "srt" / f"{file.rsplit('/', 1)[1].removesuffix('.mp4')}.srt")
        shown = [one for one in line["events"] if one["caption"].strip()]
        assert [one.text for one in said] == [" ".join(one["caption"].split()) for one in shown]
        assert [one.start_s for one in said] == pytest.approx([one["start_s"] for one in shown], abs=1e-3)
        assert [one.end_s for one in said] == pytest.approx([one["end_s"] for one in shown], abs=1e-3)
    with pytest.raises(UserError, match=r"--subtitles would replace .*\.srt; move it away"):
        main(argv)
    assert main([str(run), files[0], "--dense", "--workers", "1", *CUT]) == 0
    printed = capsys.readouterr().out
    assert "start" in printed and "0:00.0" in printed and lines[0]["events"][0]["caption"] in printed


def test_captions_with_line_breaks_do_not_cut_subtitles(tmp_path):
    event = {"start_s": 1.0, "end_s": 2.0, "score": 0.0}
    events = [event | {"caption": "a\n\nb"}, event | {"caption": " "}]
    write_event_subtitles(tmp_path / "new" / "a.srt", events=events)
    assert (tmp_path / "new" / "a.srt").read_text() == "1\n00:00:01,000 --> 00:00:02,000\na b\n"


def test_mistakes_are_named(run, tiny_data, tmp_path):
    film = tmp_path / "a.mp4"
    film.write_bytes(b"no film")
    data = ["--data", str(tiny_data)]
    for argv, message in (
        ([str(film), "--most", "3"], "--most is about events; add --dense"),
        ([*data, "--subtitles", "x"], "--subtitles is about events; add --dense"),
        ([*data, "--dense", "--subtitles", "x"], "--subtitles goes with media files; with --data give --out DIR"),
        ([str(film), "--dense", "--out", "x"], "--out goes with --data; .* --dense --subtitles DIR"),
        ([str(tmp_path / "b.mp4"), "--dense"], r"1 of 1 films are no files: .*b\.mp4"),
        ([str(film), "--dense", "--most", "0"], "most=0 events; wanted at least 1"),
        ([str(film), "--dense", "--longest", "1"], "longest_s=1 of events with shortest_s=1; wanted at least twice"),
        ([str(film), "--dense", "--subtitles", "s3://x/y"], "--subtitles must be a folder in the file system"),
        ([str(film), "--dense", "--workers", "1"], r"a\.mp4 cannot be read: "),
        ([*data, "--dense", "--split", "tset"], "did you mean 'test'"),
    ):
        with pytest.raises(UserError, match=message):
            main([str(run), *argv])


def test_models_and_data_that_will_not_do_are_named(run, tmp_path, media, tiny_data):
    media.write(tmp_path / "a.mp4", media.grey(20, 200, 20, 200))
    (tmp_path / "m.jsonl").write_text(
        json.dumps(
            {
                "clip_id": "a",
                "path": "a.mp4",
                "captions": ["a"],
                "split": "test",
                "spans": [{"start_s": 0.0, "end_s": 0.4, "label": "grey"}],
            }
        )
    )
    prepare(tmp_path / "m.jsonl", out=tmp_path / "data", workers=1)
    with pytest.raises(UserError, match=r"no clip of split 'test' in .* has a span with a text .* leave --dense out"):
        main([str(run), "--data", str(tmp_path / "data"), "--dense"])
    drawn_encoder().save(tmp_path / "towers")
    with pytest.raises(UserError, match="has no captioning head, so it writes no captions; train one with"):
        main([str(tmp_path / "towers"), "--data", str(tiny_data), "--dense"])


def test_clips_that_cannot_be_read_are_counted(run, tiny_data, monkeypatch):
    from twinreel.encode.films.events import EventOptions
    from twinreel.encode.predict.captioner import load_captioner
    from twinreel.encode.predict.dense_captioner import DenseCaptioner

    read = Records.read

    def damaged(self, split, indices):
        return [
            b"\xff\xff" if index == 2 else record
            for index, record in zip(indices, read(self, split, indices), strict=True)
        ]

    monkeypatch.setattr(Records, "read", damaged)
    dense = DenseCaptioner(load_captioner(run, options={"max_tokens": 8}), options=EventOptions(most=1))
    results = caption_events_of_split(dense, data=tiny_data, batch_size=8)
    assert results["protocol"]["damaged"] == 1 and len(results["clips"]) == 7
    assert all(len(clip["events"]) == 1 for clip in results["clips"])
