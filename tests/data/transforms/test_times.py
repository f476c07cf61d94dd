"""Operations in time, on indices."""

import numpy as np
import pytest

from twinreel.data.transforms.preprocess import parse_video

DRAWN = np.array([4, 9, 14, 19])


def move(declared: str, uniforms, *, frames=DRAWN, n: int = 24) -> list[int]:
    transform = parse_video(f"{declared}|resize(8)", field="f")
    uniforms = np.resize(np.asarray(uniforms, np.float32), transform.draws)
    return transform.times(frames, num_available=n, uniforms=uniforms).tolist()


def test_reverse():
    assert move("reverse", 0.49) == [19, 14, 9, 4]
    assert move("reverse", 0.51) == [4, 9, 14, 19]


def test_speed():
    assert move("speed(0.5, 0.5)", 0) == [8, 10, 13, 15]  # the middle is 11.5, half the distance from it
    assert move("speed(2, 2)", 0) == [0, 8, 15, 23], "no more than the whole clip"
    assert move("speed(1, 1)", 0.3) == DRAWN.tolist()
    assert move("speed(2, 2)", 0, frames=np.array([0, 2, 4])) == [0, 4, 8], "it would begin before the clip"
    assert move("speed(0.5, 2)", 0.5) == DRAWN.tolist(), "the middle of the logarithms of 1/2 and 2"
    assert move("speed(2, 2)", 0, frames=np.array([3, 3]), n=9) == [3, 3]


def test_temporal_jitter_keeps_range_and_order():
    seen = set()
    for u in np.linspace(0, 0.999, 200):
        moved = move("temporal_jitter(3)", u)
        assert moved == sorted(moved) and min(moved) >= 0 and max(moved) < 24
        assert all(abs(a - b) <= 3 for a, b in zip(moved, DRAWN, strict=True))
        seen |= {a - b for a, b in zip(moved, DRAWN, strict=True)}
        backwards = move("reverse(1)|temporal_jitter(3)", [0.0, u])
        assert backwards == sorted(backwards, reverse=True)
    assert seen == set(range(-3, 4))
    assert max(move("temporal_jitter(9)", 0.7, frames=np.array([0, 1]), n=2)) <= 1


def test_frame_dropout_repeats_the_frame_before():
    kept = []
    for u in np.linspace(0, 0.999, 400):
        moved = move("frame_dropout(0.3)", u)
        assert moved[0] == 4
        for i in range(1, 4):
            assert moved[i] in (DRAWN[i], moved[i - 1])
            kept.append(moved[i] == DRAWN[i])
    assert np.mean(kept) == pytest.approx(0.7, abs=0.05)
    assert move("frame_dropout(1)", 0.5) == [4, 4, 4, 4]
    assert move("frame_dropout(0)", 0.5) == DRAWN.tolist()


def test_operations_in_time_take_their_own_numbers_from_among_all():
    assert move("random_crop(8)|reverse|flip_lr", [0.9, 0.9, 0.1, 0.9]) == [19, 14, 9, 4]
    assert move("random_crop(8)|reverse|flip_lr", [0.1, 0.1, 0.9, 0.1]) == [4, 9, 14, 19]
