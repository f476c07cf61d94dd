"""Order twins: clips of one group that differ only in the order of their events, and their captions likewise."""

from collections import defaultdict
from typing import Any

import numpy as np

from ..embedding.embeddings import Embeddings
from ..measures.rows import check_pair, paired_cosine
from .controls import SHUFFLED

CHANCE = 50.0


def order_twins(embeddings: Embeddings) -> dict[str, Any]:
    """Measure how often a caption's own clip scores above its twin, a clip of the same `group`.

    Returns:
      `accuracy` and `accuracy_shuffled` in percent (a tie counts half; chance is 50; the second comes from the control
      `shuffled_frames` and is None without it), `n` captions measured, and `without_twin`, the captions that are left
      out because no other clip of their group is in the split. In a group of more than two clips a caption counts the
      share of the others that its own clip beats. Without any twins both accuracies are None and `n` is 0.
    """
    pairs, grouped = twin_pairs(embeddings)
    n = len({int(caption) for caption, _, _ in pairs})
    found: dict[str, Any] = {"accuracy": None, "accuracy_shuffled": None, "n": n, "without_twin": grouped - n}
    if n:
        found["accuracy"] = _accuracy(embeddings, embeddings.video, pairs)
    if n and SHUFFLED in embeddings.controls:
        found["accuracy_shuffled"] = _accuracy(embeddings, embeddings.controls[SHUFFLED], pairs)
    return found


def twin_pairs(embeddings: Embeddings) -> tuple[np.ndarray, int]:
    """Return int [p,3], (caption, its own clip, another clip of the group), and how many captions are in a group."""
    members: dict[str, list[int]] = defaultdict(list)
    for clip, group in enumerate(embeddings.groups):
        if group:
            members[group].append(clip)
    group_of = {clip: clips for clips in members.values() for clip in clips}
    grouped = [(i, clip) for i, clip in enumerate(embeddings.video_of_text.tolist()) if clip in group_of]
    pairs = [(i, clip, twin) for i, clip in grouped for twin in group_of[clip] if twin != clip]
    return np.array(pairs, dtype=np.int64).reshape(-1, 3), len(grouped)


def _accuracy(embeddings: Embeddings, video: np.ndarray, pairs: np.ndarray) -> float:
    text, video, _ = check_pair(embeddings.text, video=video, video_of_text=embeddings.video_of_text)
    caption, own, twin = pairs.T
    right = paired_cosine(text[caption], second=video[own])
    wrong = paired_cosine(text[caption], second=video[twin])
    won = (right > wrong) + 0.5 * (right == wrong)
    _, place, times = np.unique(caption, return_inverse=True, return_counts=True)
    return 100 * float((won / times[place]).sum() / len(times))  # each caption weighs the same
