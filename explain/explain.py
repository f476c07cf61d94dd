"""An explanation of a clip: relevance of its parts, and how far that holds."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import __version__
from ..base.errors import UserError
from ..encode.embed.encoder import Encoder
from ..encode.predict.predictor import Predictor
from .clip import Clip
from .curves import Curves, curves, rows_of
from .explained import SEGMENTS, Asked, Explained, check_clip
from .methods import Relevance, changed_clips, check_method, sound_relevance, video_relevance, word_relevance


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Relevance of one kind of parts, with its curves."""

    relevance: Relevance
    curves: Curves

    @property
    def values(self) -> np.ndarray:
        """The relevance of each part."""
        return self.relevance.values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Explanation:
    """What carries a similarity or a prediction.

    Attributes:
      clip: the clip as the model takes it.
      words: of the text; [] of a classifier.
      subject: the text, or what is predicted.
      unit: name of `value`.
      value: cosine, probability, or number of the whole clip.
      nothing: the same of the baseline, where everything is taken away.
      parts: "frames" (time steps), "patches" (cells), and "sound" and "words" where there are any.
      step_edges_s: edges of the time steps in the clip, float64 [t+1].
      sound_edges_s: edges of the segments of sound, float64 [K+1]; None without sound.
      protocol: how it was made.
    """

    clip: Clip
    words: list[str]
    subject: str
    unit: str
    value: float
    nothing: float
    parts: dict[str, Part]
    step_edges_s: np.ndarray
    sound_edges_s: np.ndarray | None
    protocol: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of explain.json."""
        head = {"path": str(self.clip.path), "subject": self.subject, "unit": self.unit}
        found: dict[str, Any] = head | {"value": self.value, "baseline_value": self.nothing}
        found["duration_s"] = round(self.clip.duration_s, 3)
        found["frames"] = _spans(self.step_edges_s, self.parts["frames"].values)
        cells = self.parts["patches"].values
        found["patches"] = {"steps": len(cells), "grid": cells.shape[1], "relevance": cells.tolist()}
        if "sound" in self.parts and self.sound_edges_s is not None:
            found["sound"] = _spans(self.sound_edges_s, self.parts["sound"].values)
        if "words" in self.parts:
            pairs = zip(self.words, self.parts["words"].values.tolist(), strict=True)
            found["words"] = [{"word": word, "relevance": value} for word, value in pairs]
        found["checks"] = {name: _checks(part) for name, part in self.parts.items()}
        return found | {"protocol": self.protocol}


def explain(
    model: Encoder | Predictor,
    clip: Clip,
    *,
    asked: Asked,
    method: str = "occlusion",
    path_steps: int = 32,
    draws: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> Explanation:
    """Measure which parts of a clip, its sound and the text carry a score, and check it.

    Args:
      model: a dual tower or a classifier that `explained.check` accepts.
      clip: of `clip.read_clip`.
      asked: what is asked of it.
      method: one of `methods.METHODS`.
      path_steps: points on the way of integrated gradients.
      draws: random orders beside the curves.
      seed: of these orders.
      progress: called with how many changed clips are scored, of how many.

    Raises:
      UserError: see `explained.Explained`, `explained.check_clip` and `methods.video_relevance`.
    """
    check_method(method)
    if path_steps < 2 or draws < 2:
        raise UserError(f"--path_steps and --draws must be at least 2, got {path_steps} and {draws}")
    check_clip(clip, asked=asked)
    explained = Explained(model, clip, asked=asked)
    tick = _counter(explained, method=method, path_steps=path_steps, draws=draws, progress=progress)
    how: dict[str, Any] = {"value": explained.value, "draws": draws, "seed": seed, "tick": tick}
    parts = _parts(explained, method=method, path_steps=path_steps, how=how)
    whole = parts["patches"].curves
    return Explanation(
        clip=clip,
        words=explained.words,
        subject=" ".join(explained.words) or explained.label or "the predicted number",
        unit=explained.unit,
        value=float(whole.deletion[0]),
        nothing=float(whole.deletion[-1]),
        parts=parts,
        step_edges_s=_edges(clip, steps=explained.steps),
        sound_edges_s=_sound_edges(clip, rate=model.input.audio_rate) if explained.heard else None,
        protocol=_protocol(explained, parts=parts, path_steps=path_steps, draws=draws, seed=seed),
    )


def _parts(explained: Explained, *, method: str, path_steps: int, how: dict[str, Any]) -> dict[str, Part]:
    """Measure the relevance of each kind of parts, and its curves; `how` are further arguments of `curves`."""
    grid, tick = explained.asked.grid, how["tick"]
    frames, cells = video_relevance(explained, method=method, path_steps=path_steps, tick=tick)

    def of_steps(keep: np.ndarray, **options: Any) -> np.ndarray:
        return explained.video_scores(np.broadcast_to(keep[:, :, None, None], (*keep.shape, grid, grid)), **options)

    parts = {
        "frames": Part(relevance=frames, curves=curves(frames.values, score=of_steps, **how)),
        "patches": Part(relevance=cells, curves=curves(cells.values, score=explained.video_scores, **how)),
    }
    if explained.heard:
        found = sound_relevance(explained, tick=tick)
        parts["sound"] = Part(relevance=found, curves=curves(found.values, score=explained.sound_scores, **how))
    if explained.words:
        found = word_relevance(explained, method=method, path_steps=path_steps, tick=tick)
        parts["words"] = Part(relevance=found, curves=curves(found.values, score=explained.word_scores, **how))
    return parts


def _counter(
    explained: Explained, *, method: str, path_steps: int, draws: int, progress: Callable[[int, int], object]
) -> Callable[[int], None]:
    """Return a function that adds to the number of changed clips that are scored."""
    total = changed_clips(explained, method=method, path_steps=path_steps)
    sizes = [explained.steps, explained.steps * explained.asked.grid**2]
    sizes += [SEGMENTS] * explained.heard + [len(explained.words)] * bool(explained.words)
    total += sum(rows_of(size, draws=draws) for size in sizes)
    done = 0

    def tick(count: int) -> None:
        nonlocal done
        done = min(total, done + count)
        progress(done, total)

    return tick


def _protocol(explained: Explained, *, parts: dict[str, Part], **options: Any) -> dict[str, Any]:
    asked, model = explained.asked, explained.model
    frames = len(explained.clip.video)
    about: dict[str, Any] = {"twinreel": __version__, "model": model.source}
    about |= {f"method_{name}": part.relevance.method for name, part in parts.items()}
    about |= {"baseline": asked.baseline, "frames": frames, "time_steps": explained.steps}
    about |= {"cells": f"{asked.grid} x {asked.grid}", **options}
    view, views = explained.clip.view
    about |= {"view": f"{view + 1} of {views}"} if views > 1 else {}
    if "sound" in parts:
        about["sound"] = "fused with the pictures" if explained.fused else "by itself, beside the pictures"
    return about


def _edges(clip: Clip, *, steps: int) -> np.ndarray:
    """Return the edges of time steps: half-way between neighbouring ones, from 0 to the end of the clip."""
    middles = clip.times_s.astype(np.float64).reshape(steps, -1).mean(axis=1)
    return np.concatenate([[0.0], (middles[1:] + middles[:-1]) / 2, [max(clip.duration_s, middles[-1])]])


def _sound_edges(clip: Clip, *, rate: int) -> np.ndarray:
    assert clip.audio is not None
    return clip.audio_start_s + np.linspace(0, len(clip.audio) / rate, SEGMENTS + 1)


def _spans(edges: np.ndarray, values: np.ndarray) -> list[dict[str, float]]:
    rounded = edges.round(3).tolist()
    spans = zip(rounded[:-1], rounded[1:], values.tolist(), strict=True)
    return [{"start_s": start, "end_s": end, "relevance": value} for start, end, value in spans]


def _checks(part: Part) -> dict[str, Any]:
    found: dict[str, Any] = {"method": part.relevance.method, **part.curves.to_dict()}
    if part.relevance.sums_to is not None:
        found["completeness"] = {
            "sum": float(part.values.sum()),
            "difference": part.relevance.sums_to,
            "gap": part.relevance.gap,
        }
    return found
