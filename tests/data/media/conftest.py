"""Frames to tell apart, and what PyAV itself says of a file."""

from types import SimpleNamespace

import av
import numpy as np
import pytest


def reference(path):
    """All frames by PyAV's own conversion: (seconds since the first one, uint8 [H,W,3])."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [(time - frames[0][0], rgb) for time, rgb in frames]


def levels(frames):
    """The mean levels of frames, as `media.grey` takes them."""
    return [round(float(rgb.mean()) / 10) * 10 for rgb in frames]


def moving(count, size=(48, 64)):
    """Frames of noise that moves to the left."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (size[0], size[1] + count, 3), dtype=np.uint8)
    return [picture[:, index : index + size[1]] for index in range(count)]


@pytest.fixture(scope="session")
def pictures():
    """The functions above, as `pictures.reference`, `pictures.levels`, `pictures.moving`."""
    return SimpleNamespace(reference=reference, levels=levels, moving=moving)
