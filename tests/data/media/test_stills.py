"""Pictures as clips of one frame, against Pillow's and NumPy's own arithmetic."""

import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageCms

from twinreel.data.media.decode import DecodeError, DecodeOptions, decode_clip, read_rgb

EVERY = DecodeOptions(short_side=0)


def gradient(height=24, width=40):
    down, across = np.mgrid[0:height, 0:width]
    return np.stack([across * 6, down * 10, 255 - across * 6], -1).clip(0, 255).astype(np.uint8)


def save(path, picture, **options):
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


def one(path, **options):
    [(time, rgb)] = read_rgb(path, options=DecodeOptions(**{"short_side": 0} | options))
    assert time == 0.0 and rgb.dtype == np.uint8
    return rgb


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "jpg"])
def test_formats(tmp_path, suffix):
    exact = {"webp": {"lossless": True}, "jpg": {"quality": 95}}
    path = save(tmp_path / f"a.{suffix}", gradient(), **exact.get(suffix, {}))
    assert np.abs(one(path).astype(int) - gradient()).max() <= (24 if suffix == "jpg" else 0)
    clip = decode_clip(path, options=EVERY)
    assert (clip.height, clip.width, clip.duration_s, clip.audio, clip.notes) == (24, 40, 0.04, None, ())
    assert clip.timestamps_s.tolist() == [0.0]
    assert simplejpeg.decode_jpeg(clip.encoded[0]).shape == (24, 40, 3)


def test_scaling_averages_areas(tmp_path):
    path = save(tmp_path / "a.png", gradient(24, 40))
    blocks = gradient(24, 40).reshape(6, 4, 10, 4, 3).mean((1, 3))
    np.testing.assert_allclose(one(path, short_side=6), blocks, atol=1)
    assert one(path, short_side=100).shape == (24, 40, 3)  # never enlarged
    long = save(tmp_path / "long.png", np.zeros((3, 9000, 3), np.uint8))
    assert one(long, short_side=2).shape == (2, 6000, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    turns = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", gradient(), exif=exif)
    np.testing.assert_array_equal(one(path), turns[orientation](gradient()))


def test_alpha_is_shown_on_white(tmp_path):
    alpha = np.tile(np.array([0, 128, 255, 51], np.uint8), (24, 10))
    rgba = np.concatenate([gradient(), alpha[..., None]], -1)
    share = alpha[..., None] / 255
    wanted = gradient() * share + 255 * (1 - share)
    assert np.abs(one(save(tmp_path / "a.png", rgba)) - wanted).max() <= 1
    grey = Image.merge("LA", [Image.fromarray(gradient()[..., 0]), Image.fromarray(alpha)])
    wanted = gradient()[..., :1] * share + 255 * (1 - share)
    assert np.abs(one(save(tmp_path / "b.png", grey)) - wanted).max() <= 1
    palette = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (4, 4)), "P")
    palette.putpalette([10, 20, 30, 200, 0, 0])
    path = save(tmp_path / "c.png", palette, transparency=1)
    np.testing.assert_array_equal(one(path)[0, :2], [[10, 20, 30], [255, 255, 255]])


def test_grey_sixteen_bits_one_bit_and_cmyk(tmp_path):
    deep = (np.arange(960, dtype=np.uint32) * 68).astype(np.uint16).reshape(24, 40)
    got = one(save(tmp_path / "deep.png", deep))
    np.testing.assert_array_equal(got, np.round(deep / 257).astype(np.uint8)[..., None].repeat(3, 2))
    grey = gradient()[..., 0]
    np.testing.assert_array_equal(one(save(tmp_path / "grey.png", grey)), grey[..., None].repeat(3, 2))
    bits = Image.fromarray(grey > 100)
    np.testing.assert_array_equal(one(save(tmp_path / "bits.png", bits))[..., 0], np.where(grey > 100, 255, 0))
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    assert np.abs(one(save(tmp_path / "cmyk.jpg", cmyk, quality=95)).astype(int) - [255, 0, 0]).max() < 8


def test_sixteen_bits_a_channel(tmp_path):
    """A PNG of 16-bit RGB, written here by its specification."""
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    path = tmp_path / "a.png"
    path.write_bytes(png(7, 5, rows, bits=16))
    assert np.abs(one(path).astype(float) - deep / 257).max() <= 1


def png(width, height, rows, *, bits=8, extra=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def test_colour_profiles(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = one(save(tmp_path / "a.png", gradient(), icc_profile=lab))
    assert np.abs(same.astype(int) - gradient()).max() <= 1
    path = save(tmp_path / "b.png", gradient(), icc_profile=b"no profile at all")
    np.testing.assert_array_equal(one(path), gradient())
    assert decode_clip(path, options=EVERY).notes == ("colour profile of a picture left out",)


def reason(path, **options):
    with pytest.raises(DecodeError) as error:
        decode_clip(path, options=DecodeOptions(**options))
    return str(error.value)


def test_headers_that_promise_too_much_are_refused_with_their_size(tmp_path):
    for side, wanted in (
        (9000, "pictures larger than max_pixels=67108864: 9000 x 9000 pixels"),
        (12000, "pictures larger than max_pixels=67108864: 12000 x 12000 pixels"),
        (100_000, "pictures larger than max_pixels=67108864: 10000000000 pixels"),
    ):
        (tmp_path / "a.png").write_bytes(png(side, side, b"\0"))
        assert reason(tmp_path / "a.png") == wanted
    (tmp_path / "b.png").write_bytes(png(70_000, 1, b"\0" + bytes(210_000)))
    assert reason(tmp_path / "b.png") == "pictures with a side of more than 65500 pixels: 70000 x 1 pixels"
    assert "max_pixels=900: 40 x 24" in reason(save(tmp_path / "c.png", gradient()), max_pixels=900)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_broken_pictures_are_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = save(tmp_path / f"a.{suffix}", noise).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    assert reason(path).startswith("picture cannot be decoded: ")


def test_windows_and_films_in_the_clothes_of_pictures(tmp_path, media):
    path = save(tmp_path / "a.png", gradient())
    with pytest.raises(DecodeError, match="window starts after the last picture: the file is a single picture"):
        decode_clip(path, options=EVERY, start_s=1.0)
    assert decode_clip(path, options=EVERY, start_s=0.0, end_s=10.0).duration_s == 0.04
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (40, 200)]
    save(tmp_path / "a.webp", frames[0], save_all=True, append_images=frames[1:], lossless=True)
    assert decode_clip(tmp_path / "a.webp", options=EVERY).notes == ("animated picture, only its first frame taken",)
    assert (one(tmp_path / "a.webp") == 40).all()
    save(tmp_path / "b.png", frames[0], save_all=True, append_images=frames[1:], duration=500)
    film = read_rgb(tmp_path / "b.png", options=DecodeOptions(fps=None, short_side=0))
    assert [(round(time, 2), rgb[0, 0, 0]) for time, rgb in film] == [(0.0, 40), (0.5, 200)]
    buffers = [io.BytesIO() for _ in frames]
    for frame, buffer in zip(frames, buffers, strict=True):
        frame.save(buffer, "JPEG")
    (tmp_path / "a.mjpeg").write_bytes(b"".join(buffer.getvalue() for buffer in buffers))
    assert len(read_rgb(tmp_path / "a.mjpeg", options=DecodeOptions(fps=None, short_side=0))) == 2
