"""Sections of a config: names and types of their fields."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_collections
import pytest

from twinreel.base.errors import UserError
from twinreel.base.fields import fit
from twinreel.base.section import field_of, section
from twinreel.engine.optimizer.optimizer import make_optimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    steps: int
    rate: float = 0.5
    name: str = "plain"
    sizes: tuple[int, ...] = ()
    limit: int | None = None
    on: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nested:
    inner: Options
    table: tuple[tuple[str, float], ...] = ()
    names: list[str] = dataclasses.field(default_factory=list)
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    mode: Literal["a", "b"] = "a"
    pair: tuple[int, int] | None = None
    patterns: str | Sequence[str] = ""
    anything: Any = None
    array: "NotThere | None" = None


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


def test_containers_and_nested_sections_are_built():
    values = {
        "inner": {"steps": 1, "rate": 2},
        "table": [["a", 1], ("b", 0.5)],
        "names": ("x",),
        "weights": ml_collections.ConfigDict({"v": 1}),
        "pair": [1, 2],
        "patterns": ["p"],
        "anything": "abc",
        "array": 3,
    }
    found = section(Nested, values, name="n")
    assert found == Nested(
        inner=Options(steps=1, rate=2.0),
        table=(("a", 1.0), ("b", 0.5)),
        names=["x"],
        weights={"v": 1.0},
        pair=(1, 2),
        patterns=("p",),
        anything="abc",
        array=3,
    )
    assert type(found.inner.rate) is float and section(Nested, {"inner": {"steps": 1}, "patterns": "p"}, name="n")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("inner", {"stps": 1}, r"field of config\.n\.inner 'stps'; did you mean 'steps'"),
        ("inner", {"steps": "x"}, r"config\.n\.inner\.steps must be an integer"),
        ("inner", 3, r"config\.n\.inner must be a section of fields, got 3"),
        ("table", [["a", "b"]], r"config\.n\.table\[0\]\[1\] must be a number, got 'b'"),
        ("table", ["a", 0.5], r"config\.n\.table must be a tuple of tuples, got .*; write \(\['a', 0\.5\],\)"),
        ("table", "a", r"config\.n\.table must be a tuple of tuples, got 'a'$"),
        ("names", "x", r"config\.n\.names must be a list of strings, got 'x'; write \['x'\]"),
        ("names", ["x", 3], r"config\.n\.names\[1\] must be a string, got 3; write '3'"),
        ("names", {"x": 1}, r"config\.n\.names must be a list of strings"),
        ("weights", {"v": "x"}, r"config\.n\.weights\.v must be a number, got 'x'"),
        ("weights", "v", r"config\.n\.weights must be a mapping from strings to numbers, got 'v'"),
        ("weights", {1: 1.0}, r"key 1 of config\.n\.weights must be a string"),
        ("mode", "c", r"unknown value of config\.n\.mode 'c' \(known: a, b\)"),
        ("mode", 3, r"config\.n\.mode must be one of 'a', 'b', got 3"),
        ("pair", (1, 2, 3), r"config\.n\.pair must have 2 values, got 3"),
        ("pair", 1, r"config\.n\.pair must be a tuple of 2 values or None, got 1"),
        ("patterns", 3, r"config\.n\.patterns must be a string or a tuple of strings, got 3"),
    ],
)
def test_mistakes_inside_containers_name_the_element(field, value, message):
    with pytest.raises(UserError, match=message):
        section(Nested, {"inner": {"steps": 1}} | {field: value}, name="n")


def test_one_string_for_a_tuple_is_refused_by_a_real_section():
    names = [name for name, hint in typing.get_type_hints(make_optimizer).items() if hint == tuple[str, ...]]
    assert set(names) >= {"frozen", "no_decay"}
    for name in names:
        with pytest.raises(UserError, match=rf"\.{name} must be a tuple of strings, got '\^a'; write \('\^a',\)"):
            section(make_optimizer, {name: "^a", "lr": 1.0}, name="optimizer", steps=1)


@pytest.mark.parametrize(
    ("hint", "value", "remedy"),
    [
        (int, "5", "write 5"),
        (int, 5.0, "write 5"),
        (float, "1e-3", r"write 0\.001"),
        (bool, 1, "write True"),
        (bool, "no", "write False"),
        (str, ["a"], "write 'a'"),
        (tuple[int, ...], "3", r"write \(3,\)"),
        (tuple[str, ...], 3, r"write \('3',\)"),
        (tuple, "a", r"write \('a',\)"),
    ],
)
def test_the_remedy_is_what_the_person_most_likely_meant(hint, value, remedy):
    with pytest.raises(UserError, match=rf"^x must be .*, got .*; {remedy}"):
        fit(value, hint, field="x")


@pytest.mark.parametrize("value", [2**70, float("inf"), -1, 1.5])
def test_a_number_stays_what_it_is(value):
    assert fit(value, float, field="x") == value and fit(value, float | None, field="x") == value
    assert type(fit(3, int | float, field="x")) is int


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
    assert field_of(Thing, {"c": 1}, field="c") == 1.0
    with pytest.raises(UserError, match="config field c must be a number, got 'x'"):
        field_of(Thing, {"c": "x"}, field="c")
