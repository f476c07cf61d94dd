"""Relevance of time steps, cells, segments of sound and words, by three methods."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float64

from ..base.errors import unknown
from ..encode.devices.rows import ways
from .cells import onto_grid
from .explained import SEGMENTS, Explained, Tick
from .rollout import PatchRollout, TokenRollout, patches_of
from .scores import PixelGradients, TokenGradients

METHODS = ("occlusion", "integrated_gradients", "attention")
"""How relevance is measured:

  occlusion             the score that is lost when a part is taken away (Zeiler & Fergus 2014)
  integrated_gradients  gradients along the straight way from the baseline to the clip (Sundararajan et al. 2017)
  attention             attention weights times their gradients, rolled out (see `rollout`)
"""
SPAN = 2
"""Cells along each side of the window that slides over a picture: relevance of a cell is the mean of its windows'."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relevance:
    """Relevance of the parts of a clip or a text: positive where they speak for the score.

    Attributes:
      method: one of `METHODS`.
      values: float64; time steps `[t]`, cells `[t,G,G]`, segments `[K]` or words `[W]`.
      sums_to: of integrated gradients, the difference that they should sum to; else None.
    """

    method: str
    values: np.ndarray
    sums_to: float | None = None

    @property
    def gap(self) -> float | None:
        """How far integrated gradients miss completeness, as a share of the difference; None of other methods."""
        if self.sums_to is None:
            return None
        return float(abs(self.values.sum() - self.sums_to) / max(abs(self.sums_to), 1e-9))


def video_relevance(
    explained: Explained, *, method: str, path_steps: int = 32, tick: Tick | None = None
) -> tuple[Relevance, Relevance]:
    """Return the relevance of time steps and of cells of the pictures.

    Occlusion measures both by themselves; of the other methods time steps have the sum of their cells.

    Args:
      explained: the model and the clip.
      method: one of `METHODS`.
      path_steps: points on the way of integrated gradients.
      tick: called with how many changed clips are done since the last call.

    Raises:
      UserError: an unknown method, or a video tower without attention among patches.
    """
    check_method(method)
    if method == "occlusion":
        return _occluded(explained, tick=tick)
    cells = _integrated(explained, points=path_steps, tick=tick) if method != "attention" else _attended(explained)
    return Relevance(method=method, values=cells.values.sum(axis=(1, 2)), sums_to=cells.sums_to), cells


def sound_relevance(explained: Explained, *, tick: Tick | None = None) -> Relevance:
    """Return the relevance of segments of the sound, by muting each: the only method for sound."""
    return Relevance(method="occlusion", values=_drops(explained.sound_scores, count=SEGMENTS, tick=tick))


def word_relevance(explained: Explained, *, method: str, path_steps: int = 32, tick: Tick | None = None) -> Relevance:
    """Return the relevance of words; by occlusion where a text tower has no attention. For the rest see above."""
    check_method(method)
    family = explained.model.spec.towers["text"]["family"]
    if method == "occlusion" or (method == "attention" and family != "transformer"):
        values = _drops(explained.word_scores, count=len(explained.words), tick=tick)
        return Relevance(method="occlusion", values=values)
    shared, owner = explained.tokens()
    if method == "attention":
        rows = {"index": np.zeros(ways(explained.model.mesh), np.int32)}
        part, sums_to = explained.apply(TokenRollout(), rows, shared=shared, batch_size=1)["part"][0], None
    else:
        part, sums_to = _integrated_tokens(explained, shared, points=path_steps, tick=tick)
    values = np.bincount(owner[owner >= 0], weights=part[owner >= 0], minlength=len(explained.words))
    return Relevance(method=method, values=values.astype(np.float64), sums_to=sums_to)


def check_method(method: str) -> None:
    """Raise UserError unless `method` is one of `METHODS`; names the nearest one."""
    if method not in METHODS:
        raise unknown("--method", method, METHODS)


def changed_clips(explained: Explained, *, method: str, path_steps: int) -> int:
    """Return how many changed clips, sounds and texts the methods score, for a progress bar."""
    grid, steps = explained.asked.grid, explained.steps
    windows = (grid + min(SPAN, grid) - 1) ** 2
    video = {"occlusion": 1 + steps * (1 + windows), "integrated_gradients": path_steps, "attention": 0}[method]
    sound = (1 + SEGMENTS) * explained.heard
    words = {"occlusion": 1 + len(explained.words), "integrated_gradients": path_steps + 2, "attention": 0}[method]
    return video + sound + words * bool(explained.words)


def _occluded(explained: Explained, *, tick: Tick | None) -> tuple[Relevance, Relevance]:
    """Take away each time step, then each window of each time step."""
    steps, grid = explained.steps, explained.asked.grid
    span = min(SPAN, grid)
    along = range(1 - span, grid)  # windows reach over the edges, so that as many cover each cell
    places = [(t, y, x) for t in range(steps) for y in along for x in along]
    keep = np.ones((1 + steps + len(places), steps, grid, grid), bool)
    keep[np.arange(1, 1 + steps), np.arange(steps)] = False
    covered = np.zeros((len(places), steps, grid, grid), bool)
    for number, (t, y, x) in enumerate(places):
        covered[number, t, max(y, 0) : y + span, max(x, 0) : x + span] = True
    keep[1 + steps :] = ~covered
    scores = explained.video_scores(keep, tick=tick)
    lost = scores[0] - scores[1:]
    cells = np.tensordot(lost[steps:], covered, axes=1) / covered.sum(axis=0)
    frames = Relevance(method="occlusion", values=lost[:steps])
    return frames, Relevance(method="occlusion", values=cells)


def _drops(
    score: Callable[..., Float64[np.ndarray, "n"]], *, count: int, tick: Tick | None
) -> Float64[np.ndarray, "count"]:
    """Return the score that is lost without each of `count` parts."""
    keep = np.concatenate([np.ones((1, count), bool), ~np.eye(count, dtype=bool)])
    scores = score(keep, tick=tick)
    return scores[0] - scores[1:]


def path_points(count: int) -> tuple[Float64[np.ndarray, "n"], Float64[np.ndarray, "n"]]:
    """Return points 0..1 and weights of an integral over the way: Gauss-Legendre in the square root of the place.

    Points lie denser near the baseline, where models change fastest, and square roots become polynomials.
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    root = (nodes + 1) / 2
    return root**2, weights * root  # d(r^2) = 2 r dr, and dr = d(node) / 2


def _integrated(explained: Explained, *, points: int, tick: Tick | None) -> Relevance:
    steps, grid = explained.steps, explained.asked.grid
    alphas, weights = path_points(points)
    function = PixelGradients(explained.score, steps, grid)
    size = max(1, explained.asked.batch_size // 4)  # gradients keep what a score need not
    made = explained.apply(function, {"alpha": alphas.astype(np.float32)}, batch_size=size, tick=tick)
    values = np.tensordot(weights, made["part"].astype(np.float64), axes=1)
    ends: Bool[np.ndarray, "2 t G G"] = np.stack([np.ones(values.shape, bool), np.zeros(values.shape, bool)])
    whole, nothing = explained.video_scores(ends)
    return Relevance(method="integrated_gradients", values=values, sums_to=float(whole - nothing))


def _integrated_tokens(
    explained: Explained, shared: dict[str, np.ndarray], *, points: int, tick: Tick | None
) -> tuple[np.ndarray, float]:
    """Return the relevance of tokens [L], and what it should sum to."""
    alphas, weights = path_points(points)
    rows = {"alpha": np.concatenate([alphas, [0.0, 1.0]]).astype(np.float32)}
    made = explained.apply(TokenGradients(), rows, shared=shared, tick=tick)
    part = np.tensordot(weights, made["part"][:points].astype(np.float64), axes=1)
    return part, float(made["score"][-1]) - float(made["score"][-2])


def _attended(explained: Explained) -> Relevance:
    tower, family = explained.model.model.video, explained.model.spec.towers["video"]["family"]
    patches = patches_of(tower, family=family, shape=explained.clip.video.shape)
    rows = {"index": np.zeros(ways(explained.model.mesh), np.int32)}
    part = explained.apply(PatchRollout(explained.score, patches), rows, batch_size=1)["part"][0]
    cells = onto_grid(part.astype(np.float64), grid=explained.asked.grid)
    shared = np.repeat(cells, explained.steps // len(cells), axis=0) if explained.steps % len(cells) == 0 else cells
    return Relevance(method="attention", values=shared)
