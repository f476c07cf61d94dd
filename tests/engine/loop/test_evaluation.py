import pytest

from twinreel.base.errors import UserError
from twinreel.engine.loop.evaluation import Evaluations
from twinreel.engine.loop.options import TrainOptions


def options(**changes):
    return TrainOptions(**({"steps": 10, "eval_every": 3, "best_metric": "score", "patience": 2} | changes))


def values(results):
    found = iter(results)
    return lambda model, step: {"score": next(found), "other": 1.0}


def test_due_every_n_steps_and_at_the_end():
    evaluations = Evaluations(values([]), options=options())
    assert [step for step in range(1, 11) if evaluations.due(step)] == [3, 6, 9, 10]
    assert [
        step for step in range(1, 11) if Evaluations(values([]), options=options(eval_every=0, patience=0)).due(step)
    ] == [10]
    assert not Evaluations(None, options=options()).due(10)


def test_best_and_patience():
    evaluations = Evaluations(values([0.1, 0.5, 0.5, float("nan")]), options=options())
    assert [evaluations.run(None, step=step)[1] for step in (3, 6)] == [True, True]
    assert (evaluations.score(6), evaluations.score(3)) == (0.5, None)
    assert not evaluations.run(None, step=9)[1]
    assert not evaluations.exhausted
    assert not evaluations.run(None, step=10)[1]
    assert evaluations.exhausted
    assert evaluations.score(10) is None  # nan
    assert evaluations.best == {"metric": "score", "value": 0.5, "step": 6}


def test_lower_is_better():
    evaluations = Evaluations(values([3.0, 2.0, 2.5]), options=options(best_mode="min"))
    assert [evaluations.run(None, step=step)[1] for step in (3, 6, 9)] == [True, True, False]


def test_a_resumed_run_goes_on_counting():
    first = Evaluations(values([0.5, 0.4]), options=options())
    for step in (3, 6):
        first.run(None, step=step)
    second = Evaluations(values([0.3]), options=options(), meta={"evaluations": first.to_meta()})
    assert not second.due(6)
    assert not second.exhausted
    second.run(None, step=9)
    assert second.exhausted
    assert second.best["value"] == 0.5
    other = Evaluations(values([0.3]), options=options(best_metric="other"), meta={"evaluations": first.to_meta()})
    assert other.best is None


def test_an_unknown_best_metric_is_named():
    evaluations = Evaluations(values([0.5]), options=options(best_metric="scores"))
    with pytest.raises(
        UserError, match=r"config.train.best_metric\) 'scores'; did you mean 'score'.*known: other, score"
    ):
        evaluations.run(None, step=3)
