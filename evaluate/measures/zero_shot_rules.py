"""From the texts of templates and the frames of clips to class scores: the rules in use, named.

`text` is float [c,t,E], c classes by t templates; `video` is float [n,f,E], f frames (or views) of n clips. Both raw:
each rule says where it normalises.
"""

from collections.abc import Callable

import numpy as np
from scipy.special import softmax

from ...base.errors import UserError, unknown
from .checks import check_numbers

VIDEO_RULES = ("mean_then_unit", "unit_frames", "unit_frames_unscaled")


def video_vectors(video: np.ndarray, *, rule: str = "unit_frames") -> np.ndarray:
    """Return one vector per clip, float64 [n,E].

    Args:
      video: float [n,f,E], raw frame embeddings.
      rule: "mean_then_unit", the mean of raw frames, normalised (PE's classification, CLIP4Clip); "unit_frames", the
        mean of unit frames, normalised; "unit_frames_unscaled", the mean of unit frames as it is (PE's retrieval): a
        clip of unlike frames is shorter.

    >>> frames = np.array([[[2.0, 0.0], [0.0, 1.0]]])
    >>> [video_vectors(frames, rule=rule).round(3).tolist() for rule in VIDEO_RULES]
    [[[0.894, 0.447]], [[0.707, 0.707]], [[0.5, 0.5]]]
    """
    video = _check(video, name="video")
    if rule not in VIDEO_RULES:
        raise unknown("rule for the frames of a clip", rule, VIDEO_RULES)
    if rule == "mean_then_unit":
        return _unit(video.mean(axis=1), name="mean of the frames of video")
    mean = _unit(video, name="video").mean(axis=1)
    return mean if rule == "unit_frames_unscaled" else _unit(mean, name="mean of the frames of video")


def class_weights(text: np.ndarray) -> np.ndarray:
    """Return a unit vector per class, float64 [c,E]: unit texts, their mean, normalised (CLIP's rule).

    open_clip, CLIP_benchmark and PE compute the same weights.

    >>> class_weights(np.array([[[3.0, 0.0], [0.0, 1.0]]])).round(3).tolist()
    [[0.707, 0.707]]
    """
    return _unit(_unit(_check(text, name="text"), name="text").mean(axis=1), name="mean of the templates of text")


def unit_text_means(text: np.ndarray, *, video: np.ndarray, scale: float = 100.0) -> np.ndarray:
    """Score by the cosine with the class's unit mean text (CLIP's rule).

    Args:
      text: float [c,t,E].
      video: float [n,E], from `video_vectors`; used as it is.
      scale: not used by this rule; the order of the classes does not depend on it.

    >>> unit_text_means(np.array([[[3.0, 0.0]], [[0.0, 1.0]]]), video=np.array([[0.6, 0.8]])).tolist()
    [[0.6, 0.8]]
    """
    return video @ class_weights(text).T


def raw_text_means(text: np.ndarray, *, video: np.ndarray, scale: float = 100.0) -> np.ndarray:
    """Score by the cosine with the class's mean of raw texts, normalised. Arguments as in `unit_text_means`.

    >>> raw_text_means(np.array([[[3.0, 0.0], [0.0, 4.0]]]), video=np.array([[0.6, 0.8]])).round(6).tolist()
    [[1.0]]
    """
    mean = _check(text, name="text").mean(axis=1)
    return video @ _unit(mean, name="mean of the templates of text").T


def mean_of_cosines(text: np.ndarray, *, video: np.ndarray, scale: float = 100.0) -> np.ndarray:
    """Score by the mean over templates of the cosine: the class mean keeps its length (InternVideo2).

    Arguments as in `unit_text_means`.

    >>> mean_of_cosines(np.array([[[3.0, 0.0], [0.0, 1.0]]]), video=np.array([[0.6, 0.8]])).round(6).tolist()
    [[0.7]]
    """
    return video @ _unit(_check(text, name="text"), name="text").mean(axis=1).T


def softmax_per_template(text: np.ndarray, *, video: np.ndarray, scale: float = 100.0) -> np.ndarray:
    """Score by the mean over templates of a softmax over the classes (ActionCLIP). Arguments as in `unit_text_means`.

    Args:
      text: float [c,t,E].
      video: float [n,E], from `video_vectors`.
      scale: the temperature that multiplies the cosines.

    >>> text = np.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    >>> softmax_per_template(text, video=np.array([[0.6, 0.8]])).tolist()
    [[0.5, 0.5]]
    """
    return softmax(scale * _cosines(text, video=video), axis=1).mean(axis=2)


def softmax_over_pairs(text: np.ndarray, *, video: np.ndarray, scale: float = 100.0) -> np.ndarray:
    """Score by the mean over templates of one softmax over all pairs of class and template.

    InternVideo2's `tasks` does so for models with a matching head, at scale 1.

    Arguments as in `softmax_per_template`.

    >>> text = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]])
    >>> softmax_over_pairs(text, video=np.array([[0.6, 0.8]])).tolist()
    [[0.25, 0.25]]
    """
    return softmax(scale * _cosines(text, video=video), axis=(1, 2)).mean(axis=2)


RULES: dict[str, Callable[..., np.ndarray]] = {
    "unit_text_means": unit_text_means,
    "raw_text_means": raw_text_means,
    "mean_of_cosines": mean_of_cosines,
    "softmax_per_template": softmax_per_template,
    "softmax_over_pairs": softmax_over_pairs,
}
DEFAULT_RULE = "unit_text_means"
VIEW_RULES = ("score", "prob", "max", "prob_max")


def combine_views(logits: np.ndarray, *, rule: str = "score") -> np.ndarray:
    """Return one row of scores per clip from those of its views, float64 [n,c].

    Args:
      logits: float [n,v,c], v views of n clips.
      rule: "score", the mean of the logits (mmaction2, SlowFast's sum on logits); "prob", the mean of their softmax
        (SlowFast's sum, since its heads end in softmax when testing); "max", their maximum; "prob_max", the maximum of
        their softmax.

    >>> combine_views(np.array([[[2.0, 0.0], [0.0, 1.0]]])).tolist()
    [[1.0, 0.5]]
    """
    logits = _check(logits, name="logits")
    if rule not in VIEW_RULES:
        raise unknown("rule for the views of a clip", rule, VIEW_RULES)
    values = softmax(logits, axis=2) if rule.startswith("prob") else logits
    return values.max(axis=1) if rule.endswith("max") else values.mean(axis=1)


def _cosines(text: np.ndarray, *, video: np.ndarray) -> np.ndarray:
    classes, templates, width = text.shape
    unit = _unit(_check(text, name="text"), name="text").reshape(-1, width)  # one matmul: einsum would not call BLAS
    return (video @ unit.T).reshape(len(video), classes, templates)


def _check(rows: np.ndarray, *, name: str) -> np.ndarray:
    rows = check_numbers(rows, name=name, dimensions=3)
    bad = np.argwhere(~np.isfinite(rows))
    if len(bad):
        raise UserError(
            f"{name!r} of row {bad[0][0]}, entry {bad[0][1]} is not finite; encode it again or leave it out"
        )
    return rows


def _unit(rows: np.ndarray, *, name: str) -> np.ndarray:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    if not length.all():
        place = np.argwhere(length[..., 0] == 0)[0].tolist()
        raise UserError(f"{name} is all zero at {place} and has no direction; encode it again or leave it out")
    return rows / length
