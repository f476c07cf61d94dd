"""Rendered clips show what their attributes say: by brightness, by centre and area, against polygons of Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from twinreel.demo.render import COLOURS, MOTIONS, SHAPES, Event, render_clip


def render(**attributes) -> np.ndarray:
    given = {"shape": "star", "colour": "white", "size": "large", "texture": "plain", "motion": "turns", "seed": 2}
    event = Event(**(given | {"frames": 16} | attributes))
    return render_clip([event], size=64, seed=9)


def cover(frames: np.ndarray) -> np.ndarray:
    """How much of each pixel a white shape hides, from the brightness alone (the background stays below 120)."""
    return np.clip((frames.astype(float).mean(-1) - 120) / 110, 0, 1)


def centroids(mask: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[:64, :64]
    return np.stack([(mask * axis).sum((1, 2)) / mask.sum((1, 2)) for axis in (x, y)], axis=1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_is_what_its_name_says(motion, seed):
    frames = render(shape="triangle", size="small", motion=motion, seed=seed)
    mask = cover(frames)
    if motion == "fades":
        brightness = frames[:, 10:54, 10:54].astype(float).max((1, 2, 3))
        assert (np.diff(brightness) < 0).all() and brightness[-1] < 0.6 * brightness[0]
        return
    area, centre = mask.sum((1, 2)), centroids(mask)
    way = centre[-1] - centre[0]
    wanted = {"slides left": (-1, 0), "slides right": (1, 0), "falls": (0, 1), "rises": (0, -1)}.get(motion)
    if wanted:
        assert np.dot(way, wanted) > 20 and abs(np.dot(way, wanted[::-1])) < 1
        assert (np.diff(centre @ np.array(wanted)) > 0).all()
    else:
        assert np.abs(way).max() < 2
    if motion == "grows":
        assert (np.diff(area) > 0).all() and area[-1] > 6 * area[0]
    elif motion == "shrinks":
        assert (np.diff(area) < 0).all() and area[0] > 6 * area[-1]
    else:
        assert area.max() < 1.1 * area.min()
    swept = np.abs(mask[7] - mask[0]).sum() / area[0]
    if motion == "turns":
        assert swept > 0.3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_shape_is_the_polygon_that_pillow_draws(shape, size):
    frame = render(shape=shape, size=size, motion="fades", seed=6)[:1]
    mask = cover(frame)[0]
    rng = np.random.default_rng(6)  # the same draws as the renderer: radius, place, (way, turn), tilt
    radius = {"small": 0.16, "large": 0.26}[size] * 64 * rng.uniform(0.93, 1.07)
    x, y = rng.uniform(0.38, 0.62, 2) * 64
    rng.uniform(), rng.choice([-1, 1]), rng.uniform()
    tilt = rng.uniform(-0.15, 0.15)

    scale = 16
    canvas = Image.new("L", (64 * scale, 64 * scale))
    draw = ImageDraw.Draw(canvas)

    def around(points):
        turned = [(px * np.cos(tilt) - py * np.sin(tilt), px * np.sin(tilt) + py * np.cos(tilt)) for px, py in points]
        return [((x + radius * px) * scale, (y + radius * py) * scale) for px, py in turned]

    def circle(r, fill):
        box = [(x - r * radius) * scale, (y - r * radius) * scale, (x + r * radius) * scale, (y + r * radius) * scale]
        draw.ellipse(box, fill=fill)

    if shape in ("disc", "ring"):
        circle(1.0 if shape == "disc" else 1.02, 255)
        if shape == "ring":
            circle(0.46, 0)
    elif shape == "cross":
        draw.polygon(around([(-1, -0.4), (1, -0.4), (1, 0.4), (-1, 0.4)]), fill=255)
        draw.polygon(around([(-0.4, -1), (0.4, -1), (0.4, 1), (-0.4, 1)]), fill=255)
    else:
        corners = {"square": [0.86 * 2**0.5] * 4, "triangle": [1.28] * 3, "star": [1.25, 0.55] * 5}[shape]
        turn = 0.5 if shape == "square" else 0
        angles = [2 * np.pi * (i + turn) / len(corners) for i in range(len(corners))]
        draw.polygon(around([(r * np.sin(a), -r * np.cos(a)) for r, a in zip(corners, angles, strict=True)]), fill=255)
    wanted = np.asarray(canvas.resize((64, 64), Image.Resampling.BOX)) / 255
    overlap = np.minimum(mask, wanted).sum() / np.maximum(mask, wanted).sum()
    assert overlap > 0.87


def test_attributes_can_be_told_apart():
    plain, striped, dotted = (
        render(shape="square", texture=t, motion="fades")[0] for t in ("plain", "striped", "dotted")
    )
    bright = [cover(frame[None]).sum() for frame in (plain, striped, dotted)]
    assert bright[1] < 0.8 * bright[0] and bright[2] < 0.8 * bright[0]
    assert np.abs(striped.astype(float) - dotted).max() > 100
    small, large = (cover(render(size=s)).sum() for s in ("small", "large"))
    assert large > 2.2 * small
    mean = {c: render(shape="disc", motion="fades", colour=c)[0].max((0, 1)).astype(float) for c in COLOURS}
    names = list(COLOURS)
    distances = [np.linalg.norm(mean[a] - mean[b]) for i, a in enumerate(names) for b in names[:i]]
    assert min(distances) > 70
