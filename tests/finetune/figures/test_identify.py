"""Figures of verification from embeddings against those that other projects' code prints (tests/golden/evaluate)."""

import numpy as np
import pytest
from evaluate_golden import arrays, figures

from twinreel.base.errors import UserError
from twinreel.finetune.examples.pairs import Pairs
from twinreel.finetune.figures.identify import Compared, cosines, eer_threshold, verification_figures


@pytest.fixture(scope="module")
def compared():
    found = arrays("identity")
    count = len(found["same"])
    pairs = Pairs(first=np.arange(count), second=count + np.arange(count), same=found["same"])
    rows = np.concatenate([found["a"], found["b"]]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    plain = np.random.default_rng(0).normal(size=rows.shape)
    return Compared(embedding=rows, untrained=plain / np.linalg.norm(plain, axis=1)[:, None], pairs=pairs, folds=pairs,
                    count=10)  # fmt: skip


def test_the_figures_of_three_projects(compared):
    found, wanted = verification_figures(compared), figures("identity")
    own, of_scores = found["model"], wanted["scores (cosine)"]
    assert own["eer"] == pytest.approx(of_scores["facenet EER (brentq on the interpolated ROC)"], abs=1e-9)
    assert own["auc"] == pytest.approx(of_scores["ROC AUC"])
    strict = of_scores["largest TPR with FPR <= target (1e-3, 1e-2, 1e-1), the strict rule (computed here)"]
    assert [own["tar"][rate] for rate in ("0.001", "0.01", "0.1")] == pytest.approx(strict)
    nearest = of_scores["insightface IJB-C table TPR percent at FPR 1e-6..1e-1 (nearest FPR, largest TPR)"]
    assert [100 * own["tar_nearest"][rate] for rate in ("0.0001", "0.001", "0.01", "0.1")] == pytest.approx(nearest[2:])
    table = of_scores["voxceleb_trainer threshold, FPR, FNR at FAR 1e-1, 1e-2, 1e-3 (nearest, may overshoot)"]
    assert [own["far_table"]["0.1"][name] for name in ("fpr", "fnr")] == pytest.approx(table[0][1:])
    lfw = wanted["insightface LFW protocol"]["accuracy mean, std (10 folds in file order)"]
    assert [own["lfw"]["accuracy"], own["lfw"]["std"]] == pytest.approx(lfw)
    assert 0.4 < found["untrained"]["eer"] < 0.6 and found["chance"]["eer"] == 0.5


def test_the_threshold_and_the_errors_at_it(compared):
    scores, same = cosines(compared.embedding, pairs=compared.pairs, chunk=7), compared.pairs.same
    limit = eer_threshold(scores, same=same)
    errors = [((scores >= t)[~same].mean(), (scores < t)[same].mean()) for t in np.unique(scores)]
    assert min(abs(far - frr) for far, frr in errors) == pytest.approx(
        abs((scores >= limit)[~same].mean() - (scores < limit)[same].mean())
    )
    own, given = (verification_figures(compared, threshold=value)["threshold"] for value in (None, 2.0))
    assert own["value"] == pytest.approx(limit) and own["chosen_on"] == "these pairs"
    assert own["far"] == pytest.approx(0.11) and own["frr"] == pytest.approx(0.11)
    assert (given["far"], given["frr"], given["chosen_on"]) == (0, 1, "validation pairs")


def test_damaged_weights_are_named(compared):
    rows = compared.embedding.copy()
    rows[0] = np.nan
    damaged = Compared(embedding=rows, untrained=None, pairs=compared.pairs, folds=compared.folds, count=0)
    with pytest.raises(UserError, match="1 of 600 scores are not finite"):
        verification_figures(damaged)
