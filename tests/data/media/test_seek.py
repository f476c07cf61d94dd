"""A window read by seeking is the window decoded from the start, whatever the container, the codec and the pixels."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from twinreel.data.media import reader
from twinreel.data.media.decode import DecodeOptions, decode_clip, read_rgb

EVERY = DecodeOptions(fps=None, short_side=0, audio=False)
RATE, FRAMES = 10, 100
STARTS = (5.2, 6.0, 7.35, 9.1)
FAST = {"preset": "ultrafast"}
VPX = {"deadline": "realtime", "cpu-used": "8"}

# (suffix, codec, pixel format, key picture every n, options of the encoder), and whether windows may be sought.
FILMS = [
    (("mp4", "libx264", "yuv420p", 20, FAST), True),
    (("mov", "libx264", "yuv420p", 20, {"preset": "veryfast", "x264-params": "open-gop=1:bframes=2"}), True),
    (("mkv", "libx264", "yuv420p", 20, {"preset": "veryfast", "x264-params": "open-gop=1:bframes=2"}), True),
    (("mp4", "libx264", "yuv420p", 20, {"preset": "veryfast", "x264-params": "intra-refresh=1:keyint=20"}), False),
    (("mkv", "libx264", "yuv420p", 20, {"preset": "veryfast", "x264-params": "intra-refresh=1:keyint=20"}), False),
    (("mp4", "libx265", "yuv420p", 20, FAST | {"x265-params": "open-gop=1:bframes=3:keyint=20:log-level=none"}), True),
    (("webm", "libvpx", "yuv420p", 20, VPX | {"auto-alt-ref": "1", "lag-in-frames": "16"}), True),
    (("webm", "libvpx-vp9", "yuv420p", 20, VPX | {"auto-alt-ref": "1", "lag-in-frames": "16"}), True),
    (("mkv", "mjpeg", "yuvj420p", 1, {}), True),
    (("mkv", "ffv1", "yuv420p", 30, {"level": "3"}), False),
    (("mov", "prores_ks", "yuv422p10le", 1, {}), True),
    (("mov", "rawvideo", "rgb24", 1, {}), True),
    (("mov", "rawvideo", "gray", 1, {}), False),  # QuickTime stores grey as a palette
    *(((suffix, codec, "pal8", 12, {}), False) for suffix, codec in (("avi", "rawvideo"), ("avi", "msrle"))),
    *(((suffix, codec, "pal8", 12, {}), False) for suffix, codec in (("avi", "zmbv"), ("avi", "png"))),
    *((("mov", codec, "pal8", 12, {}), False) for codec in ("rawvideo", "smc", "msrle", "png")),
    *((("avi", codec, "rgb555le", 60, {}), False) for codec in ("msvideo1", "rpza")),
    (("avi", "cinepak", "rgb24", 60, {}), False),
    (("mov", "qtrle", "argb", 60, {}), False),
    (("avi", "mpeg4", "yuv420p", 12, {"bf": "2"}), False),
    (("mpg", "mpeg4", "yuv420p", 200, {}), False),
    (("ts", "mpeg4", "yuv420p", 200, {"bf": "2"}), False),
    (("ts", "libx264", "yuv420p", 20, {"preset": "veryfast"}), False),
    (("flv", "flv", "yuv420p", 60, {}), False),
    (("asf", "wmv2", "yuv420p", 60, {}), False),
    (("rm", "rv20", "yuv420p", 60, {}), False),
    (("swf", "flv", "yuv420p", 60, {}), False),
    (("gif", "gif", "rgb8", 12, {}), False),
    (("apng", "apng", "rgb24", 12, {}), False),
    (("m4v", "mpeg4", "yuv420p", 60, {}), False),
]


def picture(number, size=(48, 64)):
    """Tiles that move, under a bar whose level tells the number."""
    tiles = np.random.default_rng(0).integers(0, 255, (6, 64, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    shown = tiles[: size[0], 2 * number : 2 * number + size[1]].copy()
    shown[:8] = number * 2
    return shown


def with_palette(rgb):
    """The same in 256 colours, as PyAV takes it."""
    index = rgb[..., 0] // 32 * 32 + rgb[..., 1] // 32 * 4 + rgb[..., 2] // 64
    number = np.arange(256)
    colours = (np.full(256, 255), number // 32 * 36, number // 4 % 8 * 36, number % 4 * 85)
    return av.VideoFrame.from_ndarray((index.astype(np.uint8), np.stack(colours, -1).astype(np.uint8)), format="pal8")


def write(path, codec, pixels, every, options, *, count=FRAMES, **more):
    with av.open(str(path), "w", **more) as container:
        video = container.add_stream(codec, rate=RATE)
        video.height, video.width, video.pix_fmt, video.gop_size = 48, 64, pixels, every
        video.options = options
        video.thread_count = 1
        for number in range(count):
            rgb = picture(number)
            frame = with_palette(rgb) if pixels == "pal8" else av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


@pytest.fixture
def sought(monkeypatch):
    """Asserts that windows of a file are the same sought and decoded from the start; tells which the reader sought."""

    def compare(path, starts=STARTS, length=0.75):
        found = []
        for start in starts:
            origins = []
            whole = reader.Reader._window

            def window(self, first, origins=origins, whole=whole):
                origins.append(first)
                return whole(self, first)

            with monkeypatch.context() as patch:
                patch.setattr(reader.Reader, "_window", window)
                part = read_rgb(path, options=EVERY, start_s=start, end_s=start + length)
                patch.setattr(reader, "_SEEK_S", 1e9)
                wanted = read_rgb(path, options=EVERY, start_s=start, end_s=start + length)
            assert wanted, f"no picture in the window at {start}"
            assert [time for time, _ in part] == [time for time, _ in wanted], start
            for (time, rgb), (_, other) in zip(part, wanted, strict=True):
                np.testing.assert_array_equal(rgb, other, err_msg=f"window at {start}, picture at {time}")
            found.append(origins[-2] is not None)
        return found

    return compare


@pytest.mark.parametrize(("film", "may"), FILMS, ids=[f"{film[0]}-{film[1]}-{film[2]}" for film, _ in FILMS])
def test_window_by_seeking_is_the_window_from_the_start(tmp_path, sought, film, may):
    suffix, *how = film
    path = write(tmp_path / f"a.{suffix}", *how)
    assert sought(path) == [may] * len(STARTS)
    numbers = [rgb[:6].mean() / 2 for _, rgb in read_rgb(path, options=EVERY, start_s=6.0, end_s=6.5)]
    assert numbers == pytest.approx([60, 61, 62, 63, 64], abs=16), "not the pictures of that time"


def boxes(data):
    """The boxes of an MP4 file or of a box's content: kind, bytes."""
    while data:
        size = struct.unpack(">I", data[:4])[0]
        yield data[4:8], data[:size]
        data = data[size:]


def box(kind, content):
    return struct.pack(">I", len(content) + 8) + kind + content


def edited(path, edits):
    """Give the one track of an MP4 file an edit list, `[(seconds, from which second on)]`, -1 = nothing shown."""
    listed = b"".join(
        struct.pack(">IiHH", round(seconds * 1000), -1 if begin < 0 else round(begin * RATE * 1024), 1, 0)
        for seconds, begin in edits
    )
    edts = box(b"edts", box(b"elst", struct.pack(">II", 0, len(edits)) + listed))

    def of_track(content):
        parts = [(kind, part) for kind, part in boxes(content) if kind != b"edts"]
        return b"".join(edts + part if kind == b"mdia" else part for kind, part in parts)

    def of_film(content):
        return b"".join(box(kind, of_track(part[8:])) if kind == b"trak" else part for kind, part in boxes(content))

    whole = list(boxes(path.read_bytes()))
    path.write_bytes(b"".join(box(kind, of_film(part[8:])) if kind == b"moov" else part for kind, part in whole))
    return path


@pytest.mark.parametrize(
    "edits",
    [
        [(9.0, 0.55)],
        [(3.0, -1), (8.0, 0.2)],
        [(4.0, 0.5), (5.0, 4.7)],
        [(5.0, 4.35), (5.0, 0.75)],  # the second half first
        [(4.0, 2.3), (4.0, 2.3), (4.0, 2.3)],  # a loop
    ],
)
@pytest.mark.parametrize("options", ["bframes=0", "bframes=2:open-gop=1"])
def test_edit_lists(tmp_path, sought, edits, options):
    path = tmp_path / "a.mp4"
    how = {"preset": "veryfast", "x264-params": options}
    write(path, "libx264", "yuv420p", 20, how, container_options={"video_track_timescale": str(RATE * 1024)})
    assert any(sought(edited(path, edits), starts=(5.2, 6.0, 7.35))), "all were decoded from the start"


def remuxed(source, target, *, is_key=None, unmarked=False):
    """Copy packet by packet; `is_key` marks packets by their number, `unmarked` removes what marks recovery points."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        units = av.bitstream.BitStreamFilterContext("filter_units=remove_types=6", stream, copy) if unmarked else None
        for number, packet in enumerate(old.demux(stream)):
            for part in (packet,) if units is None else units.filter(packet):
                if part.dts is not None:
                    part.is_keyframe = part.is_keyframe if is_key is None else is_key(number)
                    part.stream = copy
                    new.mux(part)
    return target


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("is_key", [lambda number: True, lambda number: number % 7 == 0])
def test_a_container_that_marks_wrong_pictures_is_not_believed(tmp_path, sought, codec, is_key):
    lists = {"libx264": {"x264-params": "ref=4:scenecut=0"}, "libx265": {"x265-params": "keyint=20:log-level=none"}}
    film = write(tmp_path / "a.mp4", codec, "yuv420p", 20, FAST | lists[codec])
    assert not all(sought(remuxed(film, tmp_path / "b.mp4", is_key=is_key)))


def test_key_pictures_that_nothing_marks_as_such(tmp_path, sought):
    open_gop = {"preset": "medium", "x264-params": "ref=4:bframes=2:open-gop=1:scenecut=0"}
    film = write(tmp_path / "a.mp4", "libx264", "yuv420p", 20, open_gop)
    assert not any(sought(remuxed(film, tmp_path / "b.mp4", unmarked=True)))


@pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "frag_every_frame+empty_moov+skip_trailer", "dash"])
def test_fragments(tmp_path, sought, flags):
    path = write(tmp_path / "a.mp4", "libx264", "yuv420p", 20, FAST, container_options={"movflags": flags})
    assert all(sought(path))


@pytest.mark.parametrize("live", ["0", "1"])
@pytest.mark.parametrize("counts", [(40, 110), (110, 40)])
def test_recordings_joined_in_one_file(tmp_path, sought, live, counts):
    parts = [
        write(tmp_path / f"{n}.mkv", "libx264", "yuv420p", 20, FAST, count=count, container_options={"live": live})
        for n, count in enumerate(counts)
    ]
    (tmp_path / "joined.mkv").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert not all(sought(tmp_path / "joined.mkv", starts=(5.2, 6.0, 9.1, 12.0))), "time stamps begin anew at the join"


def test_joined_transport_streams(tmp_path, sought):
    parts = [write(tmp_path / f"{n}.ts", "mpeg2video", "yuv420p", 12, {}, count=50) for n in range(2)]
    (tmp_path / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    assert not any(sought(tmp_path / "joined.ts", starts=(5.2, 6.0, 8.0))), "time stamps begin anew at the join"


@pytest.mark.parametrize("codec", ["pcm_s16le", "aac"])
def test_sound_of_a_window(tmp_path, monkeypatch, media, codec):
    """Also where one packet holds all of it, which a seek passes by."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options=FAST)
        video.height, video.width, video.pix_fmt, video.gop_size = 48, 64, "yuv420p", 20
        audio = container.add_stream(codec, rate=16_000, layout="mono")
        sound = np.concatenate([media.tone(1.0, hertz=300 + 100 * second) for second in range(10)])
        frame = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        heard = list(audio.encode(frame)) + list(audio.encode(None))
        shown = []
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            shown += video.encode(frame)
        shown += video.encode(None)
        for packet in sorted(heard + shown, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    clip = decode_clip(path, options=DecodeOptions(), start_s=6.0, end_s=7.5)
    monkeypatch.setattr(reader, "_SEEK_S", 1e9)
    wanted = decode_clip(path, options=DecodeOptions(), start_s=6.0, end_s=7.5)
    np.testing.assert_array_equal(clip.audio, wanted.audio)
    assert clip.notes == wanted.notes == ()
