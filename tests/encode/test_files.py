"""Frames that another program decoded, against the frames of the same clip's JPEG pictures."""

import cv2
import numpy as np
import pytest
import simplejpeg

from twinreel.base.errors import UserError
from twinreel.data.media.clip import DecodedClip
from twinreel.data.options import InputSpec
from twinreel.encode.files import frames_of, frames_of_array

FPS, COUNT, HEIGHT, WIDTH = 5.0, 11, 40, 60


@pytest.fixture(scope="module")
def clip() -> DecodedClip:
    rng = np.random.default_rng(0)
    pictures = [
        cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for _ in range(COUNT)
    ]
    return DecodedClip(
        jpegs=[simplejpeg.encode_jpeg(picture, quality=90) for picture in pictures],
        timestamps_s=(np.arange(COUNT) / FPS).astype(np.float32),
        height=HEIGHT,
        width=WIDTH,
        audio=None,
        duration_s=COUNT / FPS,
    )


@pytest.fixture(scope="module")
def video(clip) -> np.ndarray:
    return np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in clip.jpegs])


@pytest.mark.parametrize(("num_frames", "windows"), [(4, 1), (16, 1), (3, 2)])
@pytest.mark.parametrize(
    "eval_video", ["center_crop(32)", "three_crop(40)|resize(24, 24)", "resize_short_bicubic(20)|center_crop(20)"]
)
def test_decoded_frames_are_drawn_and_transformed_as_those_of_a_file(clip, video, eval_video, num_frames, windows):
    spec = InputSpec(num_frames=num_frames, eval_video=eval_video)
    made = frames_of_array(spec, video=video, fps=FPS, windows=windows)
    np.testing.assert_array_equal(made, frames_of(spec, clip=clip, windows=windows))
    assert made.shape[-4] == num_frames


def test_a_resize_differs_by_rounding_alone(clip, video):
    """`resize` of a JPEG file may decode it at a fraction of its size; at less than half it does not."""
    spec = InputSpec(num_frames=4, eval_video="resize(30, 44)")
    made = frames_of_array(spec, video=video, fps=FPS)
    assert np.abs(made.astype(int) - frames_of(spec, clip=clip).astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"video": np.zeros((0, 40, 40, 3), np.uint8)}, "n at least 1"),
        ({"video": np.zeros((2, 3, 40, 40), np.uint8)}, "channels last"),
        ({"video": np.zeros((2, 40, 40, 3), np.float32)}, "uint8"),
        ({"video": np.zeros((2, 20, 40, 3), np.uint8)}, "the given clip"),
        ({"fps": 0.0}, "fps=0.0 must be above 0"),
    ],
)
def test_what_is_no_clip_is_refused(video, change, said):
    spec = InputSpec(num_frames=4, eval_video="center_crop(32)")
    with pytest.raises(UserError, match=said):
        frames_of_array(spec, **({"video": video, "fps": FPS} | change))
