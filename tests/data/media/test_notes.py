"""Whatever makes a stored clip differ from its file is in its notes, and nothing that lies outside of its window."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from twinreel.data.media.decode import DecodeOptions, decode_clip, read_rgb

EVERY = DecodeOptions(fps=None, short_side=0)
LEVELS = tuple(range(10, 250, 10))  # 24 frames that can be told apart
PAST_END = "window ends after the pictures: cut at their end"
SPANS = "sound does not span the pictures: silence filled in"
OUTSIDE = "sound before or after the pictures left out"


def notes(path, **window):
    return decode_clip(path, options=EVERY, **window).notes


@pytest.mark.parametrize(
    ("window", "cut"),
    [
        ({"start_s": 1.0, "end_s": 3.0}, False),
        ({"end_s": 3.1}, False),  # within the duration of a picture: rounding
        ({"end_s": 3.5}, True),
        ({"start_s": 2.0, "end_s": 60.0}, True),
        ({"start_s": 0.0, "end_s": 72.0}, True),  # frames where seconds were wanted
        ({"start_s": 1.0}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_windows_that_end_after_the_film(tmp_path, media, suffix, window, cut):
    path = media.write(tmp_path / f"a.{suffix}", media.grey(*LEVELS), fps=8)
    assert notes(path, **window) == ((PAST_END,) if cut else ())


def test_windows_that_end_after_a_film_that_is_sought_in(tmp_path, media):
    path = media.write(tmp_path / "a.mp4", media.grey(*LEVELS), fps=2, options={"g": "4"})
    assert notes(path, start_s=8.0, end_s=20.0) == (PAST_END,)
    assert notes(path, start_s=8.0, end_s=12.0) == ()


def test_windows_of_a_still(tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    assert notes(tmp_path / "a.png", start_s=0.0, end_s=10.0) == (PAST_END,)
    assert notes(tmp_path / "a.png", start_s=0.0, end_s=0.04) == notes(tmp_path / "a.png") == ()


def mkv(path, media, stamps_ms, sizes=None, *, tracks=1):
    """A film of grey frames at the given stamps, in the order in which they are given."""
    with av.open(str(path), "w") as container:
        streams = []
        for _ in range(tracks):
            stream = container.add_stream("mjpeg", rate=10)
            stream.height, stream.width, stream.pix_fmt = 32, 48, "yuvj420p"
            stream.time_base = Fraction(1, 1000)
            streams.append(stream)
        for number, stamp in enumerate(stamps_ms):
            jpeg = _jpeg(media.grey(LEVELS[number], size=(sizes or {}).get(number, (32, 48)))[0])
            for stream in streams:
                packet = av.Packet(jpeg)
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 1000), True
                packet.pts = packet.dts = stamp
                container.mux(packet)
    return path


def _jpeg(rgb):
    import simplejpeg

    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=95, colorsubsampling="420")


def test_pictures_that_change_their_size(tmp_path, media):
    path = mkv(tmp_path / "a.mkv", media, range(0, 1000, 100), dict.fromkeys(range(5, 10), (48, 64)))
    assert notes(path) == ("pictures change their size: all scaled to that of the first",)
    assert {rgb.shape for _, rgb in read_rgb(path, options=EVERY)} == {(32, 48, 3)}
    assert notes(path, end_s=0.4) == () == notes(path, start_s=0.5)


def test_several_video_tracks(tmp_path, media):
    path = mkv(tmp_path / "a.mkv", media, range(0, 500, 100), tracks=2)
    assert notes(path) == ("several video tracks, the main one taken",)


def test_pictures_without_stamps(tmp_path, media):
    path = media.write(tmp_path / "a.h264", media.grey(*LEVELS), options={"bf": "0", "preset": "veryfast"})
    assert notes(path) == ("pictures without a time stamp: placed by the frame rate",)


def test_joined_recordings(tmp_path, media):
    part = media.write(tmp_path / "a.ts", media.grey(*LEVELS), fps=8, codec="mpeg2video").read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    joined = "time stamps start again: taken for recordings joined together"
    assert notes(tmp_path / "joined.ts") == (joined,)
    assert notes(tmp_path / "joined.ts", end_s=2.0) == () == notes(tmp_path / "joined.ts", start_s=4.0)


def damage(path, places):
    """Overwrite the pictures of some packets."""
    with av.open(str(path)) as container:
        found = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    for place in places:
        begin, size = found[place]
        content[begin + 8 : begin + size] = bytes(size - 8)
    path.write_bytes(content)


def test_damage_counts_where_it_lies(tmp_path, media):
    path = media.write(tmp_path / "a.mov", media.grey(*LEVELS), codec="png", pix_fmt="rgb24", fps=2)
    damage(path, range(1, 11))  # seconds 0.5 to 5.5
    broken = "broken picture packets left out"
    assert notes(path) == (broken,)
    assert notes(path, start_s=7.0, end_s=9.0) == ()
    assert notes(path, start_s=8.0) == ()


def test_sound_that_is_shorter_longer_or_elsewhere(tmp_path, media):
    def film(name, **sound):
        return media.write(tmp_path / f"{name}.mkv", media.grey(*LEVELS[:16]), fps=8, **sound)

    assert notes(film("whole", sound=media.tone(2.0))) == ()
    assert notes(film("short", sound=media.tone(1.0))) == (SPANS,)
    assert notes(film("late", sound=media.tone(1.0), sound_from_s=1.0)) == (SPANS,)
    assert notes(film("longer", sound=media.tone(4.0))) == (OUTSIDE,)
    assert notes(tmp_path / "late.mkv", end_s=0.5) == ("sound track has nothing within the clip",)
    assert notes(tmp_path / "short.mkv", end_s=0.9) == () == notes(tmp_path / "longer.mkv", end_s=1.5)
    early = media.write(
        tmp_path / "early.mkv",
        media.grey(*LEVELS[:16]),
        stamps_ms=[2000 + 125 * n for n in range(16)],
        sound=media.tone(4),
    )
    assert notes(early) == (OUTSIDE,)
