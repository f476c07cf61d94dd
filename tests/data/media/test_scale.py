"""How frames look: size, square pixels, which way up."""

from fractions import Fraction

import numpy as np
import pytest
import simplejpeg

from twinreel.data.media.decode import DecodeOptions, decode_clip, read_rgb

EVERY = DecodeOptions(fps=None, short_side=0)
LEVELS = tuple(range(10, 250, 10))  # 24 frames that can be told apart


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [((90, 160), 45, (45, 80)), ((160, 90), 45, (80, 45)), ((90, 160), 200, (90, 160)), ((90, 160), 0, (90, 160))],
)
def test_short_side(tmp_path, media, size, short_side, expected, pictures):
    path = media.write(tmp_path / "a.mp4", pictures.moving(3, size))
    clip = decode_clip(path, options=DecodeOptions(short_side=short_side))
    assert (clip.height, clip.width) == expected
    assert simplejpeg.decode_jpeg(clip.encoded[0]).shape == (*expected, 3)


def test_scaling_averages_areas(tmp_path, media):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200  # finer than the small picture: point sampling would see all or nothing
    path = media.write(tmp_path / "a.mkv", [stripes] * 2, codec="ffv1", pix_fmt="bgr0", options={})
    small = read_rgb(path, options=DecodeOptions(short_side=16))[0][1]
    assert small.shape == (16, 16, 3)
    assert np.abs(small.astype(int) - 100).max() <= 2


def test_pixels_become_square(tmp_path, media, pictures):
    path = media.write(tmp_path / "a.mp4", pictures.moving(2, (48, 32)), aspect=Fraction(2, 1))
    clip = decode_clip(path, options=DecodeOptions(short_side=24))
    assert (clip.height, clip.width) == (24, 32)
    clip = decode_clip(path, options=DecodeOptions(short_side=0))
    assert (clip.height, clip.width) == (48, 64)


MATRICES = {  # a point (x, y) is shown at (a x + c y, b x + d y): (a, b, c, d) and the same in numpy
    "none": ((1, 0, 0, 1), lambda x: x),
    "90 right": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "90 left": ((0, -1, 1, 0), lambda x: np.rot90(x)),
    "180": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "other diagonal": ((0, -1, -1, 0), lambda x: x[::-1, ::-1].transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrix(tmp_path, media, name, pictures):
    (a, b, c, d), turn = MATRICES[name]
    path = media.write(tmp_path / "a.mp4", pictures.moving(2))
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44  # after version, times, track, duration, layer, volume
    matrix = np.array([a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 2**30])
    assert content[place : place + 4] == (65536).to_bytes(4, "big")
    content[place : place + 36] = matrix.astype(">i4").tobytes()
    path.write_bytes(content)
    upright = read_rgb(path, options=EVERY)
    for (_, rgb), (_, raw) in zip(upright, pictures.reference(path), strict=True):
        np.testing.assert_array_equal(rgb, turn(raw))
    clip = decode_clip(path, options=DecodeOptions(short_side=24))
    assert (clip.height, clip.width) == ((32, 24) if a == 0 else (24, 32))
