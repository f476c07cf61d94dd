import dataclasses
import subprocess
import sys

import ml_collections
import pytest

from twinreel.base.errors import UserError
from twinreel.base.section import field_of, section


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    steps: int
    rate: float = 0.5
    name: str = "plain"
    sizes: tuple[int, ...] = ()
    limit: int | None = None
    on: bool = False


def test_dataclass_from_config_dict():
    values = ml_collections.ConfigDict({"steps": 3, "rate": 2, "sizes": [1, 2]})
    assert section(Options, values, name="train") == Options(steps=3, rate=2.0, sizes=(1, 2))


def test_function_with_arguments_from_elsewhere():
    def build(*, width: int, rngs: object, depth: int = 2) -> tuple:
        return width, rngs, depth

    assert section(build, {"width": 4}, name="model", rngs="r") == (4, "r", 2)
    with pytest.raises(UserError, match="'rngs'"):  # what the code gives is not the config's to set
        section(build, {"width": 4, "rngs": 1}, name="model", rngs="r")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"steps": 1, "rte": 1.0},
            r"config\.train 'rte'.*did you mean 'rate'.*known: limit, name, on, rate, sizes, steps",
        ),
        ({}, r"config\.train lacks 'steps'"),
        ({"steps": "many"}, r"config\.train\.steps must be an integer, got 'many'"),
        ({"steps": 1.5}, r"config\.train\.steps must be an integer, got 1\.5"),
        ({"steps": True}, r"config\.train\.steps must be an integer, got True"),
        ({"steps": 1, "rate": "fast"}, r"config\.train\.rate must be a number"),
        ({"steps": 1, "limit": "x"}, r"config\.train\.limit must be an integer or None"),
        ({"steps": 1, "on": 1}, r"config\.train\.on must be True or False"),
    ],
)
def test_mistakes_name_the_field(values, message):
    with pytest.raises(UserError, match=message):
        section(Options, values, name="train")


def test_a_section_that_is_none():
    with pytest.raises(UserError, match=r"config\.train must be a section of fields, got 3"):
        section(Options, 3, name="train")


def test_one_field_of_a_section_is_the_configs_or_the_default():
    def target(*, a: int = 3, b: str = "x"):
        return a, b

    class Thing:
        def __init__(self, *, c: float = 0.5):
            self.c = c

    values = ml_collections.ConfigDict({"b": "y"})
    assert field_of(target, values, field="a") == 3 and field_of(target, values, field="b") == "y"
    assert field_of(Thing, {}, field="c") == 0.5


def test_losses_and_the_step_are_measured_without_ml_collections():
    """Machines that lend a GPU may have jax and flax alone."""
    needed = "pretrain.bench_loss, pretrain.objective, engine.step.step, engine.optimizer.optimizer"
    modules = ", ".join(f"twinreel.{name}" for name in needed.split(", "))
    code = f"import sys; sys.modules['ml_collections'] = sys.modules['tensorflow'] = None; import {modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
