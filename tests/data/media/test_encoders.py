"""Frames of a clip to JPEG files and to access units of H.264."""

import hashlib
import io
import subprocess
import sys

import av
import numpy as np
import pytest
import simplejpeg
from av.video.reformatter import Interpolation, VideoReformatter

from twinreel.data.media.place import DecodeError
from twinreel.data.transforms.h264 import decode_units
from twinreel.data.transforms.units import drawable, is_key, is_unit

SCENE = """
import hashlib
import cv2
import numpy as np
from twinreel.data.media.clip import DecodeOptions
from twinreel.data.media.encoders import frame_encoder

def scene(count, size=(49, 67)):
    rng = np.random.default_rng(0)
    picture = cv2.resize(rng.integers(0, 255, (4, 8, 3), dtype=np.uint8), (size[1] + 2 * count, size[0]))
    return [np.ascontiguousarray(picture[:, 2 * i : 2 * i + size[1]]) for i in range(count)]

def encode(frames, **options):
    encoder = frame_encoder(DecodeOptions(**{"frames_as": "h264"} | options))
    for frame in frames:
        encoder.add(frame)
    return encoder.end()
"""
here = {}
exec(SCENE, here)  # what another process runs as well
scene, encode = here["scene"], here["encode"]


def all_decoded(units, like):
    height, width = like.shape[:2]
    found = dict(decode_units([drawable(units, i) for i in range(len(units))], height=height, width=width))
    return [found[i] for i in range(len(units))]


def psnr(one, other):
    return 10 * np.log10(255**2 / np.mean((np.stack(one).astype(float) - np.stack(other)) ** 2))


def test_a_segment_is_much_smaller_than_jpeg_and_about_as_good():
    frames = scene(20, size=(96, 128))
    units, files = encode(frames), encode(frames, frames_as="jpeg")
    pictures = [simplejpeg.decode_jpeg(file) for file in files]
    assert psnr(all_decoded(units, frames[0]), frames) > psnr(pictures, frames) - 4
    assert sum(map(len, units)) < sum(map(len, files)) / 3
    better = encode(frames, crf=6)
    assert psnr(all_decoded(better, frames[0]), frames) > psnr(pictures, frames)


@pytest.mark.parametrize(
    ("size", "count", "segment"), [((49, 67), 20, 8), ((2, 2), 3, 8), ((1, 1), 1, 8), ((33, 20), 5, 1)]
)
def test_key_pictures_stand_at_multiples_of_the_segment_and_sizes_come_back(size, count, segment):
    frames = scene(count, size=size)
    units = encode(frames, segment=segment)
    assert len(units) == count and all(map(is_unit, units))
    assert [i for i, unit in enumerate(units) if is_key(unit)] == list(range(0, count, segment))
    pictures = all_decoded(units, frames[0])
    assert {picture.shape for picture in pictures} == {(*size, 3)}
    assert psnr(pictures, frames) > 26 or min(size) < 3


def test_a_record_of_units_is_a_stream_that_others_open():
    """libavformat finds the pictures by itself; libswscale, told what the stream states, the same colours."""
    frames = scene(20)
    units = encode(frames)
    with av.open(io.BytesIO(b"".join(units)), format="h264") as container:
        found = list(container.decode(video=0))
        kinds = [frame.key_frame for frame in found]
    assert kinds == [i % 8 == 0 for i in range(20)]
    assert {(frame.width, frame.height, frame.color_range, frame.color_trc) for frame in found} == {(68, 50, 2, 13)}
    assert b"x264" not in units[0]
    ours = np.stack(all_decoded(units, frames[0])).astype(int)
    exact = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    theirs = [VideoReformatter().reformat(frame, format="rgb24", interpolation=exact).to_ndarray() for frame in found]
    assert np.abs(ours - np.stack(theirs)[:, :49, :67]).mean() < 0.6


def test_equal_frames_give_equal_bytes_in_any_process():
    own = hashlib.sha256(b"".join(encode(scene(20)))).hexdigest()
    assert own == hashlib.sha256(b"".join(encode(scene(20)))).hexdigest()
    script = SCENE + "print(hashlib.sha256(b''.join(encode(scene(20)))).hexdigest())"
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == own


def test_turned_frames_are_encoded_as_well():
    frames = scene(3)
    turned = encode([frame.transpose(1, 0, 2)[::-1] for frame in frames])
    assert turned == encode([np.ascontiguousarray(frame.transpose(1, 0, 2)[::-1]) for frame in frames])


def test_frames_that_do_not_fit_are_a_reason():
    with pytest.raises(DecodeError, match=r"cannot be encoded as H\.264"):
        encode([np.zeros((2, 20_000, 3), np.uint8)])
    assert encode([]) == []
