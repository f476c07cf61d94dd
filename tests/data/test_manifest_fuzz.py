"""Whatever stands in a manifest or a CSV file: clips, or a UserError that names the place; never another exception."""

import json

import hypothesis
import pytest
from hypothesis import strategies as st

from twinreel.base.errors import UserError
from twinreel.data.manifest import FIELDS, read_manifest, to_json, write_manifest
from twinreel.data.sources.read import read_source

SETTINGS = {"max_examples": 150, "deadline": None, "suppress_health_check": list(hypothesis.HealthCheck)}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
LINES = st.lists(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=4), JSON, max_size=6), max_size=4)
SENTENCE = b'{"start_s": 0, "end_s": 1, "text": "x"}'
GOOD = b'{"clip_id": "a", "path": "a.mp4", "captions": ["a dog"], "sentences": [' + SENTENCE + b"]}\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def check_clips_or_error(path):
    """Read; what is read can be written, and is then read the same."""
    try:
        clips = read_manifest(path)
    except UserError as error:
        assert path.name in str(error)
        return
    again = path.with_name("again.jsonl")
    write_manifest(again, clips=clips)
    assert [to_json(clip) for clip in read_manifest(again)] == [to_json(clip) for clip in clips]


@hypothesis.settings(**SETTINGS)
@hypothesis.given(content=st.binary(max_size=300))
def test_any_bytes(place, content):
    path = place / "bytes.jsonl"
    path.write_bytes(content)
    check_clips_or_error(path)


@hypothesis.settings(**SETTINGS)
@hypothesis.given(lines=LINES)
def test_any_fields_of_any_type(place, lines):
    path = place / "fields.jsonl"
    path.write_text("\n".join(json.dumps({"clip_id": f"{i}", "path": "p"} | line) for i, line in enumerate(lines)))
    check_clips_or_error(path)


@hypothesis.settings(**SETTINGS)
@hypothesis.given(at=st.integers(0, len(GOOD) - 1), byte=st.integers(0, 255), cut=st.integers(0, len(GOOD)))
def test_a_good_line_with_a_byte_changed_and_an_end_cut_off(place, at, byte, cut):
    path = place / "changed.jsonl"
    path.write_bytes((GOOD[:at] + bytes([byte]) + GOOD[at + 1 :])[:cut])
    check_clips_or_error(path)


@hypothesis.settings(**SETTINGS)
@hypothesis.given(body=st.binary(max_size=200) | st.text(alphabet='ab",;\n\r\t 0.5', max_size=60).map(str.encode))
def test_any_bytes_in_a_csv(place, body):
    path = place / "clips.csv"
    path.write_bytes(b"path,caption,start_s,end_s\n" + body)
    try:
        found = read_source(path)
    except UserError as error:
        assert "clips.csv" in str(error)
        return
    for clip in found.clips:
        assert clip.path and json.dumps(to_json(clip), allow_nan=False)
        assert clip.end_s is None or clip.end_s > (clip.start_s or 0) >= 0 or "refused" in clip.meta


@pytest.mark.parametrize(
    "line",
    [
        '{"clip_id": "a", "path": "a", "spans": [{"start_s": ' + "9" * 400 + ', "end_s": 1, "text": "x"}]}',
        "[" * 100_000,  # deeper than the parser goes
        '{"clip_id": "a", "path": "a", "start_s": ' + "9" * 5000 + "}",  # longer than Python turns into a number
        '{"clip_id": "a", "path": "a", "meta": {"x": NaN}}',  # could not be written again
        '{"clip_id": "a", "path": "a", "meta": {"x": "\\ud800"}}',
    ],
)
def test_cases_that_failed_once(place, line):
    path = place / "once.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=r"once\.jsonl, line 1"):
        read_manifest(path)
