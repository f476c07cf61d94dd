"""Space files: their forms, what they become, and mistakes in them."""

import itertools

import pytest

from twinreel.base.config import load_config
from twinreel.base.errors import UserError
from twinreel.sweep.space import make_space, read_space

TOML = """
"optimizer.lr" = {low = 1e-4, high = 1e-2, log = true}
task.head = ["linear", "attentive"]
task.dropout = {low = 0.0, high = 0.4, step = 0.1}
data.batch_size = {low = 16, high = 64}
train.sinks = [[], ["wandb"]]
"""
YAML = """
optimizer.lr: {low: 0.0001, high: 0.01, log: true}
task:
  head: [linear, attentive]
  dropout: {low: 0.0, high: 0.4, step: 0.1}
data.batch_size: {low: 16, high: 64}
train: {sinks: {choices: [[], [wandb]]}}
"""
PYTHON = """
def get_space():
    return {
        "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "task.head": ("linear", "attentive"),
        "task.dropout": {"low": 0.0, "high": 0.4, "step": 0.1},
        "data.batch_size": {"low": 16, "high": 64},
        "config.train.sinks": [(), ("wandb",)],
    }
"""


@pytest.fixture(scope="module")
def config():
    return load_config("demo_classify")


@pytest.mark.parametrize(("ending", "text"), [("toml", TOML), ("yaml", YAML), ("py", PYTHON)])
def test_the_forms_of_a_file_say_the_same(ending, text, tmp_path, config):
    file = tmp_path / f"space.{ending}"
    file.write_text(text)
    space = make_space(read_space(file), config=config)
    assert space.to_json() == {
        "optimizer.lr": {"low": 1e-4, "high": 1e-2, "log": True},
        "task.head": ["linear", "attentive"],
        "task.dropout": {"low": 0.0, "high": 0.4, "step": 0.1},
        "data.batch_size": {"low": 16, "high": 64},
        "train.sinks": ["()", "('wandb',)"],
    }


def test_overrides_are_read_back_by_the_config_as_the_same_values(config):
    values = {"task.labels": [["a", "b"]], "task.head": ["linear"], "train.patience": [3], "task.positions": [True]}
    space = make_space({**values, "optimizer.lr": {"low": 1e-4, "high": 1.0}}, config=config)
    drawn = {one.name: one.choices[0] if one.choices else 0.123456789 for one in space.parameters}
    loaded = load_config("demo_classify", overrides=space.overrides(drawn))
    assert tuple(loaded.task.labels) == ("a", "b") and loaded.task.head == "linear" and loaded.train.patience == 3
    assert loaded.task.positions is True and loaded.optimizer.lr == 0.123457
    assert space.overrides({"task.head": "linear"}) == ["task.head=linear"]


def test_strings_that_look_like_other_values_stay_strings(config):
    space = make_space({"task.features_dir": ["none", "3", "a b"]}, config=config)
    [one] = space.parameters
    loaded = [load_config("demo_classify", overrides=[one.override(value)]).task.features_dir for value in one.choices]
    assert loaded == ["none", "3", "a b"]


def test_a_grid_is_the_product(config):
    forms = {"task.head": ["linear", "attentive"], "task.dropout": {"low": 0.0, "high": 0.3, "step": 0.1}}
    found = [tuple(one.values()) for one in make_space(forms, config=config).grid()]
    assert found == list(itertools.product(["linear", "attentive"], [0.0, 0.1, 0.2, 0.3]))
    whole = make_space({"data.batch_size": {"low": 8, "high": 12, "step": 2}}, config=config)
    assert [one["data.batch_size"] for one in whole.grid()] == [8, 10, 12]
    with pytest.raises(UserError, match=r"grid needs the values of 'optimizer\.lr'"):
        list(make_space({"optimizer.lr": {"low": 0.1, "high": 0.2}}, config=config).grid())


def test_integers_for_a_field_of_floats_make_floats(config):
    [one] = make_space({"optimizer.lr": {"low": 1, "high": 2}}, config=config).parameters
    assert not one.whole


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "must map fields"),
        ([1], "must map fields"),
        ({"optimizer.lrr": [1.0]}, r"field of the space in config\.optimizer: 'lrr'; did you mean 'lr'"),
        ({"optimiser.lr": [1.0]}, r"'optimiser\.lr'.*did you mean 'optimizer\.lr'"),
        ({"data.batchsize": [8]}, "'batchsize'; did you mean 'batch_size'"),
        ({"train.stps": [8]}, "'stps'; did you mean 'steps'"),
        ({"lr": [1.0]}, "no such field"),
        ({"optimizer.lr": []}, "no value"),
        ({"optimizer.lr": [0.1, 0.1]}, "a value twice"),
        ({"optimizer.lr": 0.1}, "the value 0.1; wanted a list"),
        ({"optimizer.lr": {"low": 0.1}}, "the high None"),
        ({"optimizer.lr": {"low": 0.2, "high": 0.1}}, "low must be below high"),
        ({"optimizer.lr": {"low": 0.0, "high": 0.1, "log": True}}, "needs low above 0"),
        ({"optimizer.lr": {"low": 0.1, "high": 0.2, "step": -1}}, "step -1"),
        ({"optimizer.lr": {"low": 0.1, "hihg": 0.2}}, "'hihg'; did you mean 'high'"),
        ({"optimizer.lr": {"choices": [0.1], "low": 0.1}}, "leave one out"),
        ({"optimizer.lr": ["fast"]}, r"config\.optimizer\.lr must be a number, got 'fast'"),
        ({"data.batch_size": {"low": 0.5, "high": 1.5}}, r"config\.data\.batch_size must be an integer"),
        ({"task.head": [{"a": 1}]}, "cannot have the value"),
        ({"task": {}}, "an empty section|the value"),
    ],
)
def test_mistakes_are_named(values, message, config):
    with pytest.raises(UserError, match=message):
        make_space(values, config=config)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", None, "does not exist"),
        ("a.txt", "", "must end in"),
        ("a.toml", "x = = 1", "cannot be read: TOMLDecodeError"),
        ("a.yaml", "a: [", "cannot be read"),
        ("a.py", "x = 1", "no function get_space"),
        ("a.py", "1 / 0", "cannot be read: ZeroDivisionError"),
    ],
)
def test_files_that_cannot_be_read(name, text, message, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_space(tmp_path / name)
