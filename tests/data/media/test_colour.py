"""Colours against formulas in float64, written out again here from the standards, and their published values."""

import math
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from twinreel.data.media import colour
from twinreel.data.media.decode import DecodeOptions, decode_clip, read_rgb

EVERY = DecodeOptions(fps=None, short_side=0)
WEIGHTS = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 9: (0.2627, 0.0593), None: (0.299, 0.114)}  # of red and blue
TO_709 = {  # ITU-R BT.2087, and Display P3 as in the CSS colour specification
    9: [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    12: [[1.2249, -0.2249, 0.0], [-0.0421, 1.0421, 0.0], [-0.0196, -0.0786, 1.0983]],
}
PATCHES = [
    (0, 0, 0),
    (0.2, 0.2, 0.2),
    (0.5, 0.4, 0.3),
    (0.55, 0.6, 0.58),
    (0.7, 0.7, 0.7),
    (0.75, 0.3, 0.1),
    (0.9,) * 3,
]


def pq_eotf(signal):
    m1, m2 = 0.1593017578125, 78.84375
    c1, c2, c3 = 0.8359375, 18.8515625, 18.6875
    power = signal ** (1 / m2)
    return 10000 * (max(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def pq_inverse(nits):
    power = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def bt2390(nits, peak):
    """Hermite spline from the knee to the target's peak, in PQ relative to the source's."""
    top = pq_inverse(peak)
    most, e = pq_inverse(203) / top, min(pq_inverse(nits) / top, 1.0)
    knee = 1.5 * most - 0.5
    if e >= knee:
        t = (e - knee) / (1 - knee)
        e = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * most
    return pq_eotf(e * top)


def srgb(x):
    return 12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055


def mapped(rgb, transfer, peak=1000.0):
    """sRGB levels of one HDR signal, in float64."""
    if transfer == "PQ":
        light = [pq_eotf(v) for v in rgb]
    else:
        a = 0.17883277
        b, c = 1 - 4 * a, 0.5 - a * math.log(4 * a)
        scene = [v * v / 3 if v <= 0.5 else (math.exp((v - c) / a) + b) / 12 for v in rgb]
        luminance = 0.2627 * scene[0] + 0.6780 * scene[1] + 0.0593 * scene[2]
        light = [1000 * luminance**0.2 * v for v in scene]
    light = [max(sum(m * v for m, v in zip(row, light, strict=True)), 0.0) for row in TO_709[9]]
    top = max(*light, 1e-9)
    return [255 * srgb(v * bt2390(top, peak) / top / 203) for v in light]


def test_curves_have_the_published_values():
    np.testing.assert_allclose(
        colour.nits_to_pq(np.array([0.0, 100, 203, 1000, 10000])), [0, 0.5081, 0.5807, 0.7518, 1], atol=1e-4
    )
    np.testing.assert_allclose(colour.hlg_to_scene(np.array([0, 0.5, 0.75, 1])), [0, 1 / 12, 0.26496, 1], atol=1e-4)
    np.testing.assert_allclose(colour.to_srgb(np.array([0, 0.002, 0.5, 1])), [0, 0.02584, 0.73536, 1], atol=1e-5)
    np.testing.assert_allclose(colour.to_bt709(ColorPrimaries.BT2020), TO_709[9], atol=2e-4)
    np.testing.assert_allclose(colour.to_bt709(ColorPrimaries.SMPTE432), TO_709[12], atol=2e-4)


@pytest.mark.parametrize("peak", [203.0, 600.0, 1000.0, 4000.0])
def test_eetf(peak):
    nits = np.array([0.001, 1, 20, 60, 100, 200, 400, 800, 3000])
    out = colour.eetf(nits, peak=peak)
    np.testing.assert_allclose(out, [bt2390(n, peak) if peak > 203 else min(n, 203) for n in nits], rtol=1e-6)
    assert colour.eetf(np.array([peak]), peak=peak)[0] == pytest.approx(203)
    assert (np.diff(out) >= -1e-9).all()


def film(path, planes, *, pix_fmt, trc=None, primaries=None, matrix=None, full=None):
    """Write frames of plain Y, Cb, Cr codes without loss; tags are those of the codec."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 16, pix_fmt
        context = stream.codec_context
        for name, value in (("color_trc", trc), ("color_primaries", primaries), ("colorspace", matrix)):
            if value is not None:
                setattr(context, name, value)
        if full is not None:
            context.color_range = 2 if full else 1
        for codes in planes:
            frame = av.VideoFrame(32, 16, pix_fmt)
            for plane, code in zip(frame.planes, codes, strict=True):
                kind = np.uint16 if "10" in pix_fmt else np.uint8
                plane.update(np.full(plane.buffer_size // kind().itemsize, code, kind).tobytes())
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def to_codes(rgb, matrix, *, bits, full=False):
    red, blue = WEIGHTS[matrix]
    luma = red * rgb[0] + (1 - red - blue) * rgb[1] + blue * rgb[2]
    cb, cr = (rgb[2] - luma) / (2 - 2 * blue), (rgb[0] - luma) / (2 - 2 * red)
    if full:
        return [round(v * (2**bits - 1) + o) for v, o in ((luma, 0), (cb, 2 ** (bits - 1)), (cr, 2 ** (bits - 1)))]
    scale = 2 ** (bits - 8)
    return [round((16 + 219 * luma) * scale), round((128 + 224 * cb) * scale), round((128 + 224 * cr) * scale)]


def from_codes(codes, matrix, *, bits, full=False):
    red, blue = WEIGHTS[matrix]
    half, top, scale = 2 ** (bits - 1), 2**bits - 1, 2 ** (bits - 8)
    luma, cb, cr = (
        (codes[0] / top, (codes[1] - half) / top, (codes[2] - half) / top)
        if full
        else ((codes[0] / scale - 16) / 219, (codes[1] / scale - 128) / 224, (codes[2] / scale - 128) / 224)
    )
    r, b = luma + (2 - 2 * red) * cr, luma + (2 - 2 * blue) * cb
    return np.clip([r, (luma - red * r - blue * b) / (1 - red - blue), b], 0, 1)


@pytest.mark.parametrize("transfer", ["PQ", "HLG"])
@pytest.mark.parametrize("matrix", [9, None])
def test_hdr_is_mapped_as_the_formula_says(tmp_path, transfer, matrix):
    trc = {"PQ": ColorTrc.SMPTE2084, "HLG": ColorTrc.ARIB_STD_B67}[transfer]
    codes = [to_codes(rgb, 9, bits=10) for rgb in PATCHES]
    path = film(tmp_path / "a.mkv", codes, pix_fmt="yuv444p10le", trc=trc, primaries=matrix, matrix=matrix, full=False)
    for options in (EVERY, DecodeOptions(fps=None, short_side=8)):
        kept = read_rgb(path, options=options)
        assert len(kept) == len(PATCHES)
        for (_, rgb), code in zip(kept, codes, strict=True):
            wanted = mapped(from_codes(code, 9, bits=10), transfer)
            np.testing.assert_allclose(rgb.reshape(-1, 3), np.tile(wanted, (rgb.shape[0] * rgb.shape[1], 1)), atol=1.5)
    assert decode_clip(path, options=EVERY).notes == (f"HDR ({transfer}) mapped to SDR",)


@pytest.mark.parametrize(("trc", "primaries"), [(ColorTrc.BT709, 9), (ColorTrc.IEC61966_2_1, 12)])
def test_wide_gamuts_are_mapped(tmp_path, trc, primaries):
    codes = [to_codes(rgb, 9, bits=10) for rgb in PATCHES]
    path = film(tmp_path / "a.mkv", codes, pix_fmt="yuv444p10le", trc=trc, primaries=primaries, matrix=9, full=False)
    for (_, rgb), code in zip(read_rgb(path, options=EVERY), codes, strict=True):
        light = np.array(TO_709[primaries]) @ from_codes(code, 9, bits=10) ** 2.4
        np.testing.assert_allclose(rgb[3, 3], 255 * np.clip(light, 0, 1) ** (1 / 2.4), atol=1.5)
    assert decode_clip(path, options=EVERY).notes == ("wide gamut mapped to sRGB",)


@pytest.mark.parametrize("full", [False, True, None])
@pytest.mark.parametrize("matrix", [1, 5, 9, None])
@pytest.mark.parametrize(("pix_fmt", "bits"), [("yuv444p", 8), ("yuv420p", 8), ("yuv422p10le", 10)])
def test_matrix_and_range_are_those_of_the_file_or_else_bt601_limited(tmp_path, matrix, full, pix_fmt, bits):
    codes = [to_codes(rgb, matrix, bits=bits, full=bool(full)) for rgb in PATCHES]
    path = film(tmp_path / "a.mkv", codes, pix_fmt=pix_fmt, matrix=matrix, full=full)
    scaled = read_rgb(path, options=DecodeOptions(fps=None, short_side=8))
    for (_, whole), (_, small), code in zip(read_rgb(path, options=EVERY), scaled, codes, strict=True):
        wanted = 255 * from_codes(code, matrix, bits=bits, full=bool(full))
        # libswscale brings full range to limited first, which costs a second rounding
        close = 1.0 if full and bits > 8 else 0.6
        np.testing.assert_allclose(small.reshape(-1, 3), np.tile(wanted, (16 * 8, 1)), atol=close)
        np.testing.assert_allclose(whole[3, 3], wanted, atol=4)  # libswscale's fast conversion
    assert decode_clip(path, options=EVERY).notes == ()


def test_ten_bits_are_rounded_not_cut(tmp_path):
    codes = [(level, 512, 512) for level in range(64, 941, 7)]
    path = film(tmp_path / "a.mkv", codes, pix_fmt="yuv444p10le", full=False)
    got = np.array([rgb[5, 5] for _, rgb in read_rgb(path, options=EVERY)], dtype=float)
    exact = np.array([255 * (level / 4 - 16) / 219 for level, _, _ in codes])
    assert np.abs(got - exact[:, None]).max() <= 0.55
    assert abs((got - exact[:, None]).mean()) < 0.02


def side_data(most=0, display=(0, 1), stated=1):
    numbers = [0] * 18 + [*display, 1, stated]
    parts = {
        "CONTENT_LIGHT_LEVEL": np.array([most, 0], "<u4").tobytes(),
        "MASTERING_DISPLAY_METADATA": np.array(numbers, "<i4").tobytes(),
    }
    return SimpleNamespace(side_data=SimpleNamespace(get=lambda kind: parts[kind.name]))


def test_stated_peak():
    assert colour.stated_peak(side_data(most=1200, display=(40_000_000, 10_000))) == 1200
    assert colour.stated_peak(side_data(display=(40_000_000, 10_000))) == 4000
    assert colour.stated_peak(side_data(display=(40_000_000, 0))) is None
    assert colour.stated_peak(side_data(display=(40_000_000, 10_000), stated=0)) is None


@pytest.mark.real
def test_real_hdr_files_against_the_formula(real_dir):
    """Single pixels of the real files: their Y, Cb, Cr as decoded, taken through the formula."""
    for name, transfer, peak in (
        ("exoplayer__hdr10-video-with-sdr-container.mp4", "PQ", 1000.0),
        ("exoplayer__sample_with_colr_mdcv_and_clli.mp4", "PQ", 1100.0),
        ("exoplayer__sample_with_color_info.mp4", "HLG", 1000.0),
    ):
        path = real_dir / "odd" / name
        picture = read_rgb(path, options=EVERY, end_s=0.01)[0][1]
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        if frame.rotation:
            picture = np.rot90(picture, 1)
        luma, *chroma = (
            np.frombuffer(bytes(plane), np.uint16).reshape(plane.height, -1)[:, : plane.width] for plane in frame.planes
        )
        assert picture.shape == (*luma.shape, 3)
        rng, errors = np.random.default_rng(0), []
        for y, x in zip(rng.integers(0, luma.shape[0], 80), rng.integers(0, luma.shape[1], 80), strict=True):
            codes = [int(luma[y, x]), *(int(plane[y // 2, x // 2]) for plane in chroma)]
            wanted = mapped(from_codes(codes, 9, bits=10), transfer, peak)
            errors.append(np.abs(picture[y, x] - np.array(wanted)).max())
        assert np.median(errors) < 2, name  # chroma is scaled up by another filter, so single pixels differ
