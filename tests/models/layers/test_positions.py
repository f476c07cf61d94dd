"""Positions against their formulas, and resizing against loops and against jax.image.resize."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from twinreel.base.errors import UserError
from twinreel.models.layers.positions import (
    RelativeBias,
    relative_buckets,
    resize_positions,
    resize_square,
    resize_time_map,
    resize_times,
    rotary_angles,
    rotate,
    sinusoids,
)

DRAW = np.random.default_rng(0)


@pytest.mark.parametrize("axes", [(5,), (2, 3), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("endpoint", [False, True])
def test_sinusoids_equal_their_formula(axes, interleaved, endpoint):
    share = 6
    table = sinusoids(*axes, width=share * len(axes), period=100.0, interleaved=interleaved, endpoint=endpoint)
    rates = [100 ** (-i / (2 if endpoint else 3)) for i in range(3)]
    for row, places in zip(table, itertools.product(*(range(n) for n in axes)), strict=True):
        wanted = []
        for place in places:
            angles = [place * rate for rate in rates]
            if interleaved:
                wanted += [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
            else:
                wanted += [wave(angle) for wave in (math.sin, math.cos) for angle in angles]
        np.testing.assert_allclose(row, wanted, atol=1e-12)


def torch_weight(name, distance, antialias):
    if name == "bilinear":
        return max(0.0, 1 - distance)
    a = -0.5 if antialias else -0.75
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a if distance < 2 else 0.0


def resized_by_loops(row, new, *, method, antialias=False, align_corners=False):
    """One axis `[old,D]`, tap by tap, as torch.nn.functional.interpolate documents it."""
    old, out = len(row), []
    for i in range(new):
        if method == "nearest":
            out.append(row[math.floor(i * old / new)])
            continue
        scale = (old - 1) / (new - 1) if align_corners and new > 1 else 0.0 if align_corners else old / new
        centre = i * scale if align_corners else (i + 0.5) * scale - 0.5
        stretch = max(scale, 1.0) if antialias else 1.0
        total, weights = 0.0, 0.0
        for j in range(math.floor(centre - 3 * stretch), math.ceil(centre + 3 * stretch) + 1):
            if antialias and not 0 <= j < old:
                continue  # its weight goes to the others
            weight = torch_weight(method, abs(centre - j) / stretch, antialias)
            total, weights = total + weight * row[min(max(j, 0), old - 1)], weights + weight
        out.append(total / weights)
    return np.array(out)


@pytest.mark.parametrize(
    ("old", "new"), [((4,), (9,)), ((9,), (4,)), ((1,), (3,)), ((4, 6), (7, 3)), ((2, 3, 3), (4, 2, 5))]
)
@pytest.mark.parametrize(
    "options",
    [
        {"method": "nearest"},
        {"method": "bilinear"},
        {"method": "bilinear", "align_corners": True},
        {"method": "bilinear", "antialias": True},
        {"method": "bicubic"},
        {"method": "bicubic", "antialias": True},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_resizing_equals_a_float64_loop_axis_by_axis(old, new, options):
    table = DRAW.normal(size=(2 + math.prod(old), 3))
    got = resize_positions(jnp.asarray(table, jnp.float32), old=old, new=new, leading=2, **options)
    grid = table[2:].reshape(*old, 3)
    for axis, wanted in enumerate(new):
        if old[axis] != wanted:
            grid = np.apply_along_axis(resized_by_loops, axis, grid, wanted, **options)
    assert got.shape == (2 + math.prod(new), 3)
    np.testing.assert_allclose(got[:2], table[:2], rtol=1e-6)
    np.testing.assert_allclose(got[2:], grid.reshape(-1, 3), atol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_with_antialias_it_equals_jax_image_resize(method):
    table = jnp.asarray(DRAW.normal(size=(30, 4)), jnp.float32)
    for new in ((3, 4), (8, 9)):
        got = resize_positions(table, old=(5, 6), new=new, method=method, antialias=True)
        wanted = jax.image.resize(table.reshape(5, 6, 4), (*new, 4), method=method, antialias=True)
        np.testing.assert_allclose(got, wanted.reshape(-1, 4), atol=1e-5)


def test_resizing_is_linear_in_the_table_and_keeps_what_need_not_change():
    table = jnp.asarray(DRAW.normal(size=(6, 2)), jnp.float32)
    assert resize_positions(table, old=(2, 3), new=(2, 3)) is table
    total = jax.jit(jax.grad(lambda t: jnp.sum(resize_positions(t, old=(6,), new=(4,), method="bicubic"))))(table)
    np.testing.assert_allclose(np.sum(total, axis=0), [4, 4], rtol=1e-6)  # each new row is a weighted mean of old ones
    with pytest.raises(UserError, match=r"'cubic'.*known: bicubic, bilinear, nearest"):
        resize_positions(table, old=(6,), new=(4,), method="cubic")
    with pytest.raises(ValueError, match=r"table of 6 rows, 0 of them in front; old=\(5,\)"):
        resize_positions(table, old=(5,), new=(4,))
    with pytest.raises(ValueError, match="antialias"):
        resize_positions(table, old=(6,), new=(4,), method="nearest", antialias=True)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("axes", [1, 2])
def test_rotary_positions_turn_pairs_of_channels(axes, interleaved):
    """As complex numbers: a pair (a, b) times exp(i place rate)."""
    places = DRAW.integers(0, 50, (axes, 6))
    x = DRAW.normal(size=(2, 6, 10))  # the last two channels are not turned
    got = rotate(
        jnp.asarray(x, jnp.float32), angles=rotary_angles(*places, width=8, base=100.0)[None], interleaved=interleaved
    )
    rates = [100 ** (-i / (4 // axes)) for i in range(4 // axes)]
    wanted = x.copy()
    for place, pair in itertools.product(range(6), range(4)):
        axis, number = divmod(pair, 4 // axes)
        a, b = (2 * pair, 2 * pair + 1) if interleaved else (pair, pair + 4)
        z = (x[:, place, a] + 1j * x[:, place, b]) * np.exp(1j * places[axis, place] * rates[number])
        wanted[:, place, a], wanted[:, place, b] = z.real, z.imag
    np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_rotary_scores_depend_on_the_distance_alone():
    q, k = (jnp.asarray(DRAW.normal(size=(8,)), jnp.float32) for _ in range(2))

    def score(i, j):
        angles = rotary_angles(np.array([i, j]), width=8)
        return float(jnp.dot(rotate(q, angles=angles[0]), rotate(k, angles=angles[1])))

    assert score(3, 1) == pytest.approx(score(40, 38), abs=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-2)
    with pytest.raises(UserError, match="multiple of 4, got 6"):
        rotary_angles(np.arange(2), np.arange(2), width=6)


def bucket_by_hand(distance, *, buckets, most, both):
    """T5's rule for one distance, key - query."""
    first = 0
    if both:
        buckets //= 2
        first, distance = (buckets if distance > 0 else 0), abs(distance)
    else:
        distance = max(-distance, 0)
    exact = buckets // 2
    if distance < exact:
        return first + distance
    return first + min(
        exact + int(math.log(distance / exact) / math.log(most / exact) * (buckets - exact) + 1e-9), buckets - 1
    )


@pytest.mark.parametrize("both", [True, False])
def test_relative_buckets_and_bias_are_those_of_t5(both):
    got = relative_buckets(queries=140, keys=150, bidirectional=both)
    for i, j in itertools.product(range(0, 140, 3), range(0, 150, 2)):
        assert got[i, j] == bucket_by_hand(j - i, buckets=32, most=128, both=both), (i, j)
    assert got.min() == 0 and got.max() == 31
    layer = RelativeBias(3, buckets=8, max_distance=6, bidirectional=both, rngs=nnx.Rngs(0))
    bias, numbers = (
        layer(queries=4, keys=5),
        relative_buckets(queries=4, keys=5, buckets=8, max_distance=6, bidirectional=both),
    )
    assert bias.shape == (1, 3, 4, 5)
    np.testing.assert_array_equal(bias[0, 1, 2, 4], layer.table[...][numbers[2, 4], 1])


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 11])
def test_times_are_linear_between_the_middles_of_segments(frames):
    old = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    middles = (np.arange(frames) + 0.5) / frames
    wanted = [np.interp(middles, (np.arange(5) + 0.5) / 5, old[:, d]) for d in range(3)]
    np.testing.assert_allclose(resize_times(jnp.asarray(old), times=frames), np.stack(wanted, axis=1), atol=1e-5)


@pytest.mark.parametrize("times", [4, 8, 1])
def test_a_map_of_two_time_tokens_gives_still_clips_the_same_vector_at_other_numbers(times):
    rng = np.random.default_rng(0)
    old, still = rng.normal(size=(2, 3, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    new = np.asarray(resize_time_map(jnp.asarray(old.reshape(6, 3)), times=times))
    np.testing.assert_allclose(np.tile(still, times) @ new, np.tile(still, 2) @ old.reshape(6, 3), rtol=1e-5)
    if times == 4:  # the middles of the outer segments lie beyond those of the old ones, the inner ones between
        wanted = [old[0], 0.75 * old[0] + 0.25 * old[1], 0.25 * old[0] + 0.75 * old[1], old[1]]
        np.testing.assert_allclose(new.reshape(4, 3, 3), 0.5 * np.stack(wanted), atol=1e-5)


def test_a_grid_is_resized_bilinearly():
    old = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    a, b = (np.arange(5) + 0.5) / 5, (np.arange(3) + 0.5) / 3
    resized = np.asarray(resize_square(jnp.asarray(old), side=5))
    for d in range(2):
        grid = old[:, d].reshape(3, 3)
        rows = np.stack([np.interp(a, b, grid[:, j]) for j in range(3)], axis=1)  # [5,3]
        wanted = np.stack([np.interp(a, b, rows[i]) for i in range(5)])
        np.testing.assert_allclose(resized[:, d].reshape(5, 5), wanted, atol=1e-5)
