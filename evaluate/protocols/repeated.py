"""Retrieval where captions repeat, as class names do: any clip with the same caption counts as right.

The figures that count a caption's own clip only cannot exceed 1 / (clips with that caption) at rank 1. These blocks
stand next to them and answer the question that such captions ask: does a caption find a clip of its class, and is a
clip assigned to its class?
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..counting.count import DEFAULTS, CountOptions, count_ranks
from ..counting.questions import TEXT_TO_ANY, VIDEO_TO_ANY, Pairs, spread
from ..embedding.embeddings import Embeddings
from ..measures.ranks import Ranks, recall_at, summary
from ..measures.rows import check_rows, row_numbers

ANY_MATCH = (
    "in the rows 'any_match' every clip with an equal caption is right (video to text: every caption equal to one of "
    "the clip's own); the rank is that of the first right one. Ties: with g wrong candidates strictly above the best "
    "right one, and e wrong and p right ones equal to it, the rank is 1 + g + e/(p + 1) in expectation"
)
ROWS = {
    "text_to_video": "text to video",
    "video_to_text": "video to text",
    "video_to_text_among_captions": "video to text, among captions",
    "text_to_video_any_match": "text to video, any match",
    "video_to_text_any_match": "video to text, any match",
    "text_to_video_shared_duplicates": "text to video, duplicates shared",
    "video_to_text_shared_duplicates": "video to text, duplicates shared",
}
"""Blocks of `retrieval.json` -> what they measure."""
CLASSIFICATION = "zero_shot_classification"


def caption_numbers(embeddings: Embeddings) -> np.ndarray | None:
    """Number the captions, int64 [n]: equal numbers where they are the same text after the model's text cleaning.

    None where the captions are not known.
    """
    if not embeddings.captions:
        return None
    from ...data.text.clean import text_cleaner

    clean = text_cleaner(embeddings.protocol.get("text_cleaning") or "", field="text_cleaning of the embeddings")
    place: dict[str, int] = {}
    return np.array([place.setdefault(clean(text), len(place)) for text in embeddings.captions])


def any_match(
    ranks: Mapping[str, Ranks],
    *,
    text: np.ndarray,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray,
    options: CountOptions = DEFAULTS,
) -> dict[str, Any]:
    """Measure retrieval where any clip with the same caption is right; {} if no two clips share a caption.

    Args:
      ranks: `directions.all_ranks` of the arrays.
      text: float [n,E], one row per caption; normalised here.
      video: float [m,E], one row per video; normalised here.
      video_of_text: int [n], each caption's video.
      same_text: int [n], equal for equal captions.
      options: how pairs are counted for `classification`.

    Returns:
      `protocol` (the rule); `text_to_video_any_match` and `video_to_text_any_match`, as in `ranks.summary`, each
      with `chance_R@1` in percent; and `zero_shot_classification`, see `classification`, where at most half of the
      captions are distinct.
    """
    pairs = np.unique(np.stack([same_text, video_of_text], axis=1), axis=0)  # each text once per clip
    numbers, clips_of_text = np.unique(pairs[:, 0], return_counts=True)
    if clips_of_text.max() == 1:
        return {}
    right = clips_of_text[np.searchsorted(numbers, same_text)]  # [n]
    sharing = _clips_that_share(pairs)
    blocks = {
        "protocol": {"any_match": ANY_MATCH},
        "text_to_video_any_match": summary(ranks[TEXT_TO_ANY]) | {"chance_R@1": 100 * float(right.mean()) / len(video)},
        "video_to_text_any_match": summary(ranks[VIDEO_TO_ANY])
        | {"chance_R@1": 100 * float(np.mean(sharing)) / len(sharing)},
    }
    if 2 * len(numbers) <= len(text):
        arrays: dict[str, Any] = {"text": text, "video": video, "video_of_text": video_of_text}
        blocks[CLASSIFICATION] = classification(**arrays, same_text=same_text, options=options)
    return blocks


def shared_duplicates(
    *,
    text: np.ndarray,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray,
    options: CountOptions = DEFAULTS,
) -> dict[str, Any]:
    """Measure retrieval where duplicates share their partners, clips as well as captions.

    A caption is right for a clip if an equal caption belongs to an equal clip. The any-match rows know equal captions
    only: of two copies of a clip with different captions, each is wrong there for the other's.

    Args:
      text: as all further arguments, see `any_match`.
      video: see there; clips with equal rows are copies of each other, since equal input is embedded once.
      video_of_text: see there.
      same_text: see there.
      options: how pairs are counted.

    Returns:
      `text_to_video_shared_duplicates` and `video_to_text_shared_duplicates`, as in `ranks.summary`, and `protocol`:
      `duplicate_videos`, the clips that are copies of an earlier one.
    """
    copy_of = row_numbers(check_rows(video, name="video"))
    copies = int(copy_of.max()) + 1
    by_copy = np.argsort(copy_of, kind="stable")
    sizes = np.bincount(copy_of)
    starts = np.cumsum(sizes) - sizes
    # Each caption with the copies of the clips that equal captions belong to
    known = np.unique(same_text * copies + copy_of[video_of_text])
    begins = np.searchsorted(known, same_text * copies)
    counts = np.searchsorted(known, (same_text + 1) * copies) - begins
    texts, groups = np.repeat(np.arange(len(same_text)), counts), known[spread(begins, counts)] % copies
    right = np.repeat(texts, sizes[groups]), by_copy[spread(starts[groups], sizes[groups])]
    pairs = Pairs(text, video=video, video_of_text=video_of_text, right=right)
    found = count_ranks([TEXT_TO_ANY, VIDEO_TO_ANY], pairs=pairs, options=options)
    return {
        "protocol": {"duplicate_videos": len(video) - copies},
        "text_to_video_shared_duplicates": summary(found[TEXT_TO_ANY]),
        "video_to_text_shared_duplicates": summary(found[VIDEO_TO_ANY]),
    }


def _clips_that_share(pairs: np.ndarray) -> list[int]:
    """Return for each captioned clip how many clips (itself included) have one of its captions.

    Args:
      pairs: int [p,2], the distinct pairs (caption, clip), sorted.
    """
    clips_of: dict[int, set[int]] = {}
    captions_of: dict[int, tuple[int, ...]] = {}
    for caption, clip in pairs.tolist():  # equal sets of captions become equal tuples
        clips_of.setdefault(caption, set()).add(clip)
        captions_of[clip] = (*captions_of.get(clip, ()), caption)
    sizes = {
        captions: len(set().union(*(clips_of[caption] for caption in captions)))
        for captions in set(captions_of.values())
    }
    return [sizes[captions] for captions in captions_of.values()]


def classification(
    *,
    text: np.ndarray,
    video: np.ndarray,
    video_of_text: np.ndarray,
    same_text: np.ndarray,
    options: CountOptions = DEFAULTS,
) -> dict[str, Any]:
    """Classify each captioned clip among the distinct captions: zero-shot classification where captions name classes.

    Arguments as in `any_match`; of equal captions the first one's row is scored.

    Returns:
      `top1` (and `top5` where there are more than five classes) in percent, in expectation over the order of ties, the
      same under `optimistic` and `pessimistic`; `chance` of `top1`; `classes` and `n`, the clips classified.
    """
    numbers, first, classes = np.unique(same_text, return_index=True, return_inverse=True)
    captioned, place = np.unique(video_of_text, return_inverse=True)
    right = np.unique(np.stack([place, classes], axis=1), axis=0)  # [p,2], clips and their classes
    own = right[np.unique(right[:, 0], return_index=True)[1], 1]
    pairs = Pairs(video[captioned], video=text[first], video_of_text=own, right=(right[:, 0], right[:, 1]))
    found = count_ranks([TEXT_TO_ANY], pairs=pairs, options=options)[TEXT_TO_ANY]
    names = {1: "top1"} | ({5: "top5"} if len(numbers) > 5 else {})
    return {
        **{name: recall_at(found, k=k) for k, name in names.items()},
        "optimistic": {name: 100 * float((found.optimistic <= k).mean()) for k, name in names.items()},
        "pessimistic": {name: 100 * float((found.pessimistic <= k).mean()) for k, name in names.items()},
        "chance": 100 * len(right) / (len(captioned) * len(numbers)),
        "classes": len(numbers),
        "n": len(captioned),
    }


def repetition(results: dict[str, Any]) -> list[str]:
    """Describe repeated texts in sentences, for the page and the terminal; none where no text repeats.

    Args:
      results: the content of `retrieval.json`.
    """
    protocol = results["protocol"]
    repeated = protocol["texts"] - protocol["distinct_texts"]
    if not repeated:
        return []
    lines = [f"{repeated:,} of {protocol['texts']:,} texts {'repeats' if repeated == 1 else 'repeat'} another"]
    if block := results.get("text_to_video_any_match"):
        lines[0] += (
            ": the first rows count only a text's own clip as right, the any-match rows (duplicates shared) every clip "
            "with the same text "
            f"(chance of R@1 {block['chance_R@1']:.1f} %)"
        )
    if block := results.get(CLASSIFICATION):
        low, high = block["pessimistic"]["top1"], block["optimistic"]["top1"]
        ties = f"worst case {low:.1f} %, best case {high:.1f} %, " if low != high else ""
        top5 = f"top-5 {block['top5']:.1f} %, " if "top5" in block else ""
        lines.append(
            f"Zero-shot classification of {block['n']:,} clips among the {block['classes']:,} distinct texts: "
            f"top-1 {block['top1']:.1f} % ({ties}{top5}chance {block['chance']:.1f} %)"
        )
    return [f"{line}." for line in lines]
