"""Preprocessing against independent decoders (simplejpeg, Pillow) and NumPy loops in float64."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from twinreel.base.errors import UserError
from twinreel.data.text.clean import text_cleaner
from twinreel.data.transforms.preprocess import parse_video


def picture(height: int, width: int, *, seed: int = 0, grain: int = 6) -> np.ndarray:
    """A colourful texture without sharp edges, its grain in pixels, uint8 [height,width,3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // grain + 2, width // grain + 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray, *, subsampling: str = "420") -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=92, colorsubsampling=subsampling)


def run(declared: str, files: list[bytes], uniforms) -> np.ndarray:
    transform = parse_video(declared, field="config.data.train_video")
    height, width, *_ = simplejpeg.decode_jpeg_header(files[0])
    uniforms = np.resize(np.asarray(uniforms, np.float32), transform.draws)
    video = transform(files, height=height, width=width, uniforms=uniforms)
    assert video.dtype == np.uint8 and video.shape == (len(files), transform.height, transform.width, 3)
    return video


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize by the definition: pixel centres at halves, edges repeated, three taps first where it shrinks; float64."""
    out = image.astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        old = out.shape[axis]
        if old > size:
            tap = ((old / size) ** 2 - 1) / 12
            after, before = np.minimum(np.arange(old) + 1, old - 1), np.maximum(np.arange(old) - 1, 0)
            out = (1 - 2 * tap) * out + tap * (np.take(out, after, axis) + np.take(out, before, axis))
        place = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.floor(place).astype(int)
        high = np.minimum(low + 1, old - 1)
        weight = (place - low).reshape([-1 if i == axis else 1 for i in range(3)])
        out = np.take(out, low, axis) * (1 - weight) + np.take(out, high, axis) * weight
    return out


def worst(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


FILES = [jpeg(picture(61, 90, seed=s)) for s in range(3)]
DECODED = np.stack([simplejpeg.decode_jpeg(f) for f in FILES])


def test_pillow_agrees_with_simplejpeg_about_the_reference():
    assert worst(np.asarray(Image.open(io.BytesIO(FILES[0]))), DECODED[0]) <= 1


@pytest.mark.parametrize("subsampling", ["420", "422", "444"])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.37, 0.61), (0.999, 0.999)])
def test_cropped_decoding_equals_cropping_what_was_decoded(subsampling, place):
    files = [jpeg(picture(61, 90), subsampling=subsampling)]
    whole = simplejpeg.decode_jpeg(files[0])
    y, x = int(place[0] * (61 - 33 + 1)), int(place[1] * (90 - 33 + 1))
    got = run("random_crop(33)", files, place)[0]
    want = whole[y : y + 33, x : x + 33]
    np.testing.assert_array_equal(got, want)


def test_center_crop_and_order_of_crops():
    assert worst(run("center_crop(40)", FILES, 0)[:, 2:-2, 2:-2], DECODED[:, 12:48, 27:63]) <= 1
    got = run("center_crop(60)|random_crop(20)", FILES, [0.5, 0.25])
    assert worst(got[:, 2:-2, 2:-2], DECODED[:, 22:38, 27:43]) <= 1  # 0 + 20 and 15 + 10


def test_resize_is_bilinear():
    for declared, size in (("resize(48, 100)", (48, 100)), ("resize(70)", (70, 70))):
        want = np.stack([bilinear(frame, *size) for frame in DECODED])
        assert worst(run(declared, FILES, 0), want) <= 1.5  # rounded twice
    same = run("resize(61, 90)", FILES, 0)
    assert worst(same, DECODED) <= 1


def test_resize_short_keeps_the_aspect_in_both_directions():
    want = np.stack([bilinear(frame, 40, 59) for frame in DECODED])[:, :, 9:49]
    assert worst(run("resize_short(40)|center_crop(40)", FILES, 0), want) <= 1.5
    portrait = [jpeg(picture(90, 61))]
    want = bilinear(simplejpeg.decode_jpeg(portrait[0]), 59, 40)[9:49]
    assert worst(run("resize_short(40)|center_crop(40)", portrait, 0)[0], want) <= 1.5


def test_large_reductions_decode_at_a_fraction_and_do_not_alias():
    files = [jpeg(picture(210, 230, grain=40))]
    for size, fraction in ((100, 2), (50, 4)):
        scaled = Image.open(io.BytesIO(files[0]))
        scaled.draft("RGB", (230 // fraction, 210 // fraction))  # libjpeg's scaled decoding, by way of Pillow
        got = run(f"resize({size})", files, 0)[0]
        assert np.abs(bilinear(np.asarray(scaled), size, size) - got).mean() < 0.5
    box = Image.fromarray(simplejpeg.decode_jpeg(files[0])).resize((25, 25), Image.Resampling.BOX)
    assert np.abs(run("resize(25)", files, 0)[0] - np.asarray(box, np.float64)).mean() < 5
    rng = np.random.default_rng(0)
    noise = jpeg(rng.integers(0, 256, (210, 230, 3), dtype=np.uint8), subsampling="444")
    assert run("resize(25)", [noise], 0).std() < 25, "white noise (std 74) must average out, not alias"


@pytest.mark.parametrize("uniforms", [(0.0, 0.5, 0.3, 0.7), (1 - 1e-7, 0.0, 0.0, 0.0), (0.4, 0.99, 0.9, 0.9)])
@pytest.mark.parametrize("shape", [(61, 90), (90, 61), (40, 200)])
def test_random_resized_crop_by_the_definition(uniforms, shape):
    files = [jpeg(picture(*shape), subsampling="444")]
    height, width = shape
    uniforms = [float(np.float32(u)) for u in uniforms]
    area = height * width * (0.5 + 0.5 * uniforms[0])
    ratio = np.exp(np.log(0.75) + (np.log(4 / 3) - np.log(0.75)) * uniforms[1])
    h, w = np.sqrt(area / ratio), np.sqrt(area * ratio)
    fit = min(1, height / h, width / w)
    h, w = round(h * fit), round(w * fit)
    y, x = int(uniforms[2] * (height - h + 1)), int(uniforms[3] * (width - w + 1))
    want = bilinear(simplejpeg.decode_jpeg(files[0])[y : y + h, x : x + w], 32, 32)
    if max(h, w) <= 2 * 32:  # larger ones are decoded at half the size or averaged, which other tests cover
        assert worst(run("random_resized_crop(32)", files, uniforms)[0], want) <= 2


def test_flip_with_its_probability():
    whole = run("resize(61, 90)", FILES, 0)
    np.testing.assert_array_equal(run("resize(61, 90)|flip_lr", FILES, 0.49), whole[:, :, ::-1])
    np.testing.assert_array_equal(run("resize(61, 90)|flip_lr", FILES, 0.51), whole)
    np.testing.assert_array_equal(run("resize(61, 90)|flip_lr(p=0)", FILES, 0.0), whole)


def test_color_jitter_by_the_definition():
    luma = np.array([0.299, 0.587, 0.114])
    pixels = run("resize(61, 90)", FILES, 0).astype(np.float64)
    for uniforms in ([0.1, 0.9, 0.5, 0], [0.9, 0.2, 0.0, 0], [0.5, 0.5, 0.5, 0.9]):
        brightness, contrast, saturation = 1 + 0.4 * (2 * np.array(uniforms[:3]) - 1)
        want = pixels * brightness
        want = contrast * want + (1 - contrast) * (want @ luma).mean()
        want = saturation * want + (1 - saturation) * (want @ luma)[..., None]
        got = run("resize(61, 90)|color_jitter(0.4)", FILES, uniforms)
        assert worst(got, np.clip(want, 0, 255)) <= 1.5


def test_grayscale_is_luma_in_three_channels():
    pixels = run("resize(61, 90)", FILES, 0)
    got = run("resize(61, 90)|grayscale(0.2)", FILES, 0.1)
    assert (got[..., 0] == got[..., 1]).all() and (got[..., 0] == got[..., 2]).all()
    assert worst(got[..., 0], pixels @ np.array([0.299, 0.587, 0.114])) <= 0.51
    np.testing.assert_array_equal(run("resize(61, 90)|grayscale(0.2)", FILES, 0.3), pixels)


def test_each_operation_has_its_own_random_numbers():
    transform = parse_video("random_resized_crop(8)|flip_lr|color_jitter(0.1)|grayscale(0.5)", field="f")
    assert transform.draws == 4 + 1 + 4 + 1


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            "random_resize_crop(8)",
            r"config\.x.*'random_resize_crop'; did you mean 'random_resized_crop'\? \(known: blur, center",
        ),
        ("center_crop", r"'center_crop' does not fit center_crop\(n: int\).*missing.*'n'"),
        ("three_crop(8)|ten_crop(4)", "several views twice"),
        ("color_jitter(0.4, hue=0.6)", "hue"),
        ("blur(2, 1)", "min_sigma"),
        ("noise(0)", "std"),
        ("rotate(200)", "degrees"),
        ("rand_augment(2, 11)", "magnitude"),
        ("rand_augment(num_ops=0)", "num_ops must be at least 1"),
        ("temporal_jitter(0)", "k must be at least 1"),
        ("speed(2, 1)", "min <= max"),
        ("frame_dropout(2)", "probability"),
        ("center_crop(8, 9)", r"does not fit center_crop\(n: int\)"),
        ("center_crop(size=8)", r"center_crop\(n: int\).*'size'"),
        ("center_crop(8.5)", r"n=8\.5 is no int"),
        ("center_crop('8')", r"center_crop\(n: int\).*'8'"),
        ("center_crop(0)", "n must be at least 1, got 0"),
        ("flip_lr(1.5)|resize(8)", "probability"),
        ("random_resized_crop(8, 1.5)", r"random_resized_crop\(n: int, min_scale: float=0\.5.*min_scale"),
        ("center_crop(8)||flip_lr", "cannot read ''"),
        ("center_crop(8", "cannot read"),
        ("center_crop(open('x'))", "cannot read"),
        ("resize_short(8)", "different sizes.*center_crop"),
        ("", "different sizes"),
        ("flip_lr", "different sizes"),
    ],
)
def test_mistakes_are_named_before_any_data_is_read(declared, message):
    with pytest.raises(UserError, match=message):
        parse_video(declared, field="config.x")


def test_frames_that_are_too_small_for_a_crop():
    transform = parse_video("random_crop(224)", field="config.data.train_video")
    transform.check(height=224, width=300, example="clip 'a'")
    with pytest.raises(
        UserError, match=r"train_video.*224 x 224 pixels does not fit in frames of 120 x 160 \(clip 'a'\)"
    ):
        transform.check(height=120, width=160, example="clip 'a'")
    parse_video("resize_short(224)|random_crop(224)", field="f").check(height=120, width=160, example="clip 'a'")


def test_text_cleaning():
    clean = text_cleaner("lower|strip_punctuation")
    assert clean("A  dog's RUN, «schnell»!") == "a dogs run schnell"
    assert text_cleaner("")("As it Is.") == "As it Is."
    assert text_cleaner("collapse_spaces")(" a\n b ") == "a b"
    with pytest.raises(UserError, match=r"config\.data\.text.*'lowr'; did you mean 'lower'"):
        text_cleaner("lowr")
