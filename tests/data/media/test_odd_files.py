"""Real files, good and odd: what becomes of each, and every kept frame against PyAV's own conversion."""

import importlib.util
import json
from pathlib import Path

import av
import numpy as np
import pytest

from twinreel.data.media.alpha import has_alpha
from twinreel.data.media.decode import DecodeError, DecodeOptions, decode_clip, read_rgb
from twinreel.data.media.workers import Job, decode_in_order

pytestmark = pytest.mark.real
GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def table():
    return json.loads((GOLDEN / "odd_files.json").read_text(encoding="utf-8"))


def test_odd_files_become_what_the_table_says(real_dir, table):
    """The table (see the script that makes it) was checked by eye, file by file."""
    spec = importlib.util.spec_from_file_location("make_odd_files", GOLDEN / "make_odd_files.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    files = sorted((real_dir / "odd").iterdir())
    assert [path.name for path in files] == list(table)
    jobs = [Job(path=path, options=make.OPTIONS) for path in files]
    results = dict(zip(table, decode_in_order(jobs, workers=2), strict=True))
    got = {name: make.row(result) for name, result in results.items()}
    assert got == table
    for clip in results.values():
        if not isinstance(clip, DecodeError):
            assert clip.timestamps_s[0] == 0 and (np.diff(clip.timestamps_s) > 0).all()
            assert clip.audio is None or len(clip.audio) == round(clip.duration_s * 16_000)


def test_odd_files_lose_frames_only_where_it_is_told(real_dir, table):
    """The number of frames is that of a plain decode of all packets, as the list of the files has it."""
    probes = {
        Path(row["path"]).name: row
        for row in map(json.loads, (real_dir / "odd.jsonl").read_text(encoding="utf-8").splitlines())
    }
    for name, row in table.items():
        decoded = probes[name]["probe"].rpartition("decoded=")[2]
        if "rejected" not in row and decoded.isdigit():
            assert row["frames"] == int(decoded), name


def shown_until(path, end_s):
    """`(seconds from the first, rgb24 by PyAV)` up to a time: pictures in the decoder's order, stamps in theirs."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        frames = []
        for frame in container.decode(stream):
            frames.append(frame)
            if float((frame.pts - frames[0].pts) * frame.time_base) > end_s + 0.2:
                break
    stamps = sorted(float(frame.pts * frame.time_base) for frame in frames)
    pairs = [(stamp - stamps[0], frame) for stamp, frame in zip(stamps, frames, strict=True)]
    return [(time, frame.to_ndarray(format="rgb24")) for time, frame in pairs if time < end_s - 1e-3]


def is_plain(path):
    """Whether pictures need no turning, no new shape, no other colours and no background."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        clear = stream.metadata.get("alpha_mode") == "1" or has_alpha(frame.format.name)
        shape = (stream.sample_aspect_ratio or 1) == 1 and frame.rotation == 0
        return shape and frame.color_trc not in (16, 18) and not clear


def equal_frames(path, fps, end_s=0.4):
    kept = read_rgb(path, options=DecodeOptions(fps=fps, short_side=0, audio=False), end_s=end_s)
    expected = shown_until(path, end_s)
    for time, rgb in kept:
        np.testing.assert_array_equal(rgb, [raw for stamp, raw in expected if stamp <= time + 1e-3][-1], str(path))
    if not fps:
        assert [time for time, _ in kept] == pytest.approx([stamp for stamp, _ in expected], abs=1e-6)
    else:
        grid = [point / fps for point in range(int(end_s * fps) + 1) if point / fps < end_s - 1e-3]
        stamps = [stamp for stamp, _ in expected]
        wanted = {max(stamp for stamp in stamps if stamp <= point + 1e-3) for point in grid if point <= stamps[-1]}
        assert {round(time, 4) for time, _ in kept} >= {round(time, 4) for time in wanted}
    return len(kept)


def test_frames_of_odd_files_are_those_of_pyav(real_dir, table):
    compared = 0
    for name, row in table.items():
        path = real_dir / "odd" / name
        if "rejected" not in row and is_plain(path):
            compared += equal_frames(path, None) > 0
    assert compared > 30


def test_frames_of_real_clips_are_those_of_pyav(real_dir):
    for index, path in enumerate(sorted((real_dir / "clips").glob("*.mp4"))[::20]):
        assert is_plain(path)
        equal_frames(path, (None, 3, 8)[index % 3], end_s=2.0)


def test_broken_stamps_are_sorted(real_dir):
    path = real_dir / "odd" / "mmaction2__test.avi"  # its stamps go backwards
    clip = decode_clip(path, options=DecodeOptions(fps=None, short_side=32))
    assert clip.timestamps_s[:5] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
