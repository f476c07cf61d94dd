"""Frame samplers against plain Python loops in exact arithmetic."""

import math
from fractions import Fraction

import numpy as np
import pytest

from twinreel.base.errors import UserError
from twinreel.data.batches.sampling import SAMPLERS, crop_within, parse_sampler, sample_window, window_of

LENGTHS = [1, 2, 3, 7, 8, 9, 16, 17, 100, 4999]
FPS = 8  # a power of two: the times are exact


def draw(name, *, n, t, uniforms=None, window=None, fps=FPS):
    times = np.arange(n) / fps
    uniforms = np.zeros(t, np.float32) if uniforms is None else uniforms
    sampler = parse_sampler(name, field="config.data.train_sampling")
    return sample_window(sampler, times=times, window=window or (0.0, n / fps), num_frames=t, uniforms=uniforms)


def evenly(n: int, t: int) -> list[int]:
    return [math.floor((Fraction(i) + Fraction(1, 2)) * n / t) for i in range(t)]


def reference(name: str, n: int, t: int, uniforms: np.ndarray) -> tuple[list[int], float]:
    """Frames and start of the window in seconds."""
    if n <= t or name == "uniform":
        return evenly(n, t), 0.0
    if name == "uniform_jitter":
        return [math.floor((i + Fraction(float(u))) * n / t) for i, u in enumerate(uniforms)], 0.0
    start = {"first": 0, "middle": (n - t) // 2, "dense": min(math.floor(float(uniforms[0]) * (n - t + 1)), n - t)}
    return list(range(start[name], start[name] + t)), start[name] / FPS


@pytest.mark.parametrize("name", ["uniform", "uniform_jitter", "first", "middle", "dense"])
@pytest.mark.parametrize("t", [1, 5, 8])
def test_against_reference(name, t):
    rng = np.random.default_rng(0)
    extremes = [np.zeros(t), np.full(t, np.nextafter(np.float32(1), np.float32(0)))]
    for n in LENGTHS:
        for uniforms in [*extremes, *rng.random((3, t))]:
            uniforms = uniforms.astype(np.float32)
            drawn = draw(name, n=n, t=t, uniforms=uniforms)
            frames, start = reference(name, n, t, uniforms)
            assert drawn.frames.tolist() == frames, (n, uniforms)
            assert drawn.start_s == start
            assert min(frames) >= 0 and max(frames) < n and frames == sorted(frames)
            assert drawn.end_s == (start + t / FPS if name in ("first", "middle", "dense") and n > t else n / FPS)


@pytest.mark.parametrize("name", ["uniform", "uniform_jitter", "dense", "first", "middle"])
def test_short_clips_repeat_all_their_frames_in_order(name):
    assert draw(name, n=3, t=8, uniforms=np.full(8, 0.9, np.float32)).frames.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("t", [1, 3, 8, 16])
def test_segment_starts_by_number(t):
    """`int(linspace(0, n, T, endpoint=False))`, whatever the times; short clips too."""
    for n in LENGTHS:
        drawn = draw("segment_starts", n=n, t=t)
        assert drawn.frames.tolist() == [math.floor(Fraction(i * n, t)) for i in range(t)]
        assert (drawn.start_s, drawn.end_s) == (0.0, n / FPS)
    begins, end = UNEVEN["bursts"]
    sampler = parse_sampler("segment_starts", field="f")
    times, zeros = np.array(begins) / 100, np.zeros(4, np.float32)
    drawn = sample_window(sampler, times=times, window=(0.0, end / 100), num_frames=4, uniforms=zeros)
    assert drawn.frames.tolist() == [0, 2, 4, 6] and not sampler.random


@pytest.mark.parametrize("t", [1, 3, 8, 16])
def test_frames_by_number_as_public_models_draw_them(t):
    """InternVideo2's middles, ViCLIP's `frames[:: n // T][:T]`, PE-core's `int(i * (n - 1) / (T - 1))`."""
    for n in LENGTHS:
        parts = min(n, t)
        edges = [math.floor(Fraction(i * n, parts)) for i in range(parts + 1)]
        middles = [(edges[i] + edges[i + 1] - 1) // 2 for i in range(parts)]
        strided = list(range(n))[:: max(n // t, 1)][:t]
        wanted = {
            "segment_middles": middles + [middles[-1]] * (t - parts),
            "strides": strided + [n - 1] * (t - len(strided)),
            "endpoints": [math.floor(Fraction(i * (n - 1), max(t - 1, 1))) for i in range(t)],
        }
        for name, frames in wanted.items():
            drawn = draw(name, n=n, t=t)
            assert drawn.frames.tolist() == frames and (drawn.start_s, drawn.end_s) == (0.0, n / FPS)
            assert not SAMPLERS[name].random


def test_strides():
    assert draw("first(3)", n=20, t=4).frames.tolist() == [0, 3, 6, 9]
    assert draw("middle(3)", n=20, t=4).frames.tolist() == [5, 8, 11, 14]
    assert draw("dense(3)", n=20, t=4, uniforms=np.full(4, 0.999, np.float32)).frames.tolist() == [10, 13, 16, 19]
    for name in ("dense(3)", "first(3)", "middle(3)"):
        exactly = draw(name, n=10, t=4, uniforms=np.full(4, 0.7, np.float32))
        assert exactly.frames.tolist() == [0, 3, 6, 9] and (exactly.start_s, exactly.end_s) == (0.0, 10 / FPS)
        assert draw(name, n=9, t=4).frames.tolist() == evenly(9, 4), "one frame too few"


UNEVEN = {  # when 8 frames begin, in hundredths of a second, and the end
    "bursts": ([0, 10, 15, 190, 200, 310, 320, 450], 500),
    "a long first frame": ([0, 500, 504, 508, 512, 516, 520, 524], 528),
    "a long last frame": ([0, 4, 8, 12, 16, 20, 24, 28], 600),
    "late": ([40, 50, 60, 70, 80, 90, 100, 110], 120),
}


def shown_at(begins: list[int], at: Fraction) -> int:
    """The frame on display at a time, by looking at every frame; the first one before it begins."""
    return max([k for k, begin in enumerate(begins) if begin <= at], default=0)


@pytest.mark.parametrize("begins", UNEVEN)
@pytest.mark.parametrize("name", ["uniform", "uniform_jitter", "dense", "first", "middle"])
@pytest.mark.parametrize("t", range(1, 13))
def test_uneven_stamps(name, begins, t):
    """Exact arithmetic: with at least as many places as frames, each frame has one and those shown longest the rest."""
    begins, end = UNEVEN[begins]
    sampler = parse_sampler(name, field="f")
    uniforms = np.linspace(0.1, 0.8, t, dtype=np.float32)
    times = np.array(begins) / 100
    drawn = sample_window(sampler, times=times, window=(0.0, end / 100), num_frames=t, uniforms=uniforms)
    n, frames = len(begins), drawn.frames.tolist()
    middles = [shown_at(begins, Fraction(end) * (2 * i + 1) / (2 * t)) for i in range(t)]
    if t >= n:
        assert sorted(set(frames)) == list(range(n)) and frames == sorted(frames)
        assert (drawn.start_s, drawn.end_s) == (0.0, end / 100)
        counts, wanted = [frames.count(k) for k in range(n)], [middles.count(k) for k in range(n)]
        for k in range(n):  # a frame gives places away only to one that has none
            assert counts[k] == 1 if wanted[k] <= 1 else 1 <= counts[k] <= wanted[k]
        if t == n:
            assert frames == list(range(n))
    elif name == "uniform":
        assert frames == middles
    elif name == "uniform_jitter":
        assert frames == [
            shown_at(begins, Fraction(end) * (i + Fraction(float(u))) / t) for i, u in enumerate(uniforms)
        ]
    else:
        first = {"first": 0, "middle": (n - t) // 2, "dense": math.floor(float(uniforms[0]) * (n - t + 1))}[name]
        assert frames == list(range(first, first + t))
        assert drawn.start_s == (begins[first] / 100 if first else 0.0)
        assert drawn.end_s == begins[first + t] / 100 if first + t < n else end / 100


@pytest.mark.parametrize("name", ["uniform", "uniform_jitter", "dense", "first", "middle"])
def test_a_window_with_exactly_enough_frames_gives_them_all(name):
    drawn = draw(name, n=80, t=16, window=(2.0, 4.0), uniforms=np.full(16, 0.9, np.float32))
    assert drawn.frames.tolist() == list(range(16, 32)) and (drawn.start_s, drawn.end_s) == (2.0, 4.0)


def test_crops():
    assert crop_within((2.0, 6.0), seconds=1.0, place=0.5) == (3.5, 4.5)
    assert crop_within((2.0, 6.0), seconds=1.0, place=0.0) == (2.0, 3.0)
    assert crop_within((2.0, 6.0), seconds=1.0, place=1.0) == (5.0, 6.0)
    assert (
        crop_within((2.0, 6.0), seconds=4.0, place=0.3) == crop_within((2.0, 6.0), seconds=9.0, place=1.0) == (2.0, 6.0)
    )


@pytest.mark.parametrize("rate", [0.7, 2.0, 3.3])
@pytest.mark.parametrize("name", ["fps", "fps_first", "fps_middle"])
def test_a_fixed_rate_takes_the_frame_on_display(name, rate):
    """Irregular times; the frame on display is looked for by a loop."""
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.uniform(0.02, 0.4, 60)) - 0.02
    duration, t = float(times[-1] + 0.2), 5
    sampler = parse_sampler(f"{name}({rate})", field="f")
    for u in (0.0, 0.37, 0.99):
        uniforms = np.full(t, u, np.float32)
        drawn = sample_window(sampler, times=times, window=(0.0, duration), num_frames=t, uniforms=uniforms)
        room = max(duration - t / rate, 0)
        begin = {"fps": float(uniforms[0]) * room, "fps_first": 0.0, "fps_middle": room / 2}[name]
        for i, frame in enumerate(drawn.frames):
            at = begin + (i + 0.5) / rate
            shown = [k for k, time in enumerate(times) if time <= at + 1e-4]
            assert frame == (shown[-1] if shown else 0)
        assert drawn.start_s == pytest.approx(begin)
        assert drawn.end_s == pytest.approx(min(begin + t / rate, duration))


def test_a_window_cuts_before_the_sampler_draws():
    drawn = draw("uniform", n=80, t=4, window=(2.0, 4.0))  # frames 16 to 31
    assert drawn.frames.tolist() == [16 + k for k in evenly(16, 4)]
    assert (drawn.start_s, drawn.end_s) == (2.0, 4.0)
    drawn = draw("first", n=80, t=4, window=(2.06, 4.0))
    assert drawn.frames.tolist() == [16, 17, 18, 19], "the frame on display at the window's start belongs to it"
    assert draw("uniform", n=80, t=2, window=(9.99, 10.0)).frames.tolist() == [79, 79]


def test_windows():
    assert window_of(duration_s=10.0, seconds=0.0, place=0.3) == (0.0, 10.0)
    assert window_of(duration_s=10.0, seconds=12.0, place=0.3) == (0.0, 10.0)
    assert window_of(duration_s=10.0, seconds=4.0, place=0.5) == (3.0, 7.0)
    assert window_of(duration_s=10.0, seconds=4.0, place=1.0) == (6.0, 10.0)


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("uniform_jiter", r"'uniform_jiter'.*did you mean 'uniform_jitter'"),
        ("dense(0)", r"dense\(stride: int=1\): stride must be at least 1"),
        ("fps", r"fps\(rate: float\)"),
        ("fps(-1)", r"rate must be above 0"),
        ("uniform|first", r"must name one sampler"),
        ("", r"must name one sampler"),
    ],
)
def test_bad_declarations(declared, message):
    with pytest.raises(UserError, match=message):
        parse_sampler(declared, field="config.data.train_sampling")


def test_every_sampler_says_whether_it_is_random():
    times = np.arange(100) / FPS
    for name in SAMPLERS:
        sampler = parse_sampler(f"{name}(2.0)" if name.startswith("fps") else name, field="f")
        drawn = set()
        for uniform in (0.0, 0.3, 0.9):
            uniforms = np.full(4, uniform, np.float32)
            found = sample_window(sampler, times=times, window=(0.0, 12.5), num_frames=4, uniforms=uniforms)
            drawn.add(tuple(found.frames.tolist()))
        assert (len(drawn) > 1) == sampler.random, name
