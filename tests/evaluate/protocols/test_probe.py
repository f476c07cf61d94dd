"""Probes on arrays: against scikit-learn, the gradient of the objective in float64, and a loop."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from twinreel.base.errors import UserError
from twinreel.evaluate.protocols.probe import AttentiveOptions, ProbeData, ProbeOptions, probe_report
from twinreel.evaluate.protocols.probe_attentive import attentive_probe
from twinreel.evaluate.protocols.probe_data import ProbeSet, draw_shots
from twinreel.evaluate.protocols.probe_linear import linear_probe
from twinreel.evaluate.protocols.retrieval import coverage_of

CENTRES = np.random.default_rng(1).normal(size=(5, 6)).astype(np.float32)
NAMES = ["a", "b", "c", "d", "e"]


def clips(m, *, seed, classes=(0, 1, 2, 3), several=False, noise=0.7):
    """Noise around a centre for each class; of several classes, around the sum of their centres."""
    rng = np.random.default_rng(seed)
    targets = np.zeros((m, 5), bool)
    targets[np.arange(m), np.array(classes)[np.arange(m) % len(classes)]] = True
    if several:
        targets[:, list(classes)] |= rng.random((m, len(classes))) < 0.3
    features = targets.astype(np.float32) @ CENTRES + noise * rng.normal(size=(m, 6)).astype(np.float32)
    return ProbeSet(features=features, targets=targets)


def data(train=None, test=None, *, validation=True, several=False):
    kind = {"several": several}
    test = test or clips(30, seed=3, **kind)
    return ProbeData(
        train=train or clips(60, seed=1, **kind),
        validation=clips(40, seed=2, **kind) if validation else None,
        test=test,
        several=several,
        classes=NAMES,
        clip_ids=[f"clip {i}" for i in range(len(test))],
        coverage=coverage_of(rows=None, rejects=[]),
    )


def report(given, **options):
    results, scores = probe_report(given, options=ProbeOptions(**options), say=lambda line: None)
    return results, scores


# ---- linear


def test_the_linear_probe_is_that_of_scikit_learn_at_the_c_that_validation_chooses():
    given = data()
    results, scores = report(given)
    facts = results["probe"]
    both = given.train.with_others(given.validation)
    model = LogisticRegression(C=facts["C"], max_iter=1000).fit(both.features.astype(float), both.labels)
    np.testing.assert_allclose(scores[:, :4], model.predict_proba(given.test.features.astype(float)), atol=1e-9)
    assert not scores[:, 4].any()
    predicted = model.classes_[model.predict_proba(given.test.features.astype(float)).argmax(axis=1)]
    assert results["accuracy"]["top1"] == pytest.approx(100 * (predicted == given.test.labels).mean())
    balanced = balanced_accuracy_score(given.test.labels, predicted)
    assert results["mean_class_accuracy"]["over_truth"] == pytest.approx(100 * balanced)
    tried = {round(float(np.log10(one["C"])), 3): one["validation"] for one in facts["sweep"]}
    assert {-6, -4, -2, 0, 2, 4, 6} <= tried.keys() and len(tried) <= 15 and facts["joined"]
    chosen = round(float(np.log10(facts["C"])), 3)
    assert chosen == min(at for at, value in tried.items() if value == max(tried.values()))
    for at in (chosen, min(tried)):
        model = LogisticRegression(C=10.0**at, max_iter=1000).fit(
            given.train.features.astype(float), given.train.labels
        )
        assert tried[at] == pytest.approx(100 * model.score(given.validation.features, given.validation.labels))


def test_the_objective_has_no_slope_at_the_solution():
    given = data(validation=False)
    facts = {}

    def weights(features):
        """Affine maps of the logits, from the log-probabilities at 0 and at the unit vectors."""
        points = ProbeSet(features=features, targets=np.zeros((len(features), 5), bool))
        found = linear_probe(given.train, validation=None, test=points, several=False, join=True, say=print)
        facts.update(found.facts)
        return np.log(found.scores[:, :4])

    table = weights(np.concatenate([np.zeros((1, 6)), np.eye(6)]).astype(np.float32))
    table -= table.mean(axis=1, keepdims=True)
    bias, slopes = table[0], table[1:] - table[0]
    x, labels = given.train.features.astype(float), given.train.targets[:, :4].astype(float)
    logits = x @ slopes + bias
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gradient = facts["C"] * x.T @ (chances - labels) + slopes
    assert facts["C"] == pytest.approx(0.316, abs=1e-3)
    assert np.abs(gradient).max() < 0.01 * np.abs(facts["C"] * x.T @ labels).max()


def test_clips_of_several_classes_get_a_regression_for_each():
    given = data(several=True)
    results, scores = report(given)
    both = given.train.with_others(given.validation)
    for number in range(4):
        model = LogisticRegression(C=results["probe"]["C"], max_iter=1000)
        model.fit(both.features.astype(float), both.targets[:, number])
        want = model.predict_proba(given.test.features.astype(float))[:, 1]
        np.testing.assert_allclose(scores[:, number], want, atol=1e-9)
    want = average_precision_score(given.test.targets[:, :4], scores[:, :4], average="macro")
    assert results["multilabel"]["mAP"] == pytest.approx(100 * want)
    assert results["multilabel"]["absent"] == 1 and not scores[:, 4].any()


# ---- attentive


def sequences(m, *, seed):
    """The class is in one token of four, which the last channel marks; the others are noise."""
    flat, rng = clips(m, seed=seed, noise=0.2), np.random.default_rng(seed)
    tokens = rng.normal(size=(m, 4, 7)).astype(np.float32)
    tokens[:, :, 6] = -3
    tokens[np.arange(m), rng.integers(0, 4, m)] = np.pad(flat.features, ((0, 0), (0, 1)), constant_values=3)
    return ProbeSet(features=tokens, targets=flat.targets)


def test_an_attentive_probe_finds_the_token_that_matters_and_stops_by_validation():
    options = AttentiveOptions(learning_rate=0.03, epochs=30, patience=3, batch_size=32)
    sets = {"validation": sequences(50, seed=2), "test": sequences(40, seed=3), "several": False}
    found = attentive_probe(sequences(150, seed=1), **sets, options=options, seed=0, say=lambda line: None)
    again = attentive_probe(sequences(150, seed=1), **sets, options=options, seed=0, say=lambda line: None)
    np.testing.assert_array_equal(found.scores, again.scores)
    losses = [one["validation"] for one in found.facts["losses"]]
    assert found.facts["best_epoch"] == 1 + int(np.argmin(losses))
    assert found.facts["epochs"] == min(30, found.facts["best_epoch"] + 3) == len(losses)
    right = found.scores.argmax(axis=1) == sets["test"].labels
    assert right.mean() > 0.85
    np.testing.assert_allclose(found.scores.sum(axis=1), 1)
    assert not found.scores[:, 4].any()


def test_padded_tokens_are_not_seen_and_several_classes_have_sigmoids():
    given = clips(24, seed=1, several=True)
    tokens = np.repeat(given.features[:, None], 3, axis=1)
    mask = np.array([[True, True, False]] * 24)
    dirty = tokens.copy()
    dirty[:, 2] = 1e3
    options = AttentiveOptions(epochs=2, batch_size=10)
    scores = []
    for features in (tokens, dirty):
        one = ProbeSet(features=features, targets=given.targets, mask=mask)
        told = {"several": True, "options": options, "seed": 1, "say": lambda line: None}
        scores.append(attentive_probe(one, validation=None, test=one, **told).scores)
    np.testing.assert_array_equal(*scores)
    assert (scores[0].sum(axis=1) > 1.2).any() and not scores[0][:, 4].any()


# ---- shots and draws


def test_shots_are_drawn_from_each_class_and_again_alike():
    targets = clips(40, seed=0).targets
    first = draw_shots(targets, shots=3, key=(5, 0))
    assert targets[first].sum(axis=0).tolist() == [3, 3, 3, 3, 0]
    np.testing.assert_array_equal(first, draw_shots(targets, shots=3, key=(5, 0)))
    assert set(first) != set(draw_shots(targets, shots=3, key=(5, 1)))
    assert len(draw_shots(targets, shots=99, key=(0, 0))) == 40


def test_draws_have_mean_and_spread():
    results, _ = report(data(), method="knn", shots=2, draws=4, seed=7, k=3)
    values = [one["top1"] for one in results["draws"]]
    over = results["over_draws"]["top1"]
    assert [one["seed"] for one in results["draws"]] == [7, 8, 9, 10] and len(set(values)) > 1
    assert (over["mean"], over["std"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert values[0] == results["accuracy"]["top1"] and results["protocol"]["train_clips"] == 8
    assert "over_draws" not in report(data(), method="knn", shots=2)[0]


def test_a_probe_on_shots_is_not_trained_on_validation_clips():
    given = data()
    results, scores = report(given, shots=3)
    own = given.train.take(draw_shots(given.train.targets, shots=3, key=(0, 0)))
    assert not results["probe"]["joined"] and results["protocol"]["train_clips"] == len(own) == 12
    model = LogisticRegression(C=results["probe"]["C"], max_iter=1000).fit(own.features.astype(float), own.labels)
    np.testing.assert_allclose(scores[:, :4], model.predict_proba(given.test.features.astype(float)), atol=1e-9)


# ---- what is missing is counted, or refused


def test_classes_without_training_clips_are_named_and_counted():
    given = data(test=clips(30, seed=3, classes=(0, 1, 2, 3, 4)))
    results, _ = report(given, method="knn", k=1000, shots=14)
    told = " | ".join(results["protocol"]["warnings"])
    assert "1 classes have no training clip and are never predicted: e; 6 test clips have no other class" in told
    assert "k is 56, the number of training clips, instead of 1000" in told
    assert results["per_class"][4]["top1"] == 0 and results["per_class"][4]["predicted"] == 0
    few = report(data(train=clips(9, seed=1)), shots=3)[0]["protocol"]["warnings"]
    assert any("3 classes have fewer than 3 training clips" in line for line in few)


def test_a_probe_without_validation_clips_says_so():
    for method, told in (("linear", "no validation clips: C is 0.316"), ("attentive", "the last epoch counts")):
        given = data(validation=False)
        if method == "attentive":
            train, test = (
                ProbeSet(features=one.features[:, None], targets=one.targets) for one in (given.train, given.test)
            )
            given = data(train, test, validation=False)
        results, _ = report(given, method=method, attentive=AttentiveOptions(epochs=1))
        assert any(told in line for line in results["protocol"]["warnings"])


@pytest.mark.parametrize(
    ("train", "several", "message"),
    [
        (clips(9, seed=0, classes=(1,)), False, "training clips of two classes or more, and the 9 there have b"),
        (ProbeSet(features=np.ones((2, 6)), targets=np.ones((2, 5), bool)), True, "same labels, so there is nothing"),
    ],
)
def test_what_teaches_nothing_is_refused(train, several, message):
    with pytest.raises(UserError, match=message):
        report(data(train, several=several), method="knn")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "knnn"}, "did you mean 'knn'"),
        ({"draws": 3}, "--draws 3 trains on other clips each time"),
        ({"shots": -1}, "--shots is -1; wanted 0 or more"),
        ({"k": 0}, "--k is 0; wanted 1"),
    ],
)
def test_options_out_of_range_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        ProbeOptions(**given)
