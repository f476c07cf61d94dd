"""Films as windows: the same from any stretches, in bounded memory, and from files of several stretches."""

import dataclasses
import weakref

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.media.clip import DecodedClip
from twinreel.data.options import InputSpec
from twinreel.encode.media import film_windows as module
from twinreel.encode.media.film_windows import Cutter, clip_windows, film_windows
from twinreel.encode.media.windows import Windows

FPS = 4


def film(seconds, *, start=0.0):
    """Frames named by their number, `FPS` a second."""
    count = round(seconds * FPS)
    times = (np.arange(count) / FPS).astype(np.float32)
    names = [str(round(start * FPS) + i).encode() for i in range(count)]
    return DecodedClip(encoded=names, timestamps_s=times, height=8, width=8, audio=None, duration_s=seconds)


def cut(parts, *, seconds):
    cutter, start, found = Cutter(film=3, seconds=seconds), 0.0, []
    for part in parts:
        found += cutter.add(film(part, start=start))
        start += part
    return [*found, *cutter.finish()]


def told(window):
    names = [int(name) for name in window.clip.encoded]
    return window.start_s, window.fresh_s, window.end_s, names[0], names[-1], len(names), window.last


@pytest.mark.parametrize("parts", [(7.25,), (3.0, 4.25), (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.25), (0.25, 7.0)])
def test_windows_do_not_depend_on_the_stretches(parts):
    found = [told(window) for window in cut(parts, seconds=2.0)]
    assert found[:3] == [(0, 0, 2, 0, 7, 8, False), (2, 2, 4, 8, 15, 8, False), (4, 4, 6, 16, 23, 8, False)]
    assert found[3:] == [(5.25, 6, 7.25, 21, 28, 8, True)]  # reaches back, so that it is as long as the others


def test_ends_of_films():
    assert [told(window) for window in cut((4.0,), seconds=2.0)][-1] == (2, 2, 4, 8, 15, 8, True)
    assert [told(window) for window in cut((1.5,), seconds=2.0)] == [(0, 0, 1.5, 0, 5, 6, True)]
    numbered = clip_windows([(5, film(1.0)), (9, film(3.0))], seconds=2.0)
    assert [(window.film, window.start_s, window.last) for window in numbered] == [
        (5, 0, True),
        (9, 0, False),
        (9, 1, True),
    ]


class Frame:
    """Can be counted."""

    def __init__(self, name):
        self.name = name


def test_memory_does_not_grow_with_the_film():
    """Frames at hand, counted as they live, are those of a stretch and two windows."""
    most = []
    for length in (20, 200):
        live, peak, count = weakref.WeakSet(), 0, 0

        def stretch(number, live=live):
            part = film(5.0, start=5.0 * number)
            part = dataclasses.replace(part, encoded=[Frame(name) for name in part.encoded])
            live.update(part.encoded)
            return part

        cutter = Cutter(film=0, seconds=2.0)
        for number in range(length):
            for _ in cutter.add(stretch(number)):
                count, peak = count + 1, max(peak, len(live))
        assert count >= 5 * length / 2 - 2
        most.append(peak)
    assert most[0] == most[1] <= (5 + 3 * 2) * FPS + 2


def test_a_file_is_cut_as_the_whole_of_it(tmp_path, media, monkeypatch):
    """Stretches of a second each, decoded by processes, give the frames of the whole file."""
    path = media.write(tmp_path / "a.mp4", media.grey(*range(10, 230, 10), size=(16, 16)), fps=4)
    spec = InputSpec(num_frames=4, eval_video="resize_short(16)|center_crop(16)")
    [whole] = list(film_windows([path], spec=spec, seconds=30.0, workers=1))
    assert whole.last and whole.end_s == pytest.approx(5.5)
    monkeypatch.setattr(module, "_CHUNKS", Windows(seconds=59.0, overlap=58.0))
    found = list(film_windows([path, path], spec=spec, seconds=2.0, workers=1))
    for number in (0, 1):
        own = [window for window in found if window.film == number]
        assert [(window.start_s, window.last) for window in own] == [(0, False), (2, False), (3.5, True)]
        times = np.concatenate([own[0].clip.encoded, own[1].clip.encoded])
        assert len(times) == 16
        assert [*own[0].clip.encoded, *own[1].clip.encoded, *own[2].clip.encoded[-6:]] == whole.clip.encoded


def test_a_file_that_is_none_is_named(tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no film")
    with pytest.raises(UserError, match=r"bad\.mp4 cannot be decoded"):
        list(film_windows([bad], spec=InputSpec(num_frames=4), seconds=2.0, workers=1))
