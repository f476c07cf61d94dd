import pytest

from twinreel.base.errors import UserError
from twinreel.base.section import section
from twinreel.engine.loop.options import TrainOptions


def test_defaults():
    options = section(TrainOptions, {"steps": 100}, name="train")
    assert (options.log_every, options.checkpoint_every, options.keep_last) == (20, 200, 2)
    assert options.profile_range() is None


def test_profile_range():
    assert TrainOptions(steps=9, profile_steps="3:5").profile_range() == (3, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "config.train.steps must be at least 1, got 0"),
        ({"log_every": 0}, "config.train.log_every"),
        ({"best_mode": "most"}, "best_mode must be 'max' or 'min'"),
        ({"patience": 3}, "set config.train.best_metric"),
        ({"profile_steps": "5:3"}, "'a:b' with a < b"),
        ({"profile_steps": "five"}, "'a:b' with a < b"),
        ({"checkpoint_evry": 5}, "did you mean 'checkpoint_every'"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        section(TrainOptions, {"steps": 10, **changes}, name="train")
