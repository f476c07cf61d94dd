"""The manifest: what is written is read back, and each fault is named with line, field, value and remedy."""

import json

import pytest

from twinreel.base.errors import UserError
from twinreel.data.manifest import Clip, Question, Sentence, Span, Word, read_manifest, write_manifest

SPAN = {"start_s": 1, "end_s": 2.5, "text": "a dog jumps"}
GOOD = {"clip_id": "a", "path": "v/a.mp4", "captions": ["a dog runs"], "split": "train"}
SAID = {"start_s": 0, "end_s": 1, "text": "so"}


def write(path, *lines):
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_round_trip_keeps_every_field_and_every_text(tmp_path):
    clips = [
        Clip(
            clip_id="ä/1",
            path="v/ä 1.mp4",
            captions=("word " * 10_000, "一只狗在雪地里奔跑", "", ' "quoted"\nnext line '),
            split="val_2",
            start_s=1.25,
            end_s=2.5,
            labels=("run", "dog"),
            spans=(
                Span(start_s=0.0, end_s=2.0, label="run", score=0.0),
                Span(start_s=1.5, end_s=9.0, text="the dog jumps", score=-1.5),
            ),
            questions=(
                Question(question="Who runs?", answers=("a dog", "dog")),
                Question(question="Why?"),
                Question(options=("a dog", "a cat"), correct=0),
                Question(question="What colour?", options=("red", "blue")),
            ),
            transcript="good dog",
            sentences=(
                Sentence(start_s=0.0, end_s=1.5, text="good", words=(Word(start_s=0.25, end_s=1.5, text="good"),)),
                Sentence(start_s=1.0, end_s=3.0, text="dog"),
            ),
            features={"rgb": "f/a.npy"},
            meta={"group": "pair7", "n": [1, {"x": None}]},
        ),
        Clip(clip_id="b", path="b.mp4"),
        Clip(clip_id="c", path="", features={"audio": "c.npy"}),
    ]
    write_manifest(tmp_path / "new" / "m.jsonl", clips=clips)
    assert read_manifest(tmp_path / "new" / "m.jsonl") == clips
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["m.jsonl"]
    assert "一只狗" in (tmp_path / "new" / "m.jsonl").read_text(encoding="utf-8")


def test_group_comes_from_meta():
    assert Clip(clip_id="a", path="a", meta={"group": "g"}).group == "g"
    assert Clip(clip_id="a", path="a").group == ""


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.jsonl"
    write_manifest(path, clips=[Clip(clip_id="a", path="a.mp4")])
    before = path.read_bytes()

    def clips():
        yield Clip(clip_id="b", path="b.mp4")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_manifest(path, clips=clips())
    assert path.read_bytes() == before


def test_byte_order_mark_windows_line_ends_and_blank_lines_are_no_fault(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n")
    assert [clip.clip_id for clip in read_manifest(path)] == ["a"]


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ({**GOOD, "start": 1}, ["line 2", "unknown field 'start'", "did you mean 'start_s'"]),
        ({**GOOD, "colour": 1}, ["unknown field 'colour'", "under `meta`"]),
        ({"path": "a.mp4"}, ["field 'clip_id'", "missing"]),
        ({**GOOD, "path": ""}, ["field 'path'", "''"]),
        ({**GOOD, "captions": "a dog"}, ["field 'captions'", "'a dog'", "list of strings"]),
        ({**GOOD, "captions": [1]}, ["field 'captions'", "[1]"]),
        ({**GOOD, "split": "Train set"}, ["field 'split'", "'Train set'", "lower case"]),
        ({**GOOD, "split": "all"}, ["field 'split'", "'all'"]),
        ({**GOOD, "start_s": "soon"}, ["field 'start_s'", "'soon'", "12.5", "00:01:02.5"]),
        ({**GOOD, "start_s": True}, ["field 'start_s'", "True"]),
        ({**GOOD, "sentences": ["so"]}, ["field 'sentences[0]'", "'so'", "start_s"]),
        ({**GOOD, "sentences": [{"start_s": 2, "end_s": 1, "text": "so"}]}, ["'sentences[0]'", "end_s after it"]),
        ({**GOOD, "sentences": [{"start_s": 0, "end_s": 1, "text": ""}]}, ["'sentences[0].text'", "what is said"]),
        ({**GOOD, "sentences": [{**SAID, "words": "so"}]}, ["'sentences[0].words'", "a list of words"]),
        ({**GOOD, "sentences": [{**SAID, "words": [[0.5, "so"]]}]}, ["'sentences[0].words[0]'", "their times"]),
        ({**GOOD, "sentences": [{**SAID, "words": [[0.5, 0.5, "so"]]}]}, ["'sentences[0].words[0]'", "end after"]),
        ({**GOOD, "sentences": [{**SAID, "words": [["x", 1, "so"]]}]}, ["'sentences[0].words[0]'", "'x'"]),
        ({**GOOD, "spans": {}}, ["field 'spans'", "{}", "a list of objects", '"label" or "text"']),
        ({**GOOD, "spans": [{"start_s": 0, "end_s": 1}]}, ["field 'spans[0]'", "a label or a text"]),
        ({**GOOD, "spans": [SPAN, {**SPAN, "end_s": 1}]}, ["field 'spans[1]'", "an end_s after it"]),
        ({**GOOD, "spans": [{**SPAN, "start_s": -1}]}, ["field 'spans[0].start_s'", "-1", "0 or more"]),
        ({**GOOD, "spans": [{**SPAN, "end_s": float("nan")}]}, ["field 'spans[0].end_s'", "nan"]),
        ({**GOOD, "spans": [{**SPAN, "score": "high"}]}, ["field 'spans[0].score'", "'high'", "a finite number"]),
        ({**GOOD, "spans": [{**SPAN, "score": float("inf")}]}, ["field 'spans[0].score'", "inf"]),
        ({**GOOD, "spans": [{**SPAN, "caption": "x"}]}, ["field 'spans[0]'", "'caption'", '"text"']),
        ({**GOOD, "questions": ["Who?"]}, ["field 'questions[0]'", "'Who?'", '"answers"']),
        ({**GOOD, "questions": [{"question": " "}]}, ["field 'questions[0].question'", "' '"]),
        ({**GOOD, "questions": [{"answers": ["a"]}]}, ["'questions[0]'", '"options"']),
        ({**GOOD, "questions": [{"options": ["a"]}]}, ["'questions[0].options'", "two texts or more"]),
        ({**GOOD, "questions": [{"options": ["a", " "]}]}, ["'questions[0].options'", "none of them blank"]),
        ({**GOOD, "questions": [{"options": ["a", "b"], "correct": 2}]}, ["'questions[0].correct'", "is 2", "0 to 1"]),
        ({**GOOD, "questions": [{"options": ["a", "b"], "correct": True}]}, ["'questions[0].correct'", "0 to 1"]),
        ({**GOOD, "questions": [{"question": "a?", "correct": 0}]}, ["'questions[0].correct'", "without options"]),
        ({**GOOD, "questions": [{"question": "Who?", "answers": "a dog"}]}, ["'questions[0].answers'", "list of str"]),
        ({**GOOD, "features": "a.npy"}, ["field 'features'", "'a.npy'", "modality"]),
        ({**GOOD, "features": {"RGB": "a.npy"}}, ["field 'features'", "lower case"]),
        ({**GOOD, "meta": []}, ["field 'meta'", "[]", "JSON object"]),
        ({**GOOD, "meta": {"group": 7}}, ["field 'meta.group'", "7"]),
        ({**GOOD, "meta": {"foils": ["a red disc"]}}, ["field 'meta.foils'", "['a red disc']", "an object"]),
        ({**GOOD, "captions": ["x"], "meta": {"foils": {"colour": 1}}}, ["field 'meta.foils'", "caption"]),
        ({**GOOD, "captions": [], "meta": {"foils": {"colour": "x"}}}, ["field 'meta.foils'", "a clip with captions"]),
        ({**GOOD, "captions": ["\ud800"]}, ["field 'captions'", "surrogate"]),
        ("{not json", ["is not JSON", "'{not json'"]),
        ("[1, 2]", ["[1, 2]", "wanted a JSON object"]),
        ('{"clip_id": "b", "path": "b", "split": "val", "split": "train"}', ["key 'split'", "twice", "remove one"]),
        ('{"clip_id": "b", "path": "b", "meta": {"a": 1, "a": 2}}', ["key 'a'", "twice"]),
        ({"file_name": "a.mp4", "text": "x"}, ["unknown field 'file_name'", "did you mean 'path'"]),
        ({**GOOD, "title": "x"}, ["unknown field 'title'", "did you mean 'captions'"]),
        (GOOD, ["clip_id 'a' is that of line 1", "own clip_id"]),
    ],
)
def test_fault_is_named(tmp_path, line, parts):
    first = {**GOOD, "clip_id": "a" if line == GOOD else "first"}
    path = write(tmp_path / "m.jsonl", first, line)
    with pytest.raises(UserError) as error:
        read_manifest(path)
    for part in [str(path), "line 2", *parts]:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [
        (2, 2, "end_s=2 is not after start_s=2"),
        (3, 1.5, "end_s=1.5 is not after start_s=3"),
        (None, 0, "end_s=0 is not after start_s=0"),
        (-1, 2, "start_s=-1, wanted seconds"),
        (float("nan"), 2, "start_s=nan, wanted seconds"),
        (0, float("nan"), "end_s=nan, wanted seconds"),
        (0, float("inf"), "end_s=inf, wanted seconds"),
        (10**400, None, "start_s=inf, wanted seconds"),
        ("00:01:02", "1:02", "end_s=62 is not after start_s=62"),
    ],
)
def test_impossible_window_is_the_fault_of_one_clip(tmp_path, start, end, reason):
    path = write(tmp_path / "m.jsonl", GOOD, {**GOOD, "clip_id": "b", "start_s": start, "end_s": end})
    good, bad = read_manifest(path)
    assert "refused" not in good.meta
    assert (bad.start_s, bad.end_s) == (None, None)
    assert bad.meta["refused"].startswith(f"impossible window: {reason}")
    assert bad.meta["refused"].endswith("(m.jsonl, line 2)")
    write_manifest(tmp_path / "again.jsonl", clips=[good, bad])
    assert read_manifest(tmp_path / "again.jsonl") == [good, bad]


def test_times_as_hours_minutes_and_seconds(tmp_path):
    stretch = {"start_s": "0:01.5", "end_s": "00:00:02,250", "text": "x"}
    line = {**GOOD, "start_s": "00:01:00.5", "end_s": "1:01:01", "sentences": [stretch], "spans": [stretch]}
    [clip] = read_manifest(write(tmp_path / "m.jsonl", line))
    assert (clip.start_s, clip.end_s) == (60.5, 3661.0)
    assert clip.sentences == (Sentence(start_s=1.5, end_s=2.25, text="x"),)
    assert clip.spans == (Span(start_s=1.5, end_s=2.25, text="x"),)


def test_faults_of_all_lines_are_reported_together(tmp_path):
    good = [{**GOOD, "clip_id": f"{n}"} for n in range(3000)]
    bad = [{**line, "split": "Train"} for line in good[1000:2000]]
    path = write(tmp_path / "m.jsonl", *good[:1000], *bad, "{", *good[2000:], {**GOOD, "clip_id": "7"})
    with pytest.raises(UserError) as error:
        read_manifest(path)
    message = str(error.value)
    assert message.startswith(f"{path} has 1,002 faults:")
    assert message.count("\n") == 21 and message.endswith("and 982 more")
    assert "line 1001: field 'split' is 'Train', wanted a name such as train, val or test ('train'?)" in message


def test_long_values_are_cut_in_messages(tmp_path):
    path = write(tmp_path / "m.jsonl", {**GOOD, "captions": "word " * 10_000})
    with pytest.raises(UserError) as error:
        read_manifest(path)
    assert len(str(error.value)) < 400


def test_missing_empty_and_undecodable_files(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="has no clip"):
        read_manifest(write(tmp_path / "m.jsonl", ""))
    (tmp_path / "l.jsonl").write_bytes('{"clip_id": "ä"}'.encode("latin-1"))
    with pytest.raises(UserError, match="line 1: is not UTF-8"):
        read_manifest(tmp_path / "l.jsonl")


@pytest.mark.real
def test_real_manifest(real_dir):
    clips = read_manifest(real_dir / "clips.jsonl")
    assert len(clips) == 609
    assert {clip.split for clip in clips} == {"train", "test"}
