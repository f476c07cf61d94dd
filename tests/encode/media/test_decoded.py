"""Frames that another program decoded, against the frames of the same clip's JPEG pictures."""

import av
import cv2
import numpy as np
import pytest
import simplejpeg
from media_files import write_media

from twinreel.base.errors import UserError
from twinreel.data.media.clip import DecodedClip
from twinreel.data.media.decode import decode_clip
from twinreel.data.options import InputSpec
from twinreel.encode.media.decoded import frames_of_decoded
from twinreel.encode.media.files import decode_options, frames_of, rows_of

FPS, COUNT, HEIGHT, WIDTH = 5.0, 11, 40, 60


@pytest.fixture(scope="module")
def clip() -> DecodedClip:
    rng = np.random.default_rng(0)
    pictures = [
        cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        for _ in range(COUNT)
    ]
    return DecodedClip(
        encoded=[simplejpeg.encode_jpeg(picture, quality=90) for picture in pictures],
        timestamps_s=(np.arange(COUNT) / FPS).astype(np.float32),
        height=HEIGHT,
        width=WIDTH,
        audio=None,
        duration_s=COUNT / FPS,
    )


@pytest.fixture(scope="module")
def video(clip) -> np.ndarray:
    return np.stack([simplejpeg.decode_jpeg(jpeg) for jpeg in clip.encoded])


@pytest.mark.parametrize(("num_frames", "windows"), [(4, 1), (16, 1), (3, 2)])
@pytest.mark.parametrize(
    "eval_video", ["center_crop(32)", "three_crop(40)|resize(24, 24)", "resize_short_bicubic(20)|center_crop(20)"]
)
def test_decoded_frames_are_drawn_and_transformed_as_those_of_a_file(clip, video, eval_video, num_frames, windows):
    spec = InputSpec(num_frames=num_frames, eval_video=eval_video)
    made = frames_of_decoded(spec, read=video.__getitem__, count=COUNT, fps=FPS, windows=windows)
    np.testing.assert_array_equal(made, frames_of(spec, clip=clip, windows=windows))
    assert made.shape[-4] == num_frames


def test_frames_that_come_without_a_mask_are_spread_over_the_clip(clip):
    """16 frames of a clip of 11, for a model with masks: 5 are padding, and without the mask none may be."""
    spec = InputSpec(num_frames=16, eval_video="center_crop(32)", mask_frames=True)
    assert rows_of(spec, clip=clip)["video_mask"].sum() == COUNT
    plain = InputSpec(num_frames=16, eval_video="center_crop(32)")
    np.testing.assert_array_equal(frames_of(spec, clip=clip), rows_of(plain, clip=clip)["video"])


def test_a_resize_differs_by_rounding_alone(clip, video):
    """`resize` of a JPEG file may decode it at a fraction of its size; at less than half it does not."""
    spec = InputSpec(num_frames=4, eval_video="resize(30, 44)")
    made = frames_of_decoded(spec, read=video.__getitem__, count=COUNT, fps=FPS)
    assert np.abs(made.astype(int) - frames_of(spec, clip=clip).astype(int)).max() <= 1


@pytest.mark.parametrize("fps", [None, 10.0, 6.0, 7.3])
def test_the_way_of_records_is_gone_too(tmp_path, fps):
    """A model that was trained on frames of 6 per second and 40 pixels sees those of an array, too."""
    smooth = np.random.default_rng(1).integers(0, 256, (36, 5, 6, 3), dtype=np.uint8)
    frames = [cv2.resize(one, (96, 80), interpolation=cv2.INTER_CUBIC) for one in smooth]
    write_media(tmp_path / "clip.mp4", frames, fps=24)
    with av.open(str(tmp_path / "clip.mp4")) as file:
        video = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
        rate = float(file.streams.video[0].average_rate)
    decode = {"short_side": 40, "jpeg_quality": 100} | ({"fps": fps} if fps else {})
    spec = InputSpec(num_frames=9, eval_video="center_crop(36)", decode=decode)
    clip = decode_clip(tmp_path / "clip.mp4", options=decode_options(spec))
    made = frames_of_decoded(spec, read=video.__getitem__, count=len(video), fps=rate)
    away = np.abs(made.astype(int) - frames_of(spec, clip=clip).astype(int))
    assert away.mean(axis=(1, 2, 3)).max() < 4, "colours of two conversions; another frame is 40 levels away"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 0}, "0 frames"),
        ({"fps": 0.0}, "fps above 0"),
        ({"read": lambda drawn: np.zeros((len(drawn), 3, 40, 40), np.uint8)}, "channels last"),
        ({"read": lambda drawn: np.zeros((len(drawn), 40, 40, 3), np.float32)}, "uint8"),
        ({"read": lambda drawn: np.zeros((1, 40, 40, 3), np.uint8)}, r"\[4,height"),
        ({"read": lambda drawn: np.zeros((len(drawn), 20, 40, 3), np.uint8)}, "the given clip"),
    ],
)
def test_what_is_no_clip_is_refused(video, change, said):
    spec = InputSpec(num_frames=4, eval_video="center_crop(32)")
    with pytest.raises(UserError, match=said):
        frames_of_decoded(spec, **({"read": video.__getitem__, "count": COUNT, "fps": FPS} | change))
