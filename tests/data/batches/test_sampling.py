"""Frame samplers against plain Python loops in exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest

from twinreel.configs.errors import UserError
from twinreel.data.batches.sampling import SAMPLERS, sample_frames
from twinreel.data.tf_cpu import tf

LENGTHS = [1, 2, 3, 7, 8, 9, 16, 17, 100, 4999]


def reference(name: str, n: int, t: int, uniforms: np.ndarray) -> tuple[list[int], int]:
    if n <= t or name == "uniform":
        return [math.floor((Fraction(i) + Fraction(1, 2)) * n / t) for i in range(t)], 0
    if name == "uniform_jitter":
        return [math.floor((i + Fraction(float(u))) * n / t) for i, u in enumerate(uniforms)], 0
    start = {"first": 0, "middle": (n - t) // 2}[name]
    return list(range(start, start + t)), start


@pytest.mark.parametrize("name", sorted(SAMPLERS))
@pytest.mark.parametrize("t", [1, 5, 8])
def test_against_reference(name, t):
    rng = np.random.default_rng(0)
    extremes = [np.zeros(t), np.full(t, np.nextafter(np.float32(1), np.float32(0)))]
    for n in LENGTHS:
        for uniforms in [*extremes, *rng.random((3, t))]:
            uniforms = uniforms.astype(np.float32)
            drawn = sample_frames(
                name, num_available=tf.constant(n), num_frames=t, uniforms=tf.constant(uniforms, tf.float32)
            )
            frames, start = reference(name, n, t, uniforms)
            assert drawn.frames.numpy().tolist() == frames, (n, uniforms)
            assert drawn.window_start.numpy() == start
            assert min(frames) >= 0 and max(frames) < n and frames == sorted(frames)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_short_clips_repeat_all_their_frames_in_order(name):
    drawn = sample_frames(name, num_available=tf.constant(3), num_frames=8, uniforms=tf.fill([8], 0.9))
    assert drawn.frames.numpy().tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_unknown_sampler_names_the_nearest():
    with pytest.raises(UserError, match=r"'uniform_jiter'.*did you mean 'uniform_jitter'.*first, middle"):
        sample_frames("uniform_jiter", num_available=tf.constant(3), num_frames=8, uniforms=tf.zeros([8]))
