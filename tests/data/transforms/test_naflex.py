"""Frames of any aspect ratio as sequences of patches: the grid of transformers, and the pixels of a plain loop."""

import numpy as np
import pytest
from PIL import Image

from twinreel.base.errors import UserError
from twinreel.data.transforms.frames import Frames
from twinreel.data.transforms.naflex import NaFlex
from twinreel.data.transforms.preprocess import parse_video

GRIDS = {  # transformers 5.24.0: get_image_size_for_max_num_patches(height, width, 16, n) / 16
    (240, 426, 256): (12, 21),
    (426, 240, 256): (21, 12),
    (100, 100, 256): (16, 16),
    (1080, 1920, 256): (12, 21),
    (20, 2000, 256): (2, 128),
    (3, 5000, 64): (1, 64),
    (1080, 1920, 729): (20, 36),
}


@pytest.mark.parametrize("size", GRIDS)
def test_grids_are_those_of_transformers(size):
    height, width, n = size
    assert NaFlex(n, 16).grid(height, width) == GRIDS[size]


@pytest.mark.parametrize(("height", "width"), [(30, 50), (50, 30), (9, 90)])
def test_patches_stand_below_each_other_after_their_grid(height, width):
    video = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    op = NaFlex(12, 4)
    rows, columns = op.grid(height, width)
    found = op(Frames.of_video(video), np.zeros(0, np.float32)).video()
    assert found.shape == (2, 13 * 4, 4, 3) and rows * columns <= 12
    assert found[0, 0, 0].tolist() == [rows, 0, 0] and found[1, 0, 1].tolist() == [columns, 0, 0]
    small = Image.fromarray(video[1]).resize((4 * columns, 4 * rows), Image.Resampling.BILINEAR)
    for n in range(12):
        patch = found[1, 4 * (n + 1) : 4 * (n + 2)]
        row, column = divmod(n, columns)
        wanted = np.asarray(small)[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] if n < rows * columns else 0
        np.testing.assert_array_equal(patch, np.broadcast_to(wanted, patch.shape))


def test_more_than_255_rows():
    op = NaFlex(300, 2)
    found = op(Frames.of_video(np.zeros((1, 900, 1, 3), np.uint8)), np.zeros(0, np.float32)).video()
    rows = op.grid(900, 1)[0]
    assert rows > 255 and found[0, 0, 0, :2].tolist() == [rows - 256, 1]


def test_it_is_declared_and_makes_batches_of_clips_of_any_size():
    made = parse_video("naflex(256, 16)", field="config.data.eval_video")
    assert (made.height, made.width) == (257 * 16, 16)
    with pytest.raises(UserError, match=r"naflex\(n: int, patch: int=16\)"):
        parse_video("naflex(0)", field="config.data.eval_video")
