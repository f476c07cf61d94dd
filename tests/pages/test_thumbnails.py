"""Pictures of clips: they move as their timestamps say, keep their order, and survive any caption."""

import base64
import io

import numpy as np
import pytest
from fakes import jpeg
from PIL import Image

from twinreel.pages.thumbnails import (
    LONGEST_S,
    SheetClip,
    clip_figure,
    jpeg_uri,
    write_contact_sheet,
    write_strip,
    write_webp,
)


def durations(path):
    with Image.open(path) as picture:
        found = []
        for k in range(picture.n_frames):
            picture.seek(k)
            picture.load()
            found.append(picture.info["duration"])
        return found


def test_frames_stand_as_long_as_their_timestamps_say(tmp_path):
    times = np.array([0.0, 0.5, 0.6, 1.6])
    write_webp(tmp_path / "a.webp", jpegs=[jpeg(v) for v in (0, 80, 160, 240)], timestamps_s=times)
    assert durations(tmp_path / "a.webp")[:3] == [500, 100, 1000]


def test_long_clips_are_thinned_and_played_faster(tmp_path):
    times = np.arange(100, dtype=np.float32)
    write_webp(tmp_path / "a.webp", jpegs=[jpeg(2 * v) for v in range(100)], timestamps_s=times)
    found = durations(tmp_path / "a.webp")
    assert len(found) == 24
    assert sum(found[:-1]) == pytest.approx(1000 * LONGEST_S, rel=0.01)


def test_one_frame_is_a_picture(tmp_path):
    write_webp(tmp_path / "a.webp", jpegs=[jpeg(9, size=(640, 480))], timestamps_s=np.zeros(1))
    with Image.open(tmp_path / "a.webp") as picture:
        assert picture.size == (192, 144)


def test_strips_show_the_order(tmp_path):
    write_strip(tmp_path / "s.webp", jpegs=[jpeg(40 * v) for v in range(6)], count=3, side=32)
    with Image.open(tmp_path / "s.webp") as picture:
        assert picture.size == (3 * 32 + 2, 24)
        grey = np.asarray(picture.convert("L"), dtype=int)[12]
    assert abs(grey[16] - 0) < 12
    assert grey[16] < grey[33 + 16] < grey[66 + 16]
    assert abs(grey[66 + 16] - 200) < 12


def test_a_contact_sheet_holds_all_clips(tmp_path):
    captions = ["", "a dog runs", "word " * 90, "x" * 5000, "狗" * 3000, "one two", "last"]
    clips = [SheetClip(jpeg=jpeg(30 * n), group="train", caption=caption) for n, caption in enumerate(captions)]
    clips[2] = SheetClip(jpeg=b"", group="train", caption="no frames")
    write_contact_sheet(tmp_path / "s.jpg", clips=clips)
    with Image.open(tmp_path / "s.jpg") as sheet:
        assert sheet.size == (6 * 186 - 10, 2 * 174 - 10)
        grey = np.asarray(sheet.convert("L"), dtype=int)
    for place, value in ((0, 0), (1, 30), (3, 90), (5, 150), (6, 180)):
        x, y = 88 + 186 * (place % 6), 60 + 174 * (place // 6)
        assert abs(grey[y, x] - value) < 4


def test_a_frame_in_the_page_is_a_small_picture():
    uri = jpeg_uri(jpeg(90, size=(640, 480)), side=120)
    head, data = uri.split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert picture.size == (120, 90)


def test_a_clip_without_picture_or_caption():
    figure = clip_figure(None, note="n", caption="")
    assert "<img" not in figure and 'class="blank"' in figure and "own" not in figure
