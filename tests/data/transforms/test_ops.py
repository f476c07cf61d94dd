"""Operations against Pillow and NumPy in float64; the same in a tensorflow graph and in any number of threads."""

import itertools

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from twinreel.data.tf_cpu import tf
from twinreel.data.transforms import pixels, rand_augment
from twinreel.data.transforms.frames import Frames, resize_into
from twinreel.data.transforms.preprocess import OPS, parse_video
from twinreel.data.transforms.threads import in_threads, new_batch

H, W = 44, 60


def clip(frames: int = 3, *, seed: int = 0, height: int = H, width: int = W) -> np.ndarray:
    """Smooth colourful frames that differ, uint8 [T,H,W,3]."""
    rng = np.random.default_rng(seed)
    small = rng.integers(10, 240, (frames, 6, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(s).resize((width, height), Image.Resampling.BICUBIC)) for s in small])


def apply(declared: str, video: np.ndarray, uniforms) -> np.ndarray:
    """Apply one operation to decoded frames."""
    [operation] = parse_video(f"{declared}|resize(8)", field="f").operations[:1]
    uniforms = np.resize(np.asarray(uniforms, np.float32), operation.draws)
    return operation(Frames.of_video(video), uniforms).video()


def pillow(video: np.ndarray, function) -> np.ndarray:
    return np.stack([np.asarray(function(Image.fromarray(frame))) for frame in video])


def worst(a, b) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


JPEGS = [[simplejpeg.encode_jpeg(f, quality=90) for f in clip(seed=s)] for s in range(5)]
EVERY_OP = (
    "random_resized_crop(40)|temporal_jitter(1)|reverse|speed(0.5, 2)|frame_dropout(0.3)|flip_lr|rotate(20)"
    "|random_crop(36)|color_jitter(0.4, hue=0.1)|grayscale(0.3)|blur|noise(4)|frame_noise(3)|rand_augment(3, 7)"
    "|resize_short_bicubic(34)|resize_short_bilinear(32)|resize_bicubic(31, 33)|resize_bilinear(31)"
    "|resize_linear(30, 37)|resize_tensorflow(30)|center_crop_torchvision(29)|resize_short(30)|center_crop(28)"
    "|resize(20, 24)"
)


def test_the_string_above_has_every_random_operation():
    named = {piece.strip().split("(")[0] for piece in EVERY_OP.split("|")}
    assert named == set(OPS) - {"three_crop", "ten_crop", "naflex"}


def decode_rows(transform, *, encoded, heights, widths, uniforms, threads):
    """Decode and transform clips into one batch, each clip in one of the threads."""
    rows = new_batch((len(encoded), *transform.shape(encoded.shape[1])), dtype=np.uint8)

    def one(row):
        size = {"height": int(heights[row]), "width": int(widths[row])}
        transform(encoded[row].tolist(), **size, uniforms=uniforms[row], out=rows[row])

    in_threads(one, count=len(encoded), threads=threads)
    return rows


@pytest.mark.parametrize("declared", [EVERY_OP, "resize_short(30)|three_crop(30)", "ten_crop(32)", "center_crop(21)"])
def test_alone_in_threads_and_in_a_graph_bit_for_bit(declared):
    transform = parse_video(declared, field="f")
    uniforms = np.random.default_rng(1).random((5, transform.draws), np.float32)
    files = np.array(JPEGS, object)
    sizes = {"heights": np.full(5, H), "widths": np.full(5, W)}
    alone = np.stack([transform(JPEGS[i], height=H, width=W, uniforms=uniforms[i], out=None) for i in range(5)])
    for threads in (1, 2, 5):
        rows = decode_rows(transform, encoded=files, **sizes, uniforms=uniforms, threads=threads)
        np.testing.assert_array_equal(rows, alone)

    def decode(files, uniforms):
        return decode_rows(transform, encoded=files, **sizes, uniforms=uniforms, threads=2)

    graph = tf.function(lambda files, uniforms: tf.numpy_function(decode, [files, uniforms], tf.uint8))
    np.testing.assert_array_equal(graph(tf.constant(files.tolist()), tf.constant(uniforms)).numpy(), alone)
    assert alone.shape == (5, *transform.shape(3))


@pytest.mark.parametrize(
    "declared", ["color_jitter(0.4, 0.2)", "rotate(30)", "blur(p=1)", "noise(9)", "rand_augment(2, 9)"]
)
def test_all_frames_of_a_clip_are_treated_alike(declared):
    still = np.repeat(clip(1), 4, axis=0)
    out = apply(declared, still, np.random.default_rng(3).random(8))
    assert (out == out[:1]).all()
    assert (out[0] != still[0]).any()


@pytest.mark.parametrize(("height", "width"), [(22, 30), (30, 41), (40, 40), (90, 31), (61, 100)])
def test_resize_is_near_pillows_antialiased_bilinear(height, width):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    for picture, mean in ((clip(1)[0], 2.0), (noise, 9.0)):
        got = np.empty((height, width, 3), np.uint8)
        resize_into(picture, into=got)
        want = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
        assert np.abs(got.astype(int) - want).mean() < mean
        assert abs(got.std() - want.std()) < 0.25 * want.std(), "it aliases, or blurs too much"


def test_a_side_that_shrinks_a_lot_is_averaged():
    noise = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    got = np.empty((11, 60, 3), np.uint8)
    resize_into(noise, into=got)
    assert worst(got, noise.reshape(11, 4, W, 3).mean(axis=1)) <= 0.51
    got = np.empty((11, 90, 3), np.uint8)
    resize_into(noise, into=got)
    rows = Image.fromarray(noise).resize((W, 11), Image.Resampling.BOX)
    assert worst(got, np.asarray(rows.resize((90, 11), Image.Resampling.BILINEAR))) <= 2


def test_decoding_after_a_mirror_equals_mirroring_what_was_decoded():
    transform = parse_video("flip_lr(1)|random_crop(20)|resize(20)", field="f")
    uniforms = np.array([0.0, 0.3, 0.2], np.float32)
    got = transform(JPEGS[0], height=H, width=W, uniforms=uniforms)
    whole = np.stack([simplejpeg.decode_jpeg(j) for j in JPEGS[0]])[:, :, ::-1]
    y, x = int(np.float32(0.3) * 25), int(np.float32(0.2) * 41)
    np.testing.assert_array_equal(got, whole[:, y : y + 20, x : x + 20])


def test_views_by_the_definition():
    whole = np.stack([simplejpeg.decode_jpeg(j) for j in JPEGS[1]])

    def run(declared):
        return parse_video(declared, field="f")(JPEGS[1], height=H, width=W, uniforms=np.zeros(0, np.float32))

    want = [whole[:, 2:42, x : x + 40] for x in (0, 10, 20)]
    np.testing.assert_array_equal(run("three_crop(40)"), want)
    corners = [(0, 0), (0, 20), (4, 0), (4, 20), (2, 10)]
    want = [whole[:, y : y + 40, x : x + 40] for y, x in corners]
    np.testing.assert_array_equal(run("ten_crop(40)"), want + [w[:, :, ::-1] for w in want])
    tall = [simplejpeg.encode_jpeg(np.ascontiguousarray(f.swapaxes(0, 1))) for f in clip()]
    got = parse_video("three_crop(40)", field="f")(tall, height=W, width=H, uniforms=np.zeros(0, np.float32))
    decoded = np.stack([simplejpeg.decode_jpeg(j) for j in tall])
    np.testing.assert_array_equal(got, [decoded[:, y : y + 40, 2:42] for y in (0, 10, 20)])


@pytest.mark.parametrize("method", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("declared", "size"), [("resize_{}(21, 30)", (21, 30)), ("resize_short_{}(20)", (20, 26))])
def test_named_resizers_are_pillows(method, declared, size):
    """The longer side is rounded down, as torchvision and transformers do: 20 x 26.67 becomes 20 x 26."""
    video = clip(height=48, width=64)
    want = pillow(video, lambda image: image.resize(size[::-1], Image.Resampling[method.upper()]))
    assert np.array_equal(apply(declared.format(method), video, 0), want)


def test_linear_resizing_takes_four_pixels_and_aliases():
    video = clip(2)
    got = apply("resize_linear(17, 90)", video, [])
    y, x = ((np.arange(n) + 0.5) * size / n - 0.5 for n, size in ((17, H), (90, W)))
    want = np.zeros((2, 17, 90, 3))
    for row, at in enumerate(y):
        for column, across in enumerate(x):
            for i, j in itertools.product((0, 1), (0, 1)):
                r, c = int(np.floor(at)) + i, int(np.floor(across)) + j
                share = (1 - abs(at - r)) * (1 - abs(across - c))
                want[:, row, column] += share * video[:, min(max(r, 0), H - 1), min(max(c, 0), W - 1)]
    assert worst(got, want) <= 1.0  # OpenCV's weights are fixed-point


@pytest.mark.parametrize("size", [(17, 90), (70, 31)])
def test_resizing_of_tensorflow_is_that_of_big_vision(size):
    """`tf.image.resize`, clipped and cast, as the op `resize` of big_vision has it."""
    video = clip(2)
    want = tf.cast(tf.clip_by_value(tf.image.resize(video, size), 0, 255), tf.uint8).numpy()
    got = apply(f"resize_tensorflow({size[0]}, {size[1]})", video, [])
    assert worst(got, want) <= 1 and (got != want).mean() < 5e-3  # where the last bits decide what is a whole level


@pytest.mark.parametrize("n", [20, 21, 22, 23])
def test_center_crop_of_torchvision_rounds_halves_to_even(n):
    """As `torchvision.transforms.functional.center_crop`: `int(round((size - n) / 2.0))`."""
    video = clip(2, height=39, width=42)
    y, x = {20: (10, 11), 21: (9, 10), 22: (8, 10), 23: (8, 10)}[n]  # of 9.5, 11; 9, 10.5; 8.5, 10; 8, 9.5
    np.testing.assert_array_equal(apply(f"center_crop_torchvision({n})", video, []), video[:, y : y + n, x : x + n])


def test_rotation_is_pillows():
    video = clip()
    got = apply("rotate(40)", video, [0.75])  # 20 degrees, anticlockwise
    want = pillow(video, lambda image: image.rotate(20, Image.Resampling.BILINEAR))
    inner = np.s_[:, 8:-8, 8:-8]
    assert np.abs(got[inner].astype(int) - want[inner]).mean() < 1.5
    assert not got[:, 0, 0].any() and video[:, 0, 0].any()


def test_hue_turns_the_colours_and_keeps_the_luma():
    video = clip() // 3 + 80  # far enough from black and white not to be clipped
    half = pixels.jitter(video, brightness=1, contrast=1, saturation=0.3, hue=0.5)
    luma = video @ np.array(pixels.LUMA)
    assert np.abs(half @ np.array(pixels.LUMA) - luma).max() < 3
    plain = pixels.jitter(video, brightness=1, contrast=1, saturation=0.3)
    assert worst(half - luma[..., None], luma[..., None] - plain) < 4, "half a turn makes every colour its opposite"
    np.testing.assert_array_equal(apply("color_jitter(0.4)", video, [0.5, 0.5, 0.5, 0.9]), video)


def test_blur_is_a_gaussian():
    sigma = 1.3
    taps = np.arange(-4, 5)
    kernel = np.exp(-(taps**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    video = clip()
    want = video.astype(np.float64)
    for axis in (1, 2):
        padded = np.pad(want, [(4, 4) if a == axis else (0, 0) for a in range(4)], mode="reflect")
        want = sum(k * np.take(padded, np.arange(want.shape[axis]) + i, axis) for i, k in enumerate(kernel))
    assert worst(apply("blur(1.3, 1.3)", video, [0.1, 0.5]), want) <= 1
    np.testing.assert_array_equal(apply("blur(1.3, 1.3)", video, [0.6, 0.5]), video)


@pytest.mark.parametrize(("declared", "per_frame"), [("noise(10)", False), ("frame_noise(10)", True)])
def test_noise_has_its_strength_and_its_own_seed(declared, per_frame):
    flat = np.full((4, 64, 64, 3), 128, np.uint8)
    noise = apply(declared, flat, [0.3]).astype(float) - 128
    assert abs(noise.std() - 10) < 0.4 and abs(noise.mean()) < 0.3
    assert (noise[0] != noise[1]).any() == per_frame
    assert (apply(declared, flat, [0.4]).astype(float) - 128 != noise).any()
    edge = apply("noise(10)", np.full((1, 64, 64, 3), 255, np.uint8), [0.3])
    assert edge.max() == 255 and edge.min() > 190, "clipped, not wrapped around"


@pytest.mark.parametrize(
    ("name", "strength", "function", "tolerance"),
    [
        ("identity", 0.7, lambda image: image, 0),
        ("autocontrast", 0.7, ImageOps.autocontrast, 1),
        ("equalize", 0.7, ImageOps.equalize, 0),
        ("solarize", 0.5, lambda image: ImageOps.solarize(image, 128), 0),
        ("posterize", 1.0, lambda image: ImageOps.posterize(image, 4), 0),
        ("color", 0.6, lambda image: ImageEnhance.Color(image).enhance(1.54), 1.5),
        ("color", -0.6, lambda image: ImageEnhance.Color(image).enhance(0.46), 1.5),
        ("contrast", 0.6, lambda image: ImageEnhance.Contrast(image).enhance(1.54), 1.5),
        ("contrast", -1.0, lambda image: ImageEnhance.Contrast(image).enhance(0.1), 1.5),
        ("brightness", 0.6, lambda image: ImageEnhance.Brightness(image).enhance(1.54), 1.5),
        ("sharpness", 0.8, lambda image: ImageEnhance.Sharpness(image).enhance(1.72), 2),
        ("sharpness", -1.0, lambda image: ImageEnhance.Sharpness(image).enhance(0.1), 2),
    ],
)
def test_rand_augment_operations_are_pillows(name, strength, function, tolerance):
    video = clip(1)
    assert worst(rand_augment.AUGMENTS[name](video, strength), pillow(video, function)) <= tolerance


def test_pillows_smooth_filter_is_the_one_meant():
    assert ImageFilter.SMOOTH.filterargs[3] == (1, 1, 1, 1, 5, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("translate_x", (1, 0, -round(0.5 * W * 150 / 331), 0, 1, 0)),
        ("translate_y", (1, 0, 0, 0, 1, -round(0.5 * H * 150 / 331))),
        ("shear_x", (1, -0.15, 0, 0, 1, 0)),
        ("shear_y", (1, 0, 0, -0.15, 1, 0)),
    ],
)
def test_rand_augment_moves_as_pillow_does(name, matrix):
    video = clip(1)
    want = pillow(video, lambda i: i.transform(i.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))
    got = rand_augment.AUGMENTS[name](video, 0.5)
    assert np.abs(got.astype(int) - want).mean() < 2.5  # Pillow's pixel centres lie at halves, here at whole numbers


def test_rand_augment_draws_each_operation_and_both_signs():
    video = clip(1)
    names = list(rand_augment.AUGMENTS)
    assert len(names) == 14
    for (i, name), sign in itertools.product(enumerate(names), (0.2, 0.8)):
        got = apply("rand_augment(1, 5)", video, [(i + 0.5) / 14, sign])
        want = rand_augment.AUGMENTS[name](video, 0.5 if sign < 0.5 else -0.5)
        np.testing.assert_array_equal(got, want)
    two = apply("rand_augment(2, 5)", video, [4.5 / 14, 0.2, 8.5 / 14, 0.2])
    want = rand_augment.brightness(rand_augment.solarize(video, 0.5), 0.5)
    np.testing.assert_array_equal(two, want)


def test_a_frame_of_another_size_or_a_cut_one_is_refused():
    transform = parse_video("center_crop(20)", field="f")
    none = np.zeros(0, np.float32)
    with pytest.raises(ValueError):
        transform(JPEGS[0], height=H + 1, width=W, uniforms=none)
    with pytest.raises(ValueError):
        transform(JPEGS[0], height=H - 1, width=W, uniforms=none)
    with pytest.raises(ValueError):
        transform([JPEGS[0][0][:300]], height=H, width=W, uniforms=none)
