"""Access units of H.264 to pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from twinreel.data.media.clip import DecodeOptions
from twinreel.data.media.encoders import frame_encoder
from twinreel.data.transforms import h264
from twinreel.data.transforms.h264 import as_jpegs, decode_grey, decode_units
from twinreel.data.transforms.preprocess import parse_video
from twinreel.data.transforms.units import drawable, is_unit, split_units

COUNT, HEIGHT, WIDTH = 20, 51, 66
SIZE = {"height": HEIGHT, "width": WIDTH}


@pytest.fixture(scope="module")
def units():
    """The units of 20 frames of coloured noise that moves, in segments of 8."""
    rng = np.random.default_rng(0)
    picture = np.asarray(Image.fromarray(rng.integers(0, 255, (5, 9, 3), dtype=np.uint8)).resize((3 * 36, HEIGHT)))
    encoder = frame_encoder(DecodeOptions(frames_as="h264"))
    for i in range(COUNT):
        encoder.add(picture[:, 2 * i : 2 * i + WIDTH])
    return encoder.end()


@pytest.fixture(scope="module")
def whole(units):
    """All frames, decoded in order: uint8 [20,51,66,3]."""
    return drawn(units, range(COUNT))


def drawn(units, indices, **window):
    values = [drawable(units, i) for i in indices]
    found = dict(decode_units(values, **SIZE, **window))
    return np.stack([found[i] for i in range(len(values))])


def test_a_frame_alone_is_the_frame_among_others_whatever_the_order(units, whole):
    for i in range(COUNT):
        np.testing.assert_array_equal(drawn(units, [i])[0], whole[i])
    for indices in ([19, 3, 3, 0, 12, 4, 19], [7, 6, 5, 4], [8, 0, 16]):
        np.testing.assert_array_equal(drawn(units, indices), whole[indices])


@pytest.mark.parametrize(
    ("indices", "pictures"), [(range(20), 20), (range(19, -1, -1), 20), ([5, 5, 5], 6), ([2, 9, 4], 7), ([7, 15], 16)]
)
def test_each_picture_is_decoded_once(units, monkeypatch, indices, pictures):
    seen = []
    monkeypatch.setattr(h264, "split_units", lambda value: seen.extend(split_units(value)) or split_units(value))
    drawn(units, indices)
    assert len(seen) == pictures


def test_a_window_is_a_part_of_the_picture(units, whole):
    rng = np.random.default_rng(1)
    for _ in range(30):
        top, left = (int(rng.integers(0, side)) for side in (HEIGHT, WIDTH))
        height, width = int(rng.integers(1, HEIGHT - top + 1)), int(rng.integers(1, WIDTH - left + 1))
        part = drawn(units, [9], window=(top, left, height, width))[0]
        np.testing.assert_array_equal(part, whole[9, top : top + height, left : left + width])


@pytest.mark.parametrize(
    "declared", ["center_crop(32)", "resize_short(40)|center_crop(30)", "center_crop(31)|flip_lr|resize(12, 16)"]
)
def test_transforms_of_units_are_those_of_their_pictures(units, whole, declared):
    transform = parse_video(declared, field="f")
    uniforms = np.linspace(0, 0.9, transform.draws, dtype=np.float32)
    indices = [18, 2, 3, 11]
    found = transform([drawable(units, i) for i in indices], **SIZE, uniforms=uniforms)
    np.testing.assert_array_equal(found, transform.decoded(whole[indices], uniforms=uniforms))


def test_grey_is_that_of_the_colours(units, whole):
    [(place, grey)] = decode_grey([drawable(units, 10)])
    assert place == 0 and grey.shape == (52, 66)
    wanted = np.asarray(Image.fromarray(whole[10]).convert("L"), float)
    assert np.abs(grey[:HEIGHT] - wanted).mean() < 1.5


def test_pages_get_jpeg_files(units, whole):
    made = as_jpegs([drawable(units, i) for i in range(COUNT)], **SIZE)
    assert len(made) == COUNT and len(made[3:5]) == 2
    for i, file in ((0, made[0]), (13, made[13]), (4, made[3:5][1]), (19, made[-1])):
        with Image.open(io.BytesIO(file)) as picture:
            assert picture.format == "JPEG" and np.abs(np.asarray(picture, float) - whole[i]).mean() < 6
    assert as_jpegs([made[0]], **SIZE) == [made[0]]  # as it is
    assert list(as_jpegs([], **SIZE)) == []


def test_damage_is_a_value_error_and_nothing_else(units):
    """Bytes changed or cut off: an error, or a picture; no crash, no wait, no picture of another size."""
    rng = np.random.default_rng(2)
    good, errors = drawable(units, 3), 0
    for n in range(300):
        bad = bytearray(good)
        for place in rng.integers(5, len(bad), 1 + n % 5).tolist():
            bad[place] ^= 1 << int(rng.integers(8))
        value = bytes(bad[: int(rng.integers(6, len(bad)))] if n % 3 == 0 else bad)
        try:
            [(_, picture)] = decode_units([value], **SIZE)
            assert picture.shape == (HEIGHT, WIDTH, 3)
        except ValueError:
            errors += 1
    assert errors > 150
    for value in (b"", b"\xff\xd8", good[1:], b"x" + good, units[3], good[: len(units[0]) + 6]):
        with pytest.raises(ValueError, match=r"H\.264"):
            list(decode_units([value], **SIZE))
    with pytest.raises(ValueError, match=r"a frame of \[52, 66\] pixels, yuvj420p, instead of \[52, 68\]"):
        list(decode_units([good], height=HEIGHT, width=67))


def test_a_frame_without_its_key_picture_cannot_be_drawn(units):
    assert drawable(units, 2) == b"".join(units[:3]) and drawable(units, 8) == units[8] and is_unit(units[8])
    assert drawable([b"\xff\xd8 1", b"\xff\xd8 2"], 1) == b"\xff\xd8 2"
    with pytest.raises(ValueError, match="no key picture"):
        drawable(units[1:4], 2)
    with pytest.raises(IndexError):
        drawable(units, COUNT)
