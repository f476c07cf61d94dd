"""Figures of verification: embeddings of clips to EER, TAR at FAR and LFW's accuracy over folds."""

import dataclasses
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...evaluate.measures.identity import far_table, ten_folds, verification
from ..examples.pairs import Pairs

FAR = (1e-4, 1e-3, 1e-2, 1e-1)
"""False-accept rates of the tables."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """What is measured.

    Attributes:
      embedding: float [m,E], rows of unit length, of the clips.
      untrained: float [m,D], likewise, what the tower gives without training; None where it was trained.
      pairs: of the clips.
      folds: balanced pairs in folds, or the same pairs.
      count: of folds; 0 = no figure over folds.
    """

    embedding: np.ndarray
    untrained: np.ndarray | None
    pairs: Pairs
    folds: Pairs
    count: int


def cosines(rows: np.ndarray, *, pairs: Pairs, chunk: int = 65_536) -> np.ndarray:
    """Return the cosine of each pair of rows of unit length, float64 [n]."""
    parts = [
        np.einsum("ne,ne->n", rows[pairs.first[i : i + chunk]], rows[pairs.second[i : i + chunk]], dtype=np.float64)
        for i in range(0, len(pairs), chunk)
    ]
    return np.concatenate([np.zeros(0), *parts])


def verification_figures(compared: Compared, *, threshold: float | None = None) -> dict[str, Any]:
    """Return the figures of the model and, where the tower was not trained, of its embedding without training.

    Args:
      compared: embeddings and pairs.
      threshold: cosine from which two clips count as one identity; None = where both errors of these pairs are equal.

    Returns:
      `model` and `untrained` (None where there is none): what `measures.identity.verification` gives at `FAR`,
      `far_table` and, with folds, `lfw` (`ten_folds`); `chance`: an EER of 1/2; `threshold`: its `value`, `chosen_on`
      ("these pairs" or "validation pairs"), and `far`, `frr` and `accuracy` at it; `pairs` and `same`, their numbers.
      All rates are fractions.
    """
    scores = cosines(compared.embedding, pairs=compared.pairs)
    found: dict[str, Any] = {"pairs": len(compared.pairs), "same": int(compared.pairs.same.sum())}
    found["model"] = _figures(compared.embedding, compared=compared)
    plain = compared.untrained
    found["untrained"] = None if plain is None else _figures(plain, compared=compared)
    found["chance"] = {"eer": 0.5, "auc": 0.5}
    same, chosen = compared.pairs.same, threshold is None
    limit = eer_threshold(scores, same=same) if threshold is None else threshold
    said = scores >= limit
    rates = {"far": said[~same].mean(), "frr": (~said[same]).mean(), "accuracy": (said == same).mean()}
    where = "these pairs" if chosen else "validation pairs"
    found["threshold"] = {"value": limit, "chosen_on": where, **{name: float(rate) for name, rate in rates.items()}}
    return found


def eer_threshold(scores: np.ndarray, *, same: np.ndarray) -> float:
    """Return the score at which the rates of both errors are nearest to each other; pairs from it on count as same.

    >>> eer_threshold(np.array([0.9, 0.8, 0.3, 0.1]), same=np.array([True, True, False, False]))
    0.8
    """
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    far = np.cumsum(~same[order])[last] / max(1, (~same).sum())
    frr = 1 - np.cumsum(same[order])[last] / max(1, same.sum())
    return float(scores[order][last][np.abs(far - frr).argmin()])


def _figures(rows: np.ndarray, *, compared: Compared) -> dict[str, Any]:
    scores = cosines(rows, pairs=compared.pairs)
    if not np.isfinite(scores).all():
        raise UserError(
            f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite: the model's weights are "
            "damaged; choose an earlier checkpoint (--resume_step)"
        )
    found = verification(scores, same=compared.pairs.same, far=FAR)
    found["far_table"] = far_table(scores, same=compared.pairs.same, far=FAR)
    if compared.count:
        first, second = rows[compared.folds.first], rows[compared.folds.second]
        found["lfw"] = ten_folds(first, second=second, same=compared.folds.same, folds=compared.count)
        found["lfw"]["folds"] = compared.count
    return found
