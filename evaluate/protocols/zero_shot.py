"""Zero-shot classification: from the texts of templates, or from given scores, to the report in `zero_shot.json`."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ... import __version__
from ...base.errors import UserError, unknown
from ..measures.checks import check_scores
from ..measures.classes import calibration, mean_class_accuracy, most_confused, per_class, top_k
from ..measures.intervals import bootstrap, wilson_interval
from ..measures.multilabel import (
    class_average_precision,
    f1_figures,
    gap,
    hit_at_one,
    kept_average_precision,
    mean_average_precision,
    perr,
    pooled_average_precision,
    sample_average_precision,
)
from ..measures.ranks import TIE_RULE, ranks
from ..measures.rerank import dual_softmax
from ..measures.zero_shot_rules import DEFAULT_RULE, RULES, VIDEO_RULES, combine_views, video_vectors
from .classified import Classified
from .marks import marked
from .options import parse_named
from .retrieval import coverage_of

DEFAULT_FRAME_RULE, DEFAULT_VIEW_RULE = "unit_frames", "score"
OF_EMBEDDINGS = "embedding"
"""The rule for views by which their embeddings are averaged, before any score."""
DEFAULT_KEEP = 20
INTERVALS = "95 %, bootstrap over clips with 1,000 samples; Wilson's where all clips are right or all are wrong"
TASK = "zero-shot classification"
_PROBABILITIES = ("softmax_per_template", "softmax_over_pairs")
_BLOCK = 1 << 24  # scores of clips by classes by templates that are held at a time
_GRID = 2.0**40


def zero_shot_report(
    found: Classified,
    *,
    rule: str = DEFAULT_RULE,
    frame_rule: str = DEFAULT_FRAME_RULE,
    view_rule: str = "",
    scale: float | None = None,
    keep: int = DEFAULT_KEEP,
    rerank: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure zero-shot classification; the protocol stands next to the figures.

    Args:
      found: the clips and their classes.
      rule: from texts and clips to class scores, a name of `zero_shot_rules.RULES`.
      frame_rule: from frames to a clip where `video` has a row per frame, one of `zero_shot_rules.VIDEO_RULES`.
      view_rule: from views to a clip where there are several: one of `zero_shot_rules.VIEW_RULES`, "score" for scores
        unless named; or of embeddings "embedding", their mean, unless named.
      scale: replaces the model's temperature; None = `found.scale`.
      keep: predictions of each clip that count in GAP and in YouTube-8M's mAP, where clips have several labels.
      rerank: methods of re-ranking; see `reranked_classes`.

    Returns:
      JSON values: `protocol`; `accuracy`, `mean_class_accuracy` (of equal scores the first class is predicted),
      `calibration`, `per_class`, `most_confused`, `clips` and `reranked` (if asked for) where each clip has one label,
      or `multilabel`, `per_class` and `clips` where some have several; `coverage`;
      and `marked` where clips are missing, see `marks.marked`.

    Raises:
      UserError: an unknown rule, a scale that is not above 0, arrays that do not fit together, a row that is zero or
        not finite.
    """
    found.check()
    scale = found.scale if scale is None else scale
    if not (np.isfinite(scale) and scale > 0):
        raise UserError(f"--scale is {scale}; wanted a number above 0, the temperature that multiplies the cosines")
    scores, rules = _scores_of(found, rule=rule, frame_rule=frame_rule, view_rule=view_rule, scale=scale)
    protocol = {
        "task": TASK,
        **found.protocol,
        **rules,
        "scale": scale,
        "classes": len(found.classes),
        "clips": len(scores),
        "ties": TIE_RULE,
        "intervals": INTERVALS,
        "twinreel": __version__,
    }
    several = found.labels.dtype == bool
    block = (
        several_labels(found, scores=scores, keep=keep)
        if several
        else one_label(found, scores=scores, rule="" if _other_scores(found, view_rule) else rule, scale=scale)
    )
    if rerank:
        block["reranked"] = reranked_classes(found, scores=scores, methods=rerank, frame_rule=frame_rule)
    coverage = found.coverage or coverage_of(rows=None, rejects=[])
    return marked({"protocol": protocol, **block, "coverage": coverage})


def zero_shot_figures(found: Classified, *, rule: str) -> dict[str, float]:
    """Measure zero-shot classification by a few numbers, in percent, without intervals and tables.

    Args:
      found: embeddings of the clips and their classes.
      rule: a name of `zero_shot_rules.RULES`.

    Returns:
      `top1`, `top5` (of five classes or more) and `mean_class_accuracy` (over the classes that occur); or `mAP` and
      `hit@1` where clips have several labels.

    Raises:
      UserError: an unknown rule, arrays that do not fit together, a row that is zero or not finite.
    """
    found.check()
    assert found.class_text is not None and found.video is not None
    scores, labels = class_scores(found.class_text, video=found.video, rule=rule, scale=found.scale), found.labels
    if labels.dtype == bool:
        mean = mean_average_precision(scores, targets=labels)["mAP"]
        return {"mAP": mean, "hit@1": hit_at_one(scores, targets=labels, order="expected")}
    top = top_k(scores, labels=labels)
    mean = mean_class_accuracy(scores.argmax(axis=1), labels=labels, classes=scores.shape[1])["over_truth"]
    return {name: top[name] for name in ("top1", "top5") if name in top} | {"mean_class_accuracy": mean}


def class_scores(
    class_text: np.ndarray, *, video: np.ndarray, rule: str, frame_rule: str = DEFAULT_FRAME_RULE, scale: float = 100.0
) -> np.ndarray:
    """Score clips by classes, float64 [m,c], in blocks of clips; classes with equal texts get equal scores.

    Args:
      class_text: float [c,t,E].
      video: float [m,E], or [m,f,E] with a row per frame.
      rule: a name of `zero_shot_rules.RULES`.
      frame_rule: one of `zero_shot_rules.VIDEO_RULES`.
      scale: the temperature, for the rules with a softmax.

    >>> text = np.array([[[3.0, 0.0]], [[0.0, 1.0]]])
    >>> class_scores(text, video=np.array([[6.0, 8.0]]), rule="unit_text_means").round(6).tolist()
    [[0.6, 0.8]]
    """
    if rule not in RULES:
        raise unknown("value of --rule", rule, RULES)
    if frame_rule not in VIDEO_RULES:
        raise unknown("value of --frame_rule", frame_rule, VIDEO_RULES)
    frames = np.asarray(video) if np.ndim(video) == 3 else np.asarray(video)[:, None]
    size = max(1, _BLOCK // (class_text.shape[0] * class_text.shape[1]))
    parts = [
        RULES[rule](class_text, video=video_vectors(frames[start : start + size], rule=frame_rule), scale=scale)
        for start in range(0, len(frames), size)
    ]
    scores = np.concatenate(parts)
    if rule not in _PROBABILITIES:  # cosines; small probabilities differ by less
        scores = np.rint(scores * _GRID) / _GRID
    flat = np.asarray(class_text).reshape(len(class_text), -1)
    first, place = np.unique(flat, axis=0, return_index=True, return_inverse=True)[1:]
    return scores[:, first[place.reshape(-1)]]


def _scores_of(
    found: Classified, *, rule: str, frame_rule: str, view_rule: str, scale: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the scores [m,c], and the rules as the protocol states them."""
    if found.scores is None:
        assert found.class_text is not None and found.video is not None
        rules: dict[str, Any] = {"rule": rule}
        rules |= {"frame_rule": frame_rule} if found.video.ndim == 3 else {}
        options = {"rule": rule, "frame_rule": frame_rule, "scale": scale}
        if view_rule in ("", OF_EMBEDDINGS):
            rules |= {"view_rule": OF_EMBEDDINGS} if (found.protocol.get("windows") or 1) > 1 else {}
            return class_scores(found.class_text, video=found.video, **options), rules
        return _of_views(found, view_rule=view_rule, **options), rules | {"view_rule": view_rule}
    if np.ndim(found.scores) == 3:
        flat = check_scores(np.reshape(found.scores, (len(found.scores), -1)), rows=found.clip_ids)
        views = flat.reshape(found.scores.shape)
        view_rule = view_rule or DEFAULT_VIEW_RULE
        return combine_views(views, rule=view_rule), {"rule": "given scores", "view_rule": view_rule}
    return check_scores(found.scores, rows=found.clip_ids, columns=found.classes), {"rule": "given scores"}


def _other_scores(found: Classified, view_rule: str) -> bool:
    """Whether the scores are not those that the rule gives, but given ones, or probabilities of views."""
    return found.scores is not None or view_rule.startswith("prob")


def _of_views(found: Classified, *, view_rule: str, rule: str, frame_rule: str, scale: float) -> np.ndarray:
    """Return the scores of the views of each clip, combined, float64 [m,c].

    Of cosines `prob` and `prob_max` combine their softmax at the temperature; of rules that give probabilities these.
    """
    if found.views is None:
        raise UserError(
            f"--view_rule {view_rule} combines the scores of several windows, and these embeddings have none of single "
            "windows (array 'views'); evaluate the model with --windows 3 and this rule"
        )
    assert found.class_text is not None
    clips, count, width = found.views.shape
    flat = found.views.reshape(clips * count, width)
    scores = class_scores(found.class_text, video=flat, rule=rule, frame_rule=frame_rule, scale=scale)
    scores = scores.reshape(clips, count, -1)
    if rule in _PROBABILITIES:
        return combine_views(scores, rule={"prob": "score", "prob_max": "max"}.get(view_rule, view_rule))
    made = combine_views(scores * (scale if view_rule.startswith("prob") else 1.0), rule=view_rule)
    return made if view_rule.startswith("prob") else np.rint(made * _GRID) / _GRID


def one_label(found: Classified, *, scores: np.ndarray, rule: str = "", scale: float = 1.0) -> dict[str, Any]:
    """Return the blocks of clips with one class each: accuracies, calibration, tables of classes and of clips.

    Args:
      found: classes, labels int64 [m] and clip ids.
      scores: float [m,c].
      rule: of cosines, by which they become probabilities; "" = they are scores of any origin, which are taken for
        probabilities where each row is not negative and adds up to 1.
      scale: multiplies scores that are no probabilities before the softmax.
    """
    labels, classes = found.labels, found.classes
    predicted = scores.argmax(axis=1)
    chances = _probabilities(scores, rule=rule, scale=scale)
    confidence = chances.max(axis=1)
    rows = per_class(scores, labels=labels, names=classes)
    for row, name, times in zip(rows, found.names, np.bincount(predicted, minlength=len(classes)), strict=True):
        row |= {"read_as": name, "predicted": int(times)}
    accuracy = top_k(scores, labels=labels)
    accuracy["top1_interval_95"] = interval_95(hits_at_one(scores, positives=labels))
    accuracy["majority"] = 100 * int(np.bincount(labels).max()) / len(labels)
    expected = ranks(scores, positives=labels).expected
    clips = zip(found.clip_ids, labels, predicted, expected.tolist(), confidence.tolist(), strict=True)
    return {
        "accuracy": accuracy,
        "mean_class_accuracy": mean_class_accuracy(predicted, labels=labels, classes=len(classes)),
        "calibration": calibration(chances, labels=labels) | {"mean_confidence": 100 * float(confidence.mean())},
        "per_class": rows,
        "most_confused": most_confused(predicted, labels=labels, names=classes, top=20),
        "clips": [
            {"clip_id": clip, "label": classes[own], "predicted": classes[first], "rank": rank, "probability": sure}
            for clip, own, first, rank, sure in clips
        ],
    }


def several_labels(found: Classified, *, scores: np.ndarray, keep: int = DEFAULT_KEEP) -> dict[str, Any]:
    """Return the blocks of clips with several classes: average precisions, tables of classes and of clips.

    Args:
      found: classes, labels bool [m,c] and clip ids.
      scores: float [m,c].
      keep: as in `zero_shot_report`.
    """
    targets, classes = found.labels, found.classes
    precision = class_average_precision(scores, targets=targets)
    predicted, expected = scores.argmax(axis=1), ranks(scores, positives=targets).expected
    return {
        "multilabel": _multilabel_figures(scores, targets=targets, keep=keep)
        | ({"f1_at_0.5": f1_figures(scores, targets=targets)} if found.scores is not None else {})
        | {"hit@1_interval_95": interval_95(hits_at_one(scores, positives=targets))},
        "per_class": [
            {"name": label, "read_as": name, "n": int(n), "AP": None if np.isnan(value) else 100 * float(value)}
            for label, name, n, value in zip(classes, found.names, targets.sum(axis=0), precision, strict=True)
        ],
        "clips": [
            {"clip_id": clip, "labels": _named(classes, own), "predicted": classes[first], "rank": rank}
            for clip, own, first, rank in zip(found.clip_ids, targets, predicted, expected.tolist(), strict=True)
        ],
    }


def _multilabel_figures(scores: np.ndarray, *, targets: np.ndarray, keep: int) -> dict[str, Any]:
    """Return the figures of clips with several classes; those that depend on the order of ties with both bounds."""
    pooled, mean = pooled_average_precision(scores, targets=targets), mean_average_precision(scores, targets=targets)

    def ordered(order: str) -> dict[str, float]:
        kept = kept_average_precision(scores, targets=targets, k=keep, order=order)
        return {
            "hit@1": hit_at_one(scores, targets=targets, order=order),
            "perr": perr(scores, targets=targets, order=order),
            f"gap@{keep}": gap(scores, targets=targets, k=keep, order=order),
            f"mAP_kept@{keep}": kept["mAP"],
        }

    return {
        "mAP": mean["mAP"],
        "mAP_absent_as_zero": mean_average_precision(scores, targets=targets, absent="zero")["mAP"],
        "mAP_micro": pooled["micro"],
        "mAP_weighted": pooled["weighted"],
        "mAP_samples": sample_average_precision(scores, targets=targets),
        **ordered("expected"),
        **{order: ordered(order) for order in ("optimistic", "pessimistic")},
        "chance": 100 * float(targets[:, targets.any(axis=0)].mean()),
        "labels_per_clip": float(targets.sum(axis=1).mean()),
        "absent": len(mean["absent"]),
        "classes": targets.shape[1],
        "n": len(targets),
    }


def reranked_classes(
    found: Classified, *, scores: np.ndarray, methods: Sequence[str], frame_rule: str = DEFAULT_FRAME_RULE
) -> dict[str, dict[str, Any]]:
    """Measure scores after a dual softmax over the clips, which looks at all clips at once: another protocol.

    Args:
      found: the clips and their classes; one label per clip.
      scores: float [m,c] of them.
      methods: "dsl" with its parameters: "dsl:scale=100"; "dsl:scale=1,per_template=true" re-weights the cosines of
        each template and averages afterwards (InternVideo2's `tasks`).
      frame_rule: as in `class_scores`.

    Returns:
      The method as given -> its figures, as `classes.top_k`.

    Raises:
      UserError: an unknown method or parameter, clips with several labels, or `per_template` without texts.
    """
    if found.labels.dtype == bool:
        raise UserError("--rerank measures clips with one label each, and some have several; add --labels first")

    def dsl(scores: np.ndarray, *, scale: float = 100.0, per_template: bool = False) -> np.ndarray:
        if not per_template:
            return dual_softmax(scores, scale=scale, direction="t2v")
        if found.class_text is None or found.video is None:
            raise UserError("--rerank dsl:per_template=true needs the texts of templates; give --embeddings")
        made = []
        for template in range(found.class_text.shape[1]):
            one = found.class_text[:, [template]]
            cosines = class_scores(one, video=found.video, rule="mean_of_cosines", frame_rule=frame_rule)
            made.append(dual_softmax(cosines, scale=scale, direction="t2v"))
        return np.mean(made, axis=0)

    figures = {}
    for given in methods:
        _, options = parse_named(given, known={"dsl": dsl}, flag="--rerank")
        figures[given] = top_k(dsl(scores, **options), labels=found.labels)
    return figures


def _named(classes: Sequence[str], own: np.ndarray) -> list[str]:
    return [classes[number] for number in np.flatnonzero(own).tolist()]


def hits_at_one(scores: np.ndarray, *, positives: np.ndarray) -> np.ndarray:
    """Return the chance that a right class comes first for each clip, over a random order of the tied, float64 [m].

    >>> hits_at_one(np.array([[0.9, 0.1], [0.5, 0.5]]), positives=np.array([0, 0])).tolist()
    [1.0, 0.5]
    """
    found = ranks(scores, positives=positives)
    return np.where(found.above == 0, found.right / (found.right + found.equal), 0.0)


def interval_95(hits: np.ndarray) -> list[float] | None:
    """Return the 95 % bootstrap interval of the mean of hits in percent; None for a single clip, which has no spread.

    Where all clips are right, or all wrong, resampling finds no spread either: the interval is Wilson's (1927).

    >>> [round(bound, 1) for bound in interval_95(np.ones(3)) or ()], interval_95(np.ones(1))
    ([43.9, 100.0], None)
    """
    if len(hits) < 2:
        return None
    if hits.min() == hits.max() and hits[0] in (0, 1):
        low, high = wilson_interval(float(hits[0]), n=len(hits))
        return [100 * low, 100 * high]
    found = bootstrap(hits)
    return [100 * found["low"], 100 * found["high"]]


def _probabilities(scores: np.ndarray, *, rule: str, scale: float) -> np.ndarray:
    """Return a distribution over the classes for each clip; scores that are one already stay as they are."""
    sums = scores.sum(axis=1, keepdims=True)
    if rule in _PROBABILITIES or (not rule and (scores >= 0).all() and (np.abs(sums - 1) < 1e-3).all()):
        return scores / sums
    weights = np.exp(scale * (scores - scores.max(axis=1, keepdims=True)))
    return weights / weights.sum(axis=1, keepdims=True)


def never_occurring(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return the classes of `per_class` of which there is no clip.

    >>> never_occurring([{"name": "run", "n": 2}, {"name": "jump", "n": 0}])
    ['jump']
    """
    return [row["name"] for row in rows if not row["n"]]
