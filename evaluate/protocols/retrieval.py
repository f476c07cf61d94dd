"""Zero-shot retrieval between texts and videos: the report that `retrieval.json` holds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...base.errors import UserError
from ...data.manifest import ids_sha256
from ..measures.checks import check_index
from ..measures.intervals import bootstrap
from ..measures.ranks import RECALL_AT, TIE_RULE, Ranks, hits, summary
from ..measures.rows import SCORE, check_rows, row_numbers
from .directions import AMONG_CAPTIONS, DIRECTIONS, all_ranks
from .repeated import any_match

AGGREGATION = (
    "each caption is its own query; video to text: a video's score with another is the maximum over that video's "
    "captions, ranks are among videos; video to text among captions: the rank of a video's best own caption among the "
    "captions of other videos"
)
INTERVALS = "intervals"
_DESCRIBED = (
    "dataset",
    "split",
    "source_sha256",
    "benchmark",
    "benchmark_protocol",
    "deviations",
    "subset_id",
    "fps",
    "short_side",
    "clip_side",
    "frames",
    "sampling",
    "windows",
    "window_seconds",
    "preprocessing",
    "text_cleaning",
    "context_length",
    "captions",
    "prompt",
    "texts_truncated",
    "bank_split",
    "checkpoint",
    "weights_sha256",
    "step",
    "seed",
    "environment",
    "warnings",
)


def retrieval_report(
    *,
    text: np.ndarray,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray | None = None,
    ranks: Mapping[str, Ranks] | None = None,
    protocol: dict[str, Any] | None = None,
    coverage: dict[str, Any] | None = None,
    intervals: bool = True,
) -> dict[str, Any]:
    """Measure retrieval in both directions; the protocol stands next to the figures.

    Args:
      text: float [n,E], one row per caption; normalised here.
      video: float [m,E], one row per video; normalised here.
      video_of_text: int [n], each caption's video; several captions per video are allowed.
      same_text: int [n], equal for equal captions; None: captions with equal rows are equal.
      ranks: `directions.all_ranks` of these arrays; None: they are counted here.
      protocol: how the embeddings were made; see `protocol_of`. What is not given is reported as null.
      coverage: `coverage_of(...)`, or None where it is not known what should have been there.
      intervals: add `recall_intervals`.

    Returns:
      JSON values: `protocol`, `text_to_video`, `video_to_text` (among videos; both as in `ranks.summary`), `coverage`;
      where videos have several captions, `video_to_text_among_captions`; and, where captions repeat, the blocks of
      `repeated.any_match`.

    Raises:
      UserError: arrays that do not fit together, a zero or non-finite row, an unknown key in `protocol`.
    """
    index = check_index(video_of_text, name="video_of_text", length=len(text), limit=len(video))
    same = row_numbers(check_rows(text, name="text")) if same_text is None else np.asarray(same_text)
    arrays: dict[str, Any] = {"text": text, "video": video, "video_of_text": index, "same_text": same}
    ranks = ranks or all_ranks(**arrays)
    more = any_match(ranks, **arrays)
    both = (ranks[DIRECTIONS[0]], ranks[DIRECTIONS[1]])
    intervals_of = recall_intervals(both, video_of_text=index) if intervals else {}
    counts = {
        "texts": len(text),
        "distinct_texts": len(np.unique(same)),
        "videos": len(video),
        "videos_without_text": len(video) - len(np.unique(index)),
    }
    captions = {AMONG_CAPTIONS: summary(ranks[AMONG_CAPTIONS])} if AMONG_CAPTIONS in ranks else {}
    return {
        "protocol": protocol_of(**(protocol or {})) | counts | more.pop("protocol", {}),
        "text_to_video": summary(both[0]),
        "video_to_text": summary(both[1]),
        **captions,
        **({INTERVALS: intervals_of} if intervals_of else {}),
        **more,
        "coverage": coverage or coverage_of(rows=None, rejects=[]),
    }


def recall_intervals(ranks: tuple[Ranks, Ranks], *, video_of_text: np.ndarray) -> dict[str, Any]:
    """Return 95 % bootstrap intervals of the recalls, in percent, over videos: captions of one are drawn together.

    Args:
      ranks: `retrieval_ranks(...)`.
      video_of_text: int [n], each caption's video.

    Returns:
      `text_to_video` and `video_to_text`: `R@K` -> `low` and `high`; {} where there are fewer than two videos.
    """
    if len(np.unique(video_of_text)) < 2:
        return {}
    made: dict[str, Any] = {}
    for name, found, clusters in zip(DIRECTIONS, ranks, (video_of_text, None), strict=True):
        drawn = {f"R@{k}": bootstrap(100 * hits(found, k=k), clusters=clusters) for k in RECALL_AT}
        made[name] = {key: {"low": one["low"], "high": one["high"]} for key, one in drawn.items()}
    return made


def retrieval_ranks(*, text: np.ndarray, video: np.ndarray, video_of_text: np.ndarray) -> tuple[Ranks, Ranks]:
    """Return the ranks of text to video (one per caption) and of video to text (one per captioned video)."""
    found = all_ranks(text=text, video=video, video_of_text=video_of_text)
    return found[DIRECTIONS[0]], found[DIRECTIONS[1]]


def protocol_of(**described: Any) -> dict[str, Any]:
    """Return the protocol: the rules of this module and the caller's description of data and model (else null).

    Raises:
      UserError: a key that no protocol has.
    """
    rules = {
        "task": "zero-shot text-video retrieval, raw scores (no re-ranking)",
        "text_aggregation": AGGREGATION,
        "score": SCORE,
        "ties": TIE_RULE,
        "twinreel": __version__,
    }
    strange = sorted(described.keys() - set(_DESCRIBED) - rules.keys())
    if strange:
        raise UserError(f"protocol has no key {strange[0]!r}; its keys: {', '.join(_DESCRIBED)}")
    return {key: described.get(key) for key in _DESCRIBED} | rules


def name_test_set(prepared: dict[str, Any], *, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Name the clips on which figures are measured.

    Args:
      prepared: the content of `prepare.json`.
      rows: the clips measured (lines of `clips.jsonl`).

    Returns:
      `benchmark`, its name with its choices ("" for a folder that is none), and `subset_id`, the SHA-256 of the clips'
      ids: figures with one subset id are measured on the same clips.
    """
    about = prepared.get("benchmark")
    name = prepared_name(about["name"], about["options"]) if about else ""
    return {"benchmark": name, "subset_id": ids_sha256(row["clip_id"] for row in rows)}


def prepared_name(name: str, options: Mapping[str, Any]) -> str:
    """Return what a benchmark that `prepare` made is called, with its choices.

    >>> prepared_name("msrvtt", {"variant": "1ka"})
    'msrvtt variant=1ka'
    """
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


def coverage_of(*, rows: Sequence[dict[str, Any]] | None, rejects: list[dict[str, Any]]) -> dict[str, Any]:
    """Say how many of the clips that the split should hold are measured.

    Args:
      rows: the clips that are there (lines of `clips.jsonl`), or None where that is not known.
      rejects: the clips that are not (lines of `rejects.jsonl`).

    Returns:
      `expected`, `found`, `missing` (numbers of clips), `fraction` (found / expected) and `missing_clips`
      (`clip_id` and `reason` each); all null where `rows` is None.
    """
    if rows is None:
        return dict.fromkeys(("expected", "found", "missing", "fraction", "missing_clips"))
    return {
        "expected": len(rows) + len(rejects),
        "found": len(rows),
        "missing": len(rejects),
        "fraction": len(rows) / max(1, len(rows) + len(rejects)),
        "missing_clips": [{"clip_id": line["clip_id"], "reason": line["reason"]} for line in rejects],
    }


def split_coverage(folder: Path, *, split: str, rows: Sequence[dict[str, Any]], allow_missing: bool) -> dict[str, Any]:
    """Read what `prepare` rejected of a split; refuse incomplete coverage unless it is allowed.

    Raises:
      UserError: clips are missing and `allow_missing` is False, or `rejects.jsonl` is missing, broken, or disagrees
        with the counts of `prepare.json`.
    """
    path = folder / "rejects.jsonl"
    counts = json.loads((folder / "prepare.json").read_text())["counts"].get(split, {})
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        rejects = [line for line in lines if line["split"] == split]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"cannot read {path}, which lists the clips that are missing: {error!r}; prepare again"
        ) from error
    if len(rejects) != counts.get("rejected", 0):
        raise UserError(
            f"{path} lists {len(rejects)} rejected clips of split {split!r}, prepare.json counts "
            f"{counts.get('rejected', 0)}; the folder was changed by hand: prepare it again"
        )
    coverage = coverage_of(rows=rows, rejects=rejects)
    if rejects and not allow_missing:
        raise UserError(
            f"split {split!r} covers {100 * coverage['fraction']:.2f} % of its clips: {len(rejects)} of "
            f"{coverage['expected']} are missing (first: {rejects[0]['clip_id']}: {rejects[0]['reason']}; all in "
            f"{path}). Repair those files and prepare again, or give --allow_missing to measure on the "
            f"{len(rows)} that are there"
        )
    return coverage


HEADLINE = {
    f"{short}_{key}": (long, key)
    for short, long in (("t2v", "text_to_video"), ("v2t", "video_to_text"))
    for key in ("R@1", "R@5", "R@10", "MdR", "MnR")
}
"""Name of a flat metric, `t2v_R@1` and so on -> where it stands in a report."""


def headline(report: dict[str, Any]) -> dict[str, float]:
    """Return the figures of a report as flat metrics, by the names of `HEADLINE`."""
    return {name: report[block][key] for name, (block, key) in HEADLINE.items()}
