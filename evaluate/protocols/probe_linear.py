"""The linear probe: logistic regression on frozen features, its regularisation chosen on validation clips."""

import warnings
from typing import Any

import numpy as np

from ..measures.multilabel import mean_average_precision
from .probe_data import ProbeSet, Say, Scored

SOURCE = "Radford et al. 2021 (CLIP, arXiv:2103.00020), appendix A.3"
LIMIT, RESOLUTION = 6.0, 1 / 8
"""The sweep stays within C = 1e-6 to 1e6, and ends at 8 steps per decade."""
MAX_ITERATIONS = 1000
_SMALL = 1 << 18
WITHOUT_VALIDATION = -0.5
"""log10 C where there are no validation clips: 0.316, that of CLIP's README."""


def linear_probe(
    train: ProbeSet, *, validation: ProbeSet | None, test: ProbeSet, several: bool, join: bool, say: Say
) -> Scored:
    """Train a linear classifier by L-BFGS and score the test clips.

    The protocol of CLIP (Radford et al. 2021, appendix A.3): logistic regression of scikit-learn on features as they
    are, at most 1,000 iterations; the inverse regularisation C from a sweep on validation clips that begins at 1e-6,
    1e-4 … 1e6 and halves its step around the best until there are 8 steps per decade. Clips of several classes get
    one binary regression for each class.

    Args:
      train: features float [m,D].
      validation: of which `top-1` (or mAP) chooses C, the smaller of equal ones; None = C is 0.316.
      test: is scored.
      several: clips may have several classes.
      join: train the final classifier on validation clips, too, as CLIP does.
      say: called with a line of text for each step of the sweep.

    Returns:
      The scores; `facts`: `C`, `sweep` (a list of `C` and `validation`, in percent), `joined`, and `not_converged`, the
      number of regressions that reached the last iteration.
    """
    stopped: list[int] = []
    exponent, sweep = WITHOUT_VALIDATION, {}
    if validation is not None:
        exponent, sweep = _sweep(train, validation=validation, several=several, stopped=stopped, say=say)
    both = train.with_others(validation) if join and validation is not None else train
    scores = _fit(both, test=test, several=several, exponent=exponent, stopped=stopped)
    facts: dict[str, Any] = {
        "C": 10.0**exponent,
        "sweep": [{"C": 10.0**at, "validation": value} for at, value in sorted(sweep.items())],
        "joined": both is not train,
        "not_converged": sum(stopped),
        "protocol": SOURCE,
    }
    return Scored(scores=scores, facts=facts)


def _sweep(
    train: ProbeSet, *, validation: ProbeSet, several: bool, stopped: list[int], say: Say
) -> tuple[float, dict[float, float]]:
    """Return log10 C of the best regression, and the figure of each that was tried by its log10 C."""
    tried: dict[float, float] = {}

    def best() -> float:
        return max(tried, key=lambda at: (tried[at], -at))

    step, wanted = 2.0, [float(at) for at in range(-6, 7, 2)]
    while True:
        for at in wanted:
            if at not in tried and abs(at) <= LIMIT:
                scores = _fit(train, test=validation, several=several, exponent=at, stopped=stopped)
                tried[at] = _figure(scores, targets=validation.targets, several=several)
                say(f"C = {10.0**at:.3g}: {'mAP' if several else 'top-1'} {tried[at]:.2f} % on validation")
        step /= 2
        if step < RESOLUTION:
            return best(), tried
        wanted = [best() - step, best() + step]


def _figure(scores: np.ndarray, *, targets: np.ndarray, several: bool) -> float:
    if several:
        return mean_average_precision(scores, targets=targets)["mAP"]
    return 100 * float(targets[np.arange(len(scores)), scores.argmax(axis=1)].mean())


def _fit(train: ProbeSet, *, test: ProbeSet, several: bool, exponent: float, stopped: list[int]) -> np.ndarray:
    """Return the probabilities of the test clips, float64 [n,c]."""
    found = np.zeros((len(test), train.targets.shape[1]))
    x, y = (one.features.astype(np.float64) for one in (train, test))
    if not several:
        model = _regress(x, labels=train.labels, exponent=exponent, stopped=stopped)
        found[:, model.classes_] = model.predict_proba(y)
        return found
    for number, own in enumerate(train.targets.T):
        if own.all() or not own.any():
            found[:, number] = float(own.all())
            continue
        model = _regress(x, labels=own.astype(np.int64), exponent=exponent, stopped=stopped)
        found[:, number] = model.predict_proba(y)[:, 1]
    return found


def _regress(features: np.ndarray, *, labels: np.ndarray, exponent: float, stopped: list[int]) -> Any:
    import threadpoolctl
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=10.0**exponent, solver="lbfgs", max_iter=MAX_ITERATIONS)
    threads = 1 if features.size < _SMALL else None  # threads that wait for each other take most of a small fit
    with threadpoolctl.threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted below
        model.fit(features, labels)
    stopped.append(int(np.max(model.n_iter_) >= MAX_ITERATIONS))
    return model
