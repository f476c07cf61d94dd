import pytest

from twinreel.base.errors import UserError
from twinreel.engine.loop.evaluation import Evaluation, Evaluations
from twinreel.engine.loop.options import TrainOptions


def options(**changes):
    return TrainOptions(**({"steps": 10, "eval_every": 3, "best_metric": "val/score", "patience": 2} | changes))


def of(scores=(), **fields):
    """One evaluation that gives these scores, one after the other."""
    found = iter(scores)
    return [Evaluation(**{"name": "val", "run": lambda model, step: {"score": next(found), "other": 1.0}} | fields)]


def test_due_every_n_steps_and_at_the_end():
    evaluations = Evaluations(of(), options=options())
    assert [step for step in range(1, 11) if evaluations.due(step)] == [3, 6, 9, 10]
    at_end = Evaluations(of(), options=options(eval_every=0, patience=0))
    assert [step for step in range(1, 11) if at_end.due(step)] == [10]
    assert not Evaluations([], options=options(best_metric="", patience=0)).due(10)


def test_best_and_patience():
    evaluations = Evaluations(of([0.1, 0.5, 0.5, float("nan")]), options=options())
    assert [evaluations.run(None, step=step)[1] for step in (3, 6)] == [True, True]
    assert (evaluations.score(6), evaluations.score(3)) == (0.5, None)
    assert not evaluations.run(None, step=9)[1]
    assert not evaluations.exhausted
    assert not evaluations.run(None, step=10)[1]
    assert evaluations.exhausted
    assert evaluations.score(10) is None  # nan
    assert evaluations.best == {"metric": "val/score", "value": 0.5, "step": 6}


def test_lower_is_better():
    evaluations = Evaluations(of([3.0, 2.0, 2.5]), options=options(best_mode="min"))
    assert [evaluations.run(None, step=step)[1] for step in (3, 6, 9)] == [True, True, False]


def test_each_has_its_own_schedule_and_only_that_of_the_best_metric_counts():
    asked = []
    other = Evaluation(name="ucf", every=2, run=lambda model, step: asked.append(step) or {"top1": float(step)})
    last = Evaluation(name="big", every=0, run=lambda model, step: {"size": 7.0})
    evaluations = Evaluations([*of([0.5, 0.4, 0.3, 0.2]), other, last], options=options())
    names, better = {}, {}
    for step in range(1, 11):
        if evaluations.due(step):
            values, better[step] = evaluations.run(None, step=step)
            names[step] = sorted(values)
        if step == 4:
            assert evaluations.score(4) is None and not evaluations.exhausted
        if step == 8:  # one without a better: that of step 6; those of `ucf` alone are not counted
            assert not evaluations.exhausted
    val = ["val/other", "val/score"]
    assert names == {
        2: ["ucf/top1"],
        3: val,
        4: ["ucf/top1"],
        6: ["ucf/top1", *val],
        8: ["ucf/top1"],
        9: val,
        10: ["big/size", "ucf/top1", *val],
    }
    assert asked == [2, 4, 6, 8, 10]
    assert [step for step, best in better.items() if best] == [3]
    assert evaluations.best == {"metric": "val/score", "value": 0.5, "step": 3} and evaluations.exhausted


def test_a_resumed_run_goes_on_counting():
    first = Evaluations(of([0.5, 0.4]), options=options())
    for step in (3, 6):
        first.run(None, step=step)
    meta = {"evaluations": first.to_meta()}
    second = Evaluations(of([0.3]), options=options(), meta=meta)
    assert not second.due(6)
    assert not second.exhausted
    second.run(None, step=9)
    assert second.exhausted
    assert second.best["value"] == 0.5
    assert Evaluations(of(), options=options(best_metric="val/other"), meta=meta).best is None
    more = Evaluations([*of(), *of([0.7], name="new")], options=options(), meta=meta)  # not in the config before
    assert sorted(more.run(None, step=6)[0]) == ["new/other", "new/score"] and more.best["value"] == 0.5


def test_what_fails_counts_as_not_done():
    def fail(model, step):
        raise UserError("no clip")

    evaluations = Evaluations([*of([0.1, 0.2]), Evaluation(name="bad", run=fail)], options=options())
    with pytest.raises(UserError, match="no clip"):
        evaluations.run(None, step=3)
    assert evaluations.due(3) and evaluations.best is None


@pytest.mark.parametrize(
    ("fields", "changes", "message"),
    [
        ({}, {"best_metric": "vall/score"}, r"config.train.best_metric\) 'vall/score'.*known: val/…"),
        (
            {"results": ("score", "other")},
            {"best_metric": "val/scores"},
            r"config.train.best_metric\) 'val/scores'; did you mean 'val/score'.*known: val/other, val/score",
        ),
        ({"every": 0}, {}, "patience=2 counts .* 'val' runs only at the end; set config.train.eval_every"),
    ],
)
def test_a_best_metric_that_no_evaluation_gives_is_refused_at_the_start(fields, changes, message):
    with pytest.raises(UserError, match=message):
        Evaluations(of(**fields), options=options(**changes))


def test_a_best_metric_without_any_evaluation_is_refused():
    with pytest.raises(UserError, match=r"best_metric='val/score', but this run has no evaluation"):
        Evaluations([], options=options())


def test_an_unknown_best_metric_is_named():
    evaluations = Evaluations(of([0.5]), options=options(best_metric="val/scores"))
    with pytest.raises(UserError, match=r"best_metric\) 'val/scores'; did you mean 'val/score'.*known: val/other"):
        evaluations.run(None, step=3)
