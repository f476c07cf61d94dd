"""Dual softmax and QB-norm against the figures of their code; hubness against loops and scipy."""

import numpy as np
import pytest
from evaluate_golden import figures, retrieval_case
from scipy.stats import skew

from twinreel.base.errors import UserError
from twinreel.evaluate.measures.ranks import among_videos, ranks, summary
from twinreel.evaluate.measures.rerank import dual_softmax, hubness, k_occurrence, qb_norm


@pytest.mark.parametrize("scale", [1, 10, 100])
@pytest.mark.parametrize("case", ["sq500", "mcvar"])
def test_dual_softmax_of_each_direction_is_pe_s(case, scale):
    scores, owner = retrieval_case(case)
    want = figures("retrieval")[case]["perception_models"][f"reweight_scale={scale}"]
    block = summary(ranks(dual_softmax(scores, scale=scale, direction="t2v"), positives=owner))
    for k in (1, 5, 10):
        assert block[f"R@{k}"] == pytest.approx(100 * want[f"video_retrieval_recall@{k}"], abs=1e-4)
    if case == "sq500":
        block = summary(among_videos(dual_softmax(scores, scale=scale, direction="v2t"), video_of_text=owner))
        assert block["R@1"] == pytest.approx(100 * want["text_retrieval_recall@1"], abs=1e-4)


@pytest.mark.parametrize("name", ["beta=20,k=1", "beta=20,k=3", "beta=100,k=1", "beta=0.5025,k=1"])
def test_qb_norm_is_its_authors(name):
    (scores, owner), (bank, _) = retrieval_case("qb_test"), retrieval_case("qb_bank")
    beta, k = (part.split("=")[1] for part in name.split(","))
    want, before = figures("retrieval")["qb_test"]["qb_norm"][name], scores.copy()
    found = qb_norm(scores, bank=bank, beta=1 / 1.99 if beta == "0.5025" else float(beta), k=int(k))
    assert found.activated.tolist() == want["activated_videos"]
    assert found.normalised.sum() == want["normalised_queries"]
    assert found.scores[0, :5] == pytest.approx(want["row0_first5"], rel=1e-4)
    block = summary(ranks(found.scores, positives=owner))
    names = {"R1": "R@1", "R5": "R@5", "R10": "R@10", "R50": "R@50", "MedR": "MdR", "MeanR": "MnR"}
    names["geometric_mean_R1-R5-R10"] = "geometric_mean"
    got = {key: block[ours] for key, ours in names.items()}
    assert got == pytest.approx(want["t2v"])
    assert got == pytest.approx(want["t2v_rounded_as_printed"], abs=0.0501)
    assert (scores == before).all()


def test_qb_norm_survives_large_beta():
    (scores, _), (bank, _) = retrieval_case("qb_test"), retrieval_case("qb_bank")
    assert np.isfinite(qb_norm(100 * scores, bank=100 * bank, beta=1000.0).scores).all()


def test_hubness_is_scipy_s_skewness_of_a_count():
    scores = retrieval_case("sq500")[0]
    counts = np.bincount(np.argsort(-scores, axis=1)[:, :10].ravel(), minlength=500)
    tied = np.sort(scores, axis=1)[:, -11] == np.sort(scores, axis=1)[:, -10]
    assert k_occurrence(scores[~tied], k=10).sum() == pytest.approx(10 * (~tied).sum())
    untied = scores + np.random.default_rng(0).random(scores.shape) * 1e-6
    counts = np.bincount(np.argsort(-untied, axis=1)[:, :10].ravel(), minlength=500)
    found = hubness(untied, k=10)
    assert found["skewness"] == pytest.approx(skew(counts))
    assert found["largest"] == counts.max() / 500
    assert found["antihubs"] == (counts == 0).mean()
    assert hubness(np.ones((4, 5)), k=2)["skewness"] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: dual_softmax(s, scale=0, direction="t2v"), "scale of the dual softmax is 0"),
        (lambda s: dual_softmax(s, scale=1, direction="rows"), "direction is 'rows'"),
        (lambda s: qb_norm(s, bank=s[:, :2]), "'bank' has 2 videos and 'scores' 3"),
        (lambda s: qb_norm(s, bank=s[:0]), "'bank' is float64 of shape"),
        (lambda s: qb_norm(s, bank=s, k=4), "k is 4; wanted beta > 0 and 1 <= k <= 3"),
        (lambda s: qb_norm(s, bank=np.full_like(s, np.nan)), "'bank' of row 0 and column 0 is nan"),
        (lambda s: hubness(s, k=4), "k of the k-occurrence is 4"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UserError) as caught:
        call(np.eye(3))
    assert message in str(caught.value)
