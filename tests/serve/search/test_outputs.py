"""Files of hits, read back by other libraries or by hand; cut films against the frames of their source."""

import csv
import dataclasses
import importlib.util
import json

import pytest

from twinreel.base.errors import UserError
from twinreel.data.subtitles import read_subtitles
from twinreel.serve.search.collection import Collection, FileInfo
from twinreel.serve.search.cutlists import edl_text
from twinreel.serve.search.engine import Hit, Results, Span
from twinreel.serve.search.export import export_hits
from twinreel.serve.search.outputs import write_results
from twinreel.serve.search.query import Term

TERMS = [Term(kind="text", value='a "dog"')]


def hit(path, *spans, fps=25.0, **fields):
    values = {"start_s": None, "duration_s": 60.0, "height": 4, "width": 4, "has_audio": True, "mtime_ns": 0}
    values |= {"captions": ("a, caption",), "labels": ("x",), **fields}
    found = tuple(Span(start_s=start, end_s=end, score=score) for start, end, score in spans)
    file = FileInfo(id=1, path=path, fps=fps, **values)
    return Hit(file=file, moment=1, score=found[0].score, spans=found, strip=found, terms=(0.5,))


HITS = (
    hit("/v/a b.mp4", (10.0, 12.5, 0.9), (2.0, 3.0, 0.8)),
    hit("/v/c.mp4", (0.0, 1.0, 0.7), fps=50.0, has_audio=False),
    hit("/v/d.png", (0.0, 0.04, 0.6), fps=None),
)
RESULTS = Results(hits=HITS, unit="cosine", search="NumPy (exact)", moments=9, seconds=0.01)


def written(tmp_path, suffix):
    write_results(tmp_path / f"x{suffix}", results=RESULTS, terms=TERMS)
    return (tmp_path / f"x{suffix}").read_text()


def test_json_and_csv(tmp_path):
    found = json.loads(written(tmp_path, ".json"))
    assert found["query"] == ['"a "dog""'] and [one["path"] for one in found["hits"]] == [h.file.path for h in HITS]
    assert found["hits"][0]["spans"][1] == {"start_s": 2.0, "end_s": 3.0, "score": 0.8}
    rows = list(csv.DictReader(written(tmp_path, ".csv").splitlines()))
    assert [(row["rank"], row["path"], row["start_s"], row["end_s"]) for row in rows] == [
        ("1", "/v/a b.mp4", "10.000", "12.500"),
        ("1", "/v/a b.mp4", "2.000", "3.000"),
        ("2", "/v/c.mp4", "0.000", "1.000"),
        ("3", "/v/d.png", "0.000", "0.040"),
    ]
    assert rows[0]["caption"] == "a, caption"


def test_playlist(tmp_path):
    lines = written(tmp_path, ".m3u").splitlines()
    assert lines[:5] == [
        *("#EXTM3U", "#EXTINF:2,a b.mp4 0:10.0", "#EXTVLCOPT:start-time=10.000", "#EXTVLCOPT:stop-time=12.500"),
        "/v/a b.mp4",
    ]
    assert len(lines) == 1 + 4 * 4


def test_edit_decision_list(tmp_path):
    """Source and record times are of the same length, and the record has no gap; pictures are left out."""
    lines = written(tmp_path, ".edl").splitlines()
    events = [line.split() for line in lines if line[:3].isdigit()]
    assert [(event[2], event[4:]) for event in events] == [
        ("AA/V", ["00:00:02:00", "00:00:03:00", "00:00:00:00", "00:00:01:00"]),
        ("AA/V", ["00:00:10:00", "00:00:12:12", "00:00:01:00", "00:00:03:12"]),
        ("V", ["00:00:00:00", "00:00:01:00", "00:00:03:12", "00:00:04:12"]),
    ]
    assert "* FROM CLIP NAME: a b.mp4" in lines and lines[1] == "FCM: NON-DROP FRAME"
    assert edl_text([], title="x\ny").splitlines()[0] == "TITLE: x y"


@pytest.mark.skipif(importlib.util.find_spec("opentimelineio") is None, reason="OpenTimelineIO is not installed")
def test_open_timeline_io(tmp_path):
    import opentimelineio as otio

    timeline = otio.adapters.read_from_string(written(tmp_path, ".otio"), "otio_json")
    clips = list(timeline.find_clips())
    ranges = [clip.source_range for clip in clips]
    assert [(r.start_time.value, r.duration.value, r.start_time.rate) for r in ranges] == [
        *((50, 25, 25), (250, 62, 25), (0, 50, 50))
    ]
    assert clips[0].media_reference.target_url == "file:///v/a%20b.mp4"
    assert clips[0].available_range().duration.to_seconds() == 60
    plain = json.loads((tmp_path / "x.otio").read_text())
    assert plain["OTIO_SCHEMA"].startswith("Timeline.") and len(plain["tracks"]["children"][0]["children"]) == 3


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"hits are written as \.json, \.csv"):
        write_results(tmp_path / "x.xml", results=RESULTS, terms=TERMS)


def test_export_with_subtitles(library, films, tmp_path):
    ramp = str(films / "long" / "ramp.mp4")
    with Collection(library) as collection:
        (file,) = (one for one in collection.files(range(1, 9)).values() if one.path == ramp)
        found = dataclasses.replace(hit(ramp, (19.0, 22.0, 0.9), (30.0, 31.0, 0.5)), file=file)
        broken = hit(str(films / "notes.txt"), (0.0, 1.0, 0.4))
        ticks = []
        made, failed = export_hits(
            [found, broken, HITS[2]],
            collection=collection,
            folder=tmp_path / "out",
            subtitles=True,
            tick=lambda: ticks.append(0),
        )
    assert [path.name for path in made] == ["001-ramp-19.00-22.00.mp4", "001-ramp-30.00-31.00.mp4"]
    assert len(failed) == 1 and "notes.txt: cannot be opened" in failed[0] and len(ticks) == 3
    (said,) = read_subtitles(tmp_path / "out" / "001-ramp-19.00-22.00.srt")
    assert (said.start_s, said.end_s, said.text) == (1.0, 2.5, "half way there")
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".mp4", ".mp4", ".srt"]
