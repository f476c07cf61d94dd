"""What is abnormal in films: their labels and spans, and figures over all frames as UCF-Crime's codes count them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...encode.predict.steps import FilmScores
from ...evaluate.measures.anomaly import (
    CLIP_FRAMES,
    frame_figures,
    frames_of_clips,
    frames_of_events,
    frames_of_segments,
    mean_pool,
)
from ..examples.clips import LabelledClips, Row, first_label

SEGMENTS = 32
"""Of a video, in the reading of Sultani et al."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
    """A film of which the scores are known.

    Attributes:
      clip_id: of the film.
      label: its class.
      abnormal: whether that is not a normal one.
      spans: float64 [m,2], where it is abnormal, seconds; none of an abnormal film: nobody has marked them.
      rate: frames per second of the file.
      duration_s: its length.
      found: the scores.
    """

    clip_id: str
    label: str
    abnormal: bool
    spans: np.ndarray
    rate: float
    duration_s: float
    found: FilmScores

    @property
    def marked(self) -> bool:
        """Whether it is known which frames are abnormal."""
        return not self.abnormal or bool(len(self.spans))

    @property
    def frames(self) -> int:
        """How many frames the file has."""
        return max(1, round(self.duration_s * self.rate))

    @property
    def times(self) -> np.ndarray:
        """The middle of each frame in seconds, float64 [frames]."""
        return (np.arange(self.frames) + 0.5) * self.duration_s / self.frames

    @property
    def truth(self) -> np.ndarray:
        """Which frames are abnormal, bool [frames]."""
        times = self.times[:, None]
        return np.any((times >= self.spans[:, 0]) & (times < self.spans[:, 1]), axis=1)

    @property
    def events(self) -> list[tuple[int, int]]:
        """First and last frame of each span, counted from 1 as in UCF-Crime's annotation."""
        rate = self.frames / self.duration_s
        firsts = [min(int(start * rate + 0.5) + 1, self.frames) for start in self.spans[:, 0]]
        lasts = [min(int(end * rate + 0.5), self.frames) for end in self.spans[:, 1]]
        return [(first, max(first, last)) for first, last in zip(firsts, lasts, strict=True)]


def film_of(row: Row, *, found: FilmScores, normal: Sequence[str]) -> Film:
    """Join a line of `clips.jsonl` and the scores of the film.

    Raises:
      UserError: a normal film with spans.
    """
    label = first_label(row) or ""
    spans = [(span["start_s"], span["end_s"]) for span in row.get("spans") or () if span["end_s"] > span["start_s"]]
    if label in normal and spans:
        raise UserError(
            f"clip {row['clip_id']!r} has the label {label!r}, which config.task.normal counts as normal, and spans, "
            "which mark what is abnormal; correct the manifest"
        )
    duration = float(row["duration_s"])
    stated = (row.get("source") or {}).get("fps")
    return Film(
        clip_id=row["clip_id"],
        label=label,
        abnormal=label not in normal,
        spans=np.array(spans, np.float64).reshape(-1, 2),
        rate=float(stated or max(row["num_frames"], 1) / duration),
        duration_s=duration,
        found=found,
    )


def check_kinds(clips: LabelledClips, *, normal: Sequence[str], field: str) -> np.ndarray:
    """Return which classes are abnormal, bool [K]; raise UserError unless the clips are of both kinds."""
    abnormal = np.array([name not in normal for name in clips.labels])
    found = abnormal[clips.label[clips.indices]]
    if not found.any() or found.all():
        kind = "abnormal" if found.all() else "normal"
        raise UserError(
            f"all {len(found)} clips of split {clips.split!r} ({field}) are {kind}, and the task needs both kinds; "
            f"config.task.normal={list(normal)} names the labels of normal clips (labels: {', '.join(clips.labels)})"
        )
    return abnormal


def anomaly_figures(films: Sequence[Film]) -> dict[str, Any]:
    """Return the figures of films, fractions.

    Returns:
      `n` and `abnormal`, numbers of films; `video_auc`, of the highest score of each film; `unmarked`, abnormal films
      without spans, which no figure over frames counts. If all kinds are there (else None): `frames`, of
      `measures.anomaly.frame_figures` over all frames; `by_label`: AUC over the frames of the films of that label and
      of all normal ones; `sultani` and `rtfm`, the same figures as these codes read scores and truth, over the films
      of at least 16 frames; `changes`, of the change from frame to frame in place of a model.
    """
    from sklearn.metrics import roc_auc_score

    abnormal = np.array([film.abnormal for film in films])
    whole: dict[str, Any] = {"n": len(films), "abnormal": int(abnormal.sum()), "video_auc": None}
    if abnormal.any() and not abnormal.all():
        whole["video_auc"] = float(roc_auc_score(abnormal, [film.found.scores.max() for film in films]))
    marked = [film for film in films if film.marked]
    whole["unmarked"] = len(films) - len(marked)
    truth = [film.truth for film in marked]
    every = np.concatenate(truth) if truth else np.zeros(0, bool)
    if every.all() or not every.any():
        return whole | dict.fromkeys(("frames", "by_label", "sultani", "rtfm", "changes"))
    scores = [film.found.at(film.times) for film in marked]
    changes = [film.found.at(film.times, values=film.found.changes) for film in marked]
    whole["frames"] = frame_figures(np.concatenate(scores), abnormal=every)
    whole["changes"] = frame_figures(np.concatenate(changes), abnormal=every)
    whole["by_label"] = _by_label(marked, scores=scores, changes=changes, truth=truth)
    return whole | _readings(marked, scores=scores)


def _by_label(
    films: Sequence[Film], *, scores: list[np.ndarray], changes: list[np.ndarray], truth: list[np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Return `auc`, that of the `changes`, and `n`, the number of films, for each label of abnormal films."""
    found = {}
    for label in sorted({film.label for film in films if film.abnormal}):
        chosen = [i for i, film in enumerate(films) if not film.abnormal or film.label == label]
        own = np.concatenate([truth[i] for i in chosen])
        if own.all() or not own.any():
            continue
        auc, plain = (
            frame_figures(np.concatenate([values[i] for i in chosen]), abnormal=own)["auc"]
            for values in (scores, changes)
        )
        found[label] = {"auc": auc, "changes": plain, "n": sum(films[i].abnormal for i in chosen)}
    return found


def _readings(films: Sequence[Film], *, scores: list[np.ndarray]) -> dict[str, Any]:
    """Return the figures as the codes of Sultani et al. and RTFM read scores and truth."""
    found: dict[str, list[list[np.ndarray]]] = {"sultani": [[], []], "rtfm": [[], []]}
    for film, own in zip(films, scores, strict=True):
        clips = film.frames // CLIP_FRAMES
        if not clips:
            continue
        segments = mean_pool(own, segments=SEGMENTS)
        by_clip = own[: clips * CLIP_FRAMES].reshape(clips, CLIP_FRAMES).mean(axis=1)
        found["sultani"][0].append(frames_of_segments(segments, clips=clips, frames=film.frames))
        found["sultani"][1].append(frames_of_events(film.events, frames=film.frames))
        found["rtfm"][0].append(frames_of_clips(by_clip))
        found["rtfm"][1].append(frames_of_events(film.events, frames=clips * CLIP_FRAMES, first=0))
    figures = {}
    for name, (values, truth) in found.items():
        every = np.concatenate(truth) if truth else np.zeros(0, bool)
        both = every.any() and not every.all()
        figures[name] = frame_figures(np.concatenate(values), abnormal=every) if both else None
    return figures
