"""Transparency: on white, in films and stills alike, counted in the notes."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from twinreel.data.media import pictures as pictures_module
from twinreel.data.media.alpha import has_alpha, on_white
from twinreel.data.media.decode import DecodeOptions, decode_clip, read_rgb

EVERY = DecodeOptions(fps=None, short_side=0)
NOTE = "transparent parts shown on white"
# Opaque red, half transparent blue, and green that nobody is to see.
RED, BLUE, GREEN = (220, 30, 30, 255), (0, 0, 200, 128), (0, 255, 0, 0)
SHOWN = {"red": (220, 30, 30), "blue": (127, 127, 227), "green": (255, 255, 255)}
PLACES = {
    "red": (slice(36, 60), slice(36, 90)),
    "blue": (slice(70, 92), slice(4, 90)),
    "green": (slice(2, 26), slice(4, 90)),
}


def bands(size=(96, 96)):
    """RGBA uint8 [H,W,4]: three bands, each in a colour of its own."""
    picture = np.zeros((*size, 4), np.uint8)
    picture[:] = GREEN
    picture[32:64] = RED
    picture[64:] = BLUE
    return picture


def paletted(rgba):
    colours, index = np.unique(rgba.reshape(-1, 4), axis=0, return_inverse=True)
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0] = 255
    palette[: len(colours)] = colours[:, [3, 0, 1, 2]]
    return av.VideoFrame.from_ndarray((index.reshape(rgba.shape[:2]).astype(np.uint8), palette), format="pal8")


def write(path, codec, pixels, *, rgba=None, count=4, options=None):
    rgba = bands() if rgba is None else rgba
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=8, options=options or {})
        video.height, video.width, video.pix_fmt = *rgba.shape[:2], pixels
        for number in range(count):
            frame = paletted(rgba) if pixels == "pal8" else av.VideoFrame.from_ndarray(rgba, format="rgba")
            frame.pts, frame.time_base = number, Fraction(1, 8)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


def grey(colour):
    """The luma of BT.601 of an opaque colour."""
    return np.dot(colour, (0.299, 0.587, 0.114))


VPX = {"auto-alt-ref": "0", "deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "2M"}
FILMS = [
    *((("mov", codec, pixels, {}), 3) for codec, pixels in (("qtrle", "argb"), ("png", "rgba"), ("png", "rgba64be"))),
    *((("mov", codec, pixels, {}), 3) for codec, pixels in (("png", "pal8"), ("rawvideo", "argb"), ("tiff", "rgba"))),
    *((("mov", codec, pixels, {}), 8) for codec, pixels in (("prores_ks", "yuva444p10le"), ("cfhd", "gbrap12le"))),
    *((("avi", codec, pixels, {}), 3) for codec, pixels in (("rawvideo", "bgra"), ("huffyuv", "bgra"))),
    *((("avi", codec, pixels, {}), 3) for codec, pixels in (("utvideo", "gbrap"), ("magicyuv", "yuva444p"))),
    *((("mkv", "ffv1", pixels, {}), 3) for pixels in ("yuva420p", "bgra", "gbrap12le")),
    *((("nut", "rawvideo", pixels, {}), 3) for pixels in ("rgba", "abgr", "gbrap", "yuva422p", "ya8")),
    (("apng", "apng", "rgba", {}), 3),
    (("webm", "libvpx-vp9", "yuva420p", VPX), 12),
    (("webm", "libvpx", "yuva420p", VPX), 12),
]


@pytest.mark.parametrize(("film", "off"), FILMS, ids=["-".join(film[:3]) for film, _ in FILMS])
def test_films_are_shown_on_white(tmp_path, film, off):
    suffix, codec, pixels, options = film
    path = write(tmp_path / f"a.{suffix}", codec, pixels, options=options)
    clip = decode_clip(path, options=EVERY)
    assert clip.notes == (NOTE,)
    for _, rgb in read_rgb(path, options=EVERY):
        for name, place in PLACES.items():
            wanted = np.array(SHOWN[name], float)
            if pixels == "ya8":
                luma = grey({"red": RED, "blue": BLUE, "green": GREEN}[name][:3])
                share = {"red": 1, "blue": 128 / 255, "green": 0}[name]
                wanted = np.full(3, luma * share + 255 * (1 - share))
            assert np.abs(rgb[place] - wanted).max() <= off, (name, rgb[place][0, 0])


def test_gif(tmp_path):
    rgba = bands()
    rgba[64:] = (0, 0, 200, 255)  # GIF knows opaque and transparent, nothing between
    rgb = read_rgb(write(tmp_path / "a.gif", "gif", "pal8", rgba=rgba), options=EVERY)[0][1]
    assert rgb[PLACES["green"]].min() == 255
    np.testing.assert_array_equal(rgb[80, 8], (0, 0, 200))
    assert decode_clip(tmp_path / "a.gif", options=EVERY).notes == (NOTE,)


def test_film_and_still_are_the_same_picture(tmp_path):
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (64, 80, 4), dtype=np.uint8)
    film = read_rgb(write(tmp_path / "a.mov", "png", "rgba", rgba=rgba), options=EVERY)[0][1]
    Image.fromarray(rgba).save(tmp_path / "a.png")
    still = read_rgb(tmp_path / "a.png", options=EVERY)[0][1]
    np.testing.assert_array_equal(film, still)
    share = rgba[..., 3:] / 255
    np.testing.assert_allclose(still, rgba[..., :3] * share + 255 * (1 - share), atol=0.51)
    assert decode_clip(tmp_path / "a.png", options=EVERY).notes == (NOTE,)


def test_hidden_colours_do_not_bleed_when_scaled(tmp_path):
    rgba = np.zeros((96, 96, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[:, ::2] = (200, 200, 200, 255)  # columns of opaque grey between columns of hidden green
    rgb = read_rgb(write(tmp_path / "a.mov", "png", "rgba", rgba=rgba), options=DecodeOptions(short_side=24))[0][1]
    assert np.ptp(rgb.astype(int), axis=-1).max() <= 1, "green is seen"
    assert np.abs(rgb.astype(float) - 227.5).max() <= 1


def test_opaque_pictures_are_untouched_and_not_noted(tmp_path, media):
    rng = np.random.default_rng(0)
    rgba = np.concatenate([rng.integers(0, 256, (64, 80, 3), dtype=np.uint8), np.full((64, 80, 1), 255, np.uint8)], -1)
    path = write(tmp_path / "a.mov", "png", "rgba", rgba=rgba)
    np.testing.assert_array_equal(read_rgb(path, options=EVERY)[0][1], rgba[..., :3])
    assert decode_clip(path, options=EVERY).notes == ()
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert decode_clip(tmp_path / "a.png", options=EVERY).notes == ()
    assert decode_clip(media.write(tmp_path / "a.mp4", media.grey(10, 200)), options=EVERY).notes == ()


def test_avi_whose_fourth_byte_is_unused(tmp_path):
    """A bitmap header of 32 bits means 24 bits and a byte without a meaning, mostly 0."""
    rgba = bands()
    rgba[..., 3] = 0
    rgb = read_rgb(write(tmp_path / "a.avi", "rawvideo", "bgra", rgba=rgba), options=EVERY)[0][1]
    np.testing.assert_array_equal(rgb, rgba[..., :3])
    assert decode_clip(tmp_path / "a.avi", options=EVERY).notes == ()


def test_transparency_that_no_decoder_gives_is_noted(tmp_path, monkeypatch):
    path = write(tmp_path / "a.webm", "libvpx-vp9", "yuva420p", options=VPX)
    monkeypatch.setattr(pictures_module, "_WITH_ALPHA", {"vp9": "no-such-decoder"})
    assert decode_clip(path, options=EVERY).notes == ("transparency left out",)


def test_windows_of_transparent_films(tmp_path):
    path = write(tmp_path / "a.webm", "libvpx-vp9", "yuva420p", options=VPX, count=60)
    clip = decode_clip(path, options=EVERY, start_s=6.0, end_s=7.0)
    assert (len(clip.encoded), clip.notes) == (8, (NOTE,))


def test_which_pixel_formats_have_alpha():
    assert all(map(has_alpha, ("rgba", "bgra", "argb", "yuva420p", "yuva444p12le", "gbrap", "ya8", "ya16be", "pal8")))
    assert not any(map(has_alpha, ("rgb24", "yuv420p", "yuvj444p", "gray", "rgb0", "bgr0", "gbrp", "nv12", "p010le")))


def test_on_white_is_exact():
    colour, alpha = np.meshgrid(np.arange(256), np.arange(256))
    got = on_white(colour[..., None].astype(np.uint8).repeat(3, -1), alpha=alpha.astype(np.uint8))
    exact = [[(c * a + 255 * (255 - a)) / 255 for c in range(256)] for a in range(256)]
    assert np.abs(got[..., 0] - np.array(exact)).max() <= 0.5
