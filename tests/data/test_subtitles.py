"""Subtitle files: what is read, and what is written of a window."""

from twinreel.data.clip import Sentence
from twinreel.data.subtitles import read_subtitles, write_srt

VTT = """WEBVTT
Kind: captions

NOTE not said

intro
00:01.000 --> 00:02.500 align:start position:0%
<v Ann>Hello &amp; welcome</v>
to this

00:03.000 --> 00:02.000
backwards

01:00:00.000 --> 01:00:01.000
late
"""


def test_web_vtt_and_subrip(tmp_path):
    (tmp_path / "a.vtt").write_text(VTT)
    want = [(1.0, 2.5, "Hello & welcome to this"), (3600.0, 3601.0, "late")]
    assert [(s.start_s, s.end_s, s.text) for s in read_subtitles(tmp_path / "a.vtt")] == want
    lines = ["2", "00:00:05,250 --> 00:00:06,000", "{\\an8}up", "", "1", "00:00:01,000 --> 00:00:02,000", "<b>down</b>"]
    (tmp_path / "a.srt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert [(s.start_s, s.text) for s in read_subtitles(tmp_path / "a.srt")] == [(1.0, "down"), (5.25, "up")]


def test_what_is_said_in_a_window_is_written_from_its_start(tmp_path):
    said = [Sentence(start_s=start, end_s=start + 2, text=f"at {start}") for start in (0.0, 9.5, 11.0, 30.0)]
    out = tmp_path / "cut.srt"
    assert write_srt(out, sentences=said, start_s=10.0, end_s=12.5) == 2
    found = read_subtitles(out)
    assert [(s.start_s, s.end_s, s.text) for s in found] == [(0.0, 1.5, "at 9.5"), (1.0, 2.5, "at 11.0")]
    assert write_srt(tmp_path / "none.srt", sentences=said, start_s=20.0, end_s=25.0) == 0
    assert not (tmp_path / "none.srt").exists()
