"""What a head along time says of a clip, as spans or scores of moments: non-maximum suppression, runs of labels."""

import itertools

import numpy as np


def suppressed(spans: np.ndarray, *, threshold: float) -> np.ndarray:
    """Return the indices that non-maximum suppression keeps of spans [n,2], best first, int64.

    A span is dropped where its intersection over union with a better one that is kept exceeds the threshold.

    >>> suppressed(np.array([[0.0, 1.0], [0.1, 1.0], [2.0, 3.0]]), threshold=0.5).tolist()
    [0, 2]
    """
    length = spans[:, 1] - spans[:, 0]
    kept: list[int] = []
    for number, (start, end) in enumerate(spans):
        others = np.array(kept, np.int64)
        inside = np.maximum(np.minimum(spans[others, 1], end) - np.maximum(spans[others, 0], start), 0)
        union = length[others] + length[number] - inside
        if not (inside > threshold * union).any():
            kept.append(number)
    return np.array(kept, np.int64)


def best_spans(scores: np.ndarray, *, spans: np.ndarray, threshold: float, keep: int) -> np.ndarray:
    """Return the best spans of a clip after non-maximum suppression within each class.

    Args:
      scores: float [P,C], 0..1.
      spans: float [P,2], start and end as fractions of the clip; they are cut to it.
      threshold: of the overlap in non-maximum suppression.
      keep: how many at most, of all classes together.

    Returns:
      float64 [k,4]: start, end, score and number of the class; best first, equal scores in the order of the steps.
    """
    cut = np.clip(spans.astype(np.float64), 0, 1)
    real = cut[:, 1] > cut[:, 0]
    found = []
    for label in range(scores.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        order = order[real[order]]
        order = order[suppressed(cut[order], threshold=threshold)][:keep]
        own = np.full(len(order), float(label))
        found.append(np.column_stack([cut[order], scores[order, label].astype(np.float64), own]))
    every = np.concatenate(found)
    return every[np.argsort(-every[:, 2], kind="stable")][:keep]


def label_runs(path: np.ndarray, *, probability: np.ndarray) -> np.ndarray:
    """Return the runs of equal labels of a path as spans.

    Args:
      path: int [T], the label of each time step; 0 is the background.
      probability: float [T], of that label at that step.

    Returns:
      float64 [k,4]: start and end as fractions of the clip, the mean probability, and the label less 1; best first.

    >>> label_runs(np.array([0, 2, 2, 0]), probability=np.array([0.9, 0.8, 0.6, 0.9])).tolist()
    [[0.25, 0.75, 0.7, 1.0]]
    """
    edges = np.flatnonzero(np.diff(path, prepend=-1, append=-1))
    runs = [
        (begin / len(path), end / len(path), float(probability[begin:end].mean()), float(path[begin] - 1))
        for begin, end in itertools.pairwise(edges.tolist())
        if path[begin] > 0
    ]
    return np.array(sorted(runs, key=lambda run: -run[2]), np.float64).reshape(-1, 4)


def at_moments(scores: np.ndarray, *, moments: int) -> np.ndarray:
    """Return the scores of `moments` equal parts of a clip, linearly between the middles of its time steps.

    Args:
      scores: float [T], of the time steps.
      moments: how many.

    >>> at_moments(np.array([0.0, 1.0]), moments=4).tolist()
    [0.0, 0.25, 0.75, 1.0]
    """
    steps = (np.arange(len(scores)) + 0.5) / len(scores)
    return np.interp((np.arange(moments) + 0.5) / moments, steps, scores)
