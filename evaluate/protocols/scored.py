"""Retrieval from a matrix of scores, of any origin: figures, other readings of the same scores, and re-ranking."""

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ..measures.checks import check_ids, check_index, check_scores
from ..measures.published import READINGS, describe, read_as
from ..measures.ranks import Ranks, among_captions, among_videos, ranks, summary
from ..measures.relevance import relevance_summary, right_counts
from ..measures.rerank import dual_softmax, hubness, qb_norm
from ..npz import read_npz
from .joint import DEFAULT_K, KINDS, JointScores, reordered
from .options import parse_named
from .retrieval import AMONG_CAPTIONS, INTERVALS, coverage_of, protocol_of, recall_intervals

WANTED = {"scores": "float [n,m] (texts by videos)", "video_of_text": "int [n]"}
READ_AS = "read_as"
RERANKED = "reranked"
HUBNESS = "hubness"
_MOST_BYTES = 4 << 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of all texts with all videos.

    Attributes:
      scores: float [n,m], texts by videos.
      video_of_text: int64 [n], the video of each text.
      texts: the n texts, None where unknown.
      text_ids: ids of the texts, None where unknown.
      video_ids: ids of the m videos, None where unknown.
      bank: float [b,m], the scores of training texts with the same videos (for QB-norm), or None.
      of_windows: float [n,m], the scores with the best window of each video, or None.
      joint: name of `joint.KINDS` -> scores of the model's heads.
    """

    scores: np.ndarray
    video_of_text: np.ndarray
    texts: Sequence[str] | None = None
    text_ids: Sequence[str] | None = None
    video_ids: Sequence[str] | None = None
    bank: np.ndarray | None = None
    of_windows: np.ndarray | None = None
    joint: Mapping[str, JointScores] = dataclasses.field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Scores":
        """Read an `.npz` with `scores` and `video_of_text`, and perhaps `texts`, `text_ids`, `video_ids` and `bank`.

        Raises:
          UserError: no such file, arrays that do not fit together, or a score that is not finite (row and column are
            named).
        """
        arrays = read_npz(path, wanted=WANTED)
        try:
            names: dict[str, Any] = {key: _names(arrays, key) for key in ("texts", "text_ids", "video_ids")}
            scores = check_scores(
                arrays["scores"], rows=names["text_ids"] or names["texts"], columns=names["video_ids"]
            )
            index = check_index(
                arrays["video_of_text"], name="video_of_text", length=len(scores), limit=scores.shape[1]
            )
            for key, value in names.items():
                length = scores.shape[1] if key == "video_ids" else len(scores)
                if value is not None and len(value) != length:
                    raise UserError(f"{key!r} has {len(value)} entries; wanted {length}, as 'scores' has")
            return cls(scores=scores, video_of_text=index, bank=arrays.get("bank"), **names)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def check_size(texts: int, videos: int) -> None:
    """Raise UserError where the whole matrix of float64 scores would be too large to hold."""
    if 8 * texts * videos > _MOST_BYTES:
        raise UserError(
            f"--as and --rerank hold all scores, and {texts:,} texts by {videos:,} videos take "
            f"{8 * texts * videos / 2**30:.0f} GiB; measure a part, or leave them out"
        )


def score_report(found: Scores) -> dict[str, Any]:
    """Measure retrieval on given scores.

    Returns:
      JSON values: `protocol`, `text_to_video`, `video_to_text` (among videos), and where videos have several captions
      `video_to_text_among_captions`; each as in `ranks.summary`, with `mAP` and `nDCG@10`.
    """
    scores, index = found.scores, found.video_of_text
    own = index[:, None] == np.arange(scores.shape[1])
    captioned = np.unique(index)
    both = (ranks(scores, positives=index), among_videos(scores, video_of_text=index))
    blocks = {"text_to_video": _block(both[0], scores=scores, relevant=own), "video_to_text": summary(both[1])}
    if len(captioned) < len(index):
        reading = among_captions(scores, video_of_text=index)
        relevant = own.T[captioned]
        blocks[AMONG_CAPTIONS] = _block(reading, scores=scores.T[captioned], relevant=relevant)
    counts = {"texts": len(scores), "videos": scores.shape[1], "videos_without_text": scores.shape[1] - len(captioned)}
    protocol = {**protocol_of(), **counts, "task": "text-video retrieval from given scores", "score": "as given"}
    same = len(scores) if found.texts is None else len(set(found.texts))
    intervals = recall_intervals(both, video_of_text=index)
    return {
        "protocol": protocol | {"distinct_texts": same},
        **blocks,
        **({INTERVALS: intervals} if intervals else {}),
        "coverage": coverage_of(rows=None, rejects=[]),
    }


def _block(found: Ranks, *, scores: np.ndarray, relevant: np.ndarray) -> dict[str, Any]:
    """Return the figures of a direction; those of all right candidates, too."""
    block, more = summary(found), relevance_summary(right_counts(scores, relevant=relevant))
    for bound in ("optimistic", "pessimistic"):
        block[bound] |= more.pop(bound)
    return block | {key: value for key, value in more.items() if key != "n"}


def hubness_of(scores: np.ndarray) -> dict[str, dict[str, float]]:
    """Return how unevenly candidates are found among the first ten, in both directions."""
    both = {"text_to_video": scores, "video_to_text": scores.T}
    return {name: hubness(matrix, k=min(10, matrix.shape[1])) for name, matrix in both.items()}


def readings(found: Scores, *, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what other projects' code prints for the scores.

    Args:
      found: the scores.
      names: keys of `published.READINGS`, perhaps with options: "pe:reweight_scale=none".

    Returns:
      The name as given -> `figures` (a pair where they depend on the order of ties), `exact` and `about`.

    Raises:
      UserError: an unknown name or option, or scores that such a code cannot read.
    """
    made = {}
    for given in names:
        name, options = parse_named(given, known=READINGS, flag="--as")
        known = {"pe": ("texts",), "mteb": ("text_ids", "video_ids")}.get(name, ())
        options = {key: getattr(found, key) for key in known if getattr(found, key) is not None} | options
        reading = read_as(name, scores=found.scores, video_of_text=found.video_of_text, **options)
        made[given] = {"figures": reading.figures, "exact": reading.exact, "about": describe(name)}
    return made


def reranked(found: Scores, *, methods: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure scores after re-ranking; each method is a protocol of its own.

    Args:
      found: the scores.
      methods: names of `METHODS` with their parameters: "dsl:scale=100", "qb_norm:beta=20,k=1", "window_max",
        "x_pool", "cross_encoder:k=50".

    Returns:
      `row_name` of the method -> `text_to_video` and, but for QB-norm, `video_to_text`, as in `ranks.summary`.

    Raises:
      UserError: an unknown method or parameter, QB-norm without a bank, "window_max" without windows, or a head's
        method without its scores.
    """
    made: dict[str, dict[str, Any]] = {}
    for given in methods:
        method, options = parse_named(given, known=METHODS, flag="--rerank")
        made[row_name(given)] = METHODS[method](found, **options)
    return made


def row_name(given: str) -> str:
    """Return what the row of a method is called: with its parameters, also those that were not given.

    >>> row_name("cross_encoder"), row_name("dsl"), row_name("qb_norm:k=3"), row_name("window_max")
    ('cross_encoder:k=50', 'dsl:scale=100', 'qb_norm:beta=20,k=3', 'window_max')
    """
    method, options = parse_named(given, known=METHODS, flag="--rerank")
    taken = inspect.signature(METHODS[method]).parameters.values()
    named = {one.name: one.default for one in taken if one.kind is one.KEYWORD_ONLY}
    if method in KINDS:
        named = {"k": DEFAULT_K[method] or ALL}
    named = {key: f"{value:g}" if isinstance(value, float) else value for key, value in named.items()} | options
    shown = ",".join(f"{key}={value}" for key, value in named.items())
    return f"{method}:{shown}" if shown else method


def _dsl(found: Scores, *, scale: float = 100.0) -> dict[str, Any]:
    t2v, v2t = (dual_softmax(found.scores, scale=scale, direction=name) for name in ("t2v", "v2t"))
    return {
        "text_to_video": summary(ranks(t2v, positives=found.video_of_text)),
        "video_to_text": summary(among_videos(v2t, video_of_text=found.video_of_text)),
    }


def _qb_norm(found: Scores, *, beta: float = 20.0, k: int = 1) -> dict[str, Any]:
    if found.bank is None:
        raise UserError(
            "--rerank qb_norm needs training texts as a query bank: MODEL with --bank_split train, or --scores "
            "FILE.npz with an array 'bank' [b,m]"
        )
    made = qb_norm(found.scores, bank=found.bank, beta=beta, k=k)
    return {
        "text_to_video": summary(ranks(made.scores, positives=found.video_of_text)),
        "normalised": int(made.normalised.sum()),
        "activated": len(made.activated),
    }


def _window_max(found: Scores) -> dict[str, Any]:
    if found.of_windows is None:
        raise UserError(
            "--rerank window_max needs the embedding of each window of a clip: MODEL with --windows 2 or more, or the "
            "embeddings.npz of such an evaluation"
        )
    return {
        "text_to_video": summary(ranks(found.of_windows, positives=found.video_of_text)),
        "video_to_text": summary(among_videos(found.of_windows, video_of_text=found.video_of_text)),
    }


def _x_pool(found: Scores, *, k: int | str = DEFAULT_K["x_pool"], cosine: float = 0.0) -> dict[str, Any]:
    return _of_head("x_pool", found, k=k, cosine=cosine)


def _cross_encoder(found: Scores, *, k: int | str = DEFAULT_K["cross_encoder"], cosine: float = 0.0) -> dict[str, Any]:
    return _of_head("cross_encoder", found, k=k, cosine=cosine)


def _of_head(kind: str, found: Scores, *, k: int | str, cosine: float) -> dict[str, Any]:
    if kind not in found.joint:
        raise UserError(
            f"--rerank {kind} needs the scores of a head: MODEL with config.model.heads.{KINDS[kind]}, or the "
            f"embeddings.npz of an evaluation with --rerank {kind}"
        )
    joint, plain, first = found.joint[kind], found.scores, _number(k)
    t2v = reordered(plain, candidates=joint.first("videos", plain=plain, k=first), cosine=cosine)
    block = {"text_to_video": summary(ranks(t2v, positives=found.video_of_text))}
    del t2v
    v2t = reordered(plain.T, candidates=joint.first("texts", plain=plain.T, k=first), cosine=cosine).T
    block["video_to_text"] = summary(among_videos(v2t, video_of_text=found.video_of_text))
    return block | {"k": first or ALL, "cosine": cosine}


def _number(k: int | str) -> int:
    """Return k as a number, 0 for all."""
    return 0 if k == ALL else int(k)


ALL = "all"
"""The k of all candidates."""
WINDOW_MAX = "window_max"
METHODS = {
    "dsl": _dsl,
    "qb_norm": _qb_norm,
    WINDOW_MAX: _window_max,
    "x_pool": _x_pool,
    "cross_encoder": _cross_encoder,
}
"""Name in `--rerank` -> function of the scores; its keyword arguments are the parameters."""


def joint_asked(methods: Sequence[str]) -> dict[str, int]:
    """Return the heads whose scores methods of re-ranking need -> candidates k of each query; 0 = all pairs.

    >>> joint_asked(["dsl", "cross_encoder", "cross_encoder:k=100", "x_pool"])
    {'cross_encoder': 100, 'x_pool': 0}

    Raises:
      UserError: an unknown method or parameter, or a k that is no number of candidates.
    """
    found: dict[str, int] = {}
    for given in methods:
        method, options = parse_named(given, known=METHODS, flag="--rerank")
        if method not in KINDS:
            continue
        k, cosine = options.get("k", DEFAULT_K[method]), options.get("cosine", 0.0)
        right = k == ALL or (isinstance(k, int) and not isinstance(k, bool) and k > 0) or k == DEFAULT_K[method]
        if not right or not isinstance(cosine, int | float):
            raise UserError(
                f"--rerank {given}: k must be a number of candidates or {ALL!r}, and cosine a factor; got k={k!r} and "
                f"cosine={cosine!r}"
            )
        k = _number(k)
        before = found.get(method, k)
        found[method] = 0 if 0 in (before, k) else max(before, k)
    return found


def _names(arrays: dict[str, np.ndarray], key: str) -> list[str] | None:
    if key not in arrays:
        return None
    if arrays[key].ndim != 1 or arrays[key].dtype.kind not in "Ui":
        raise UserError(f"{key!r} is {arrays[key].dtype} of shape {arrays[key].shape}; wanted strings of shape [n]")
    found = [str(one) for one in arrays[key]]
    return found if key == "texts" else check_ids(found, name=key)
