"""Decoding processes: order, crashes, hangs, limits."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
import simplejpeg

from twinreel.base.errors import UserError
from twinreel.data.media.decode import DecodeError, DecodeOptions
from twinreel.data.media.limits import Alarm, Limits, check_limits
from twinreel.data.media.workers import Job, decode_in_order

EVERY = DecodeOptions(fps=None, short_side=0)
LEVELS = tuple(range(10, 250, 10))  # 24 frames that can be told apart


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bomb(DecodeOptions):
    """Ends the process that receives it, as a crash of a decoder would: it knows no such option."""

    bomb: int = 1


def test_workers_keep_the_order_and_survive_a_crash(tmp_path, media):
    paths = [media.write(tmp_path / f"{n}.mp4", media.grey(*LEVELS[: n + 1])) for n in range(9)]
    jobs = [Job(path=path, options=EVERY) for path in paths]
    jobs[4] = Job(path=paths[4], options=Bomb())
    jobs.insert(2, DecodeError("no caption"))
    results = list(decode_in_order(jobs, workers=2))
    assert [str(r) if isinstance(r, DecodeError) else len(r.encoded) for r in results] == [
        *(1, 2, "no caption", 3, 4, "the decoder crashed: exit status 1", 6, 7, 8, 9)
    ]


def test_workers_that_are_left_early_end(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS))
    results = decode_in_order((Job(path=path, options=EVERY) for _ in range(1000)), workers=2)
    assert len(next(results).encoded) == 24
    results.close()


FAKE = """
import ctypes, os
import numpy as np
held = []
def encode_jpeg(rgb, *, quality, **_):
    if quality == 13:
        ctypes.PyDLL(None).pause()  # in C, with the interpreter's lock: only a signal ends it
    if quality == 14:
        os.abort()
    if quality == 15:
        held.append(np.ones(3 * 2**28, np.uint8))
    return JPEG + b"process %d" % os.getpid()
def decode_jpeg(data, *_, **__):
    return np.zeros((32, 48, 1), np.uint8)
def decode_jpeg_header(data, *_, **__):
    return 32, 48, "YCbCr", "420"
"""


@pytest.fixture
def bad_encoder(tmp_path, monkeypatch):
    """In decoding processes, an encoder that hangs, crashes or eats memory at the qualities 13, 14, 15."""
    jpeg = simplejpeg.encode_jpeg(np.zeros((32, 48, 3), np.uint8))
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "simplejpeg.py").write_text(f"{FAKE}JPEG = {jpeg!r}\n")
    monkeypatch.syspath_prepend(tmp_path / "fake")


def outcomes(path, qualities, *, limits, workers=1):
    jobs = [Job(path=path, options=DecodeOptions(jpeg_quality=quality)) for quality in qualities]
    results = decode_in_order(jobs, workers=workers, limits=limits)
    return [str(r) if isinstance(r, DecodeError) else r.encoded[0].rpartition(b"process ")[2] for r in results]


@pytest.mark.usefixtures("bad_encoder")
def test_hang_crash_and_greed_reject_their_clip_alone(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS[:2]))
    limits = Limits(clip_timeout=1.5, clip_memory_gb=0.7)
    got = outcomes(path, [90, 13, 91, 14, 92, 15, 93], limits=limits)
    assert got[1] == "one second of it took longer than clip_timeout=1.5 s to decode"
    assert got[3] == "the decoder crashed: signal SIGABRT"
    assert got[5] == "needed more than clip_memory_gb=0.7 GB of memory"
    assert all(isinstance(got[n], bytes) for n in (0, 2, 4, 6))
    assert len({got[n] for n in (0, 2, 4, 6)}) == 4  # a new process after each


@pytest.mark.usefixtures("bad_encoder")
def test_processes_make_place_for_new_ones(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS[:2]))
    got = outcomes(path, [90] * 7, limits=Limits(recycle_after=3))
    assert [got.count(name) for name in dict.fromkeys(got)] == [3, 3, 1]
    assert len(set(outcomes(path, [90] * 7, limits=Limits(recycle_after=0)))) == 1


def test_alarm_goes_on_while_there_is_progress(monkeypatch):
    calls = []
    monkeypatch.setattr("signal.setitimer", lambda which, seconds: calls.append(seconds))
    with Alarm(7.0) as alarm:
        for time in (-3.0, -2.9, -2.0, -1.5, 0.0, 0.4, 0.9, 0.95, 1.2, -8.0, -7.5, -7.0):
            alarm.progress(time)
    assert calls == [*[7.0] * 7, 0]  # at the start, at -3, -2, 0, 1.2, and read anew at -8, -7; then off
    calls.clear()
    with Alarm(0) as alarm:
        alarm.progress(1.0)
    assert calls == []


@pytest.mark.parametrize("limits", [{"clip_timeout": -1}, {"clip_memory_gb": 0.1}, {"clip_timeout": float("nan")}])
def test_limits_that_make_no_sense(limits):
    with pytest.raises(UserError, match=f"--{next(iter(limits))} is .*, wanted 0 "):
        check_limits(**{"clip_timeout": 60.0, "clip_memory_gb": 4.0} | limits)
    check_limits(clip_timeout=0, clip_memory_gb=0)


def resident_mb(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_nothing_leaks(tmp_path, media):
    """Memory and descriptors of parent and processes after thousands of clips, good and bad, as after the first."""
    good = [media.write(tmp_path / f"{n}.{kind}", media.grey(*LEVELS[:3]), sound=media.tone(0.3)) for n, kind in
            enumerate(("mp4", "mkv", "avi"))]  # fmt: skip
    (tmp_path / "bad.mp4").write_bytes(good[0].read_bytes()[:700])
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    paths = [*good, tmp_path / "bad.mp4", tmp_path / "bad.png"]
    count = int(os.environ.get("TWINREEL_LEAK_CLIPS", "4000"))
    jobs = (Job(path=paths[n % len(paths)], options=DecodeOptions(short_side=24)) for n in range(count))
    seen, others = [], set(psutil.Process().children())  # what other tests have started
    for n, _ in enumerate(decode_in_order(jobs, workers=1, limits=Limits(recycle_after=0)), start=1):
        if n in (count // 4, count // 2, count):
            [child] = set(psutil.Process().children()) - others
            seen.append((resident_mb(os.getpid()), resident_mb(child.pid), psutil.Process().num_fds(), child.num_fds()))
            print(n, seen[-1])
    first, _, last = seen
    assert last[0] - first[0] < 8 and last[1] - first[1] < 8, seen  # MB
    assert last[2] == first[2] and abs(last[3] - first[3]) <= 3, seen  # the process may have a file open just then
