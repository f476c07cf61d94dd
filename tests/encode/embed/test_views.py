"""Embeddings of several views."""

import numpy as np

from twinreel.encode.embed.views import embed_views


def embed(video: np.ndarray) -> np.ndarray:
    """A fake tower: direction by the mean grey."""
    assert video.ndim == 5
    angle = video.mean(axis=(1, 2, 3, 4)) / 100
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def test_views_are_averaged_on_the_sphere():
    video = np.zeros((2, 3, 4, 5, 5, 3), np.uint8)
    video[0] += np.array([0, 50, 100], np.uint8)[:, None, None, None, None]
    video[1] += np.array([20, 20, 20], np.uint8)[:, None, None, None, None]
    want = [[np.cos(0.5), np.sin(0.5)], [np.cos(0.2), np.sin(0.2)]]
    got = embed_views(embed, video)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_array_equal(embed_views(embed, video[:, 1]), embed(video[:, 1]))


def test_views_that_cancel_out_leave_a_unit_vector():
    flip = [np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]])]
    got = embed_views(
        lambda video: flip[int(video[0, 0, 0, 0, 0])], np.arange(2, dtype=np.uint8).reshape(1, 2, 1, 1, 1, 1)
    )
    np.testing.assert_array_equal(got, [[1.0, 0.0]])
