"""The space of a sweep: which fields of a config take which values."""

import dataclasses
import itertools
import math
import re
import runpy
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..base.config import Config, flatten, with_overrides
from ..base.errors import UserError, nearest, unknown

Value = bool | int | float | str | None
"""A value as a study stores it; of a list or a tuple its text."""
FORMS = 'a list of values, {"low": a, "high": b} with "log" or "step", or {"choices": [...]}'
_KEYS = ("low", "high", "log", "step", "choices")
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """A field of the config and its values.

    Attributes:
      name: dotted path of the field.
      choices: its values; () of a range.
      texts: values among them that are the texts of lists or tuples.
      low, high: bounds of a range, both included.
      log: draw from the range uniformly in its logarithm.
      step: distance of neighbouring values; None = every number (integers: every integer).
      whole: values are integers.
    """

    name: str
    choices: tuple[Value, ...] = ()
    texts: frozenset[str] = frozenset()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    def override(self, value: Value) -> str:
        """Return `KEY=VALUE` of a value, as `load_config` reads it."""
        if isinstance(value, float) and not self.choices:
            value = float(f"{value:.6g}")  # short to copy; a draw needs no more
        bare = isinstance(value, str) and _BARE.fullmatch(value) and value.lower() not in ("true", "false", "none")
        return f"{self.name}={value if bare or value in self.texts else repr(value)}"

    def points(self) -> tuple[Value, ...]:
        """Return all values, for a grid.

        Raises:
          UserError: a range of floats without a step.
        """
        if self.choices:
            return self.choices
        step = self.step or (1 if self.whole else None)
        if step is None or self.log:
            raise UserError(
                f"--sampler grid needs the values of {self.name!r}, and the space has a range; list them, or give the "
                "range a step (and no log)"
            )
        count = math.floor((self.high - self.low) / step + 1e-9) + 1
        found = [self.low + number * step for number in range(count)]
        return tuple(int(value) for value in found) if self.whole else tuple(round(value, 12) for value in found)

    def to_json(self) -> Any:
        """Return what a space file says of it."""
        if self.choices:
            return list(self.choices)
        number = int if self.whole else float
        more = ({"log": True} if self.log else {}) | ({"step": number(self.step)} if self.step else {})
        return {"low": number(self.low), "high": number(self.high), **more}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """The parameters of a sweep, in the order of the file."""

    parameters: tuple[Parameter, ...]

    def overrides(self, values: Mapping[str, Value]) -> list[str]:
        """Return `KEY=VALUE` of each parameter that has a value."""
        return [one.override(values[one.name]) for one in self.parameters if one.name in values]

    def grid(self) -> Iterator[dict[str, Value]]:
        """Yield all combinations; the last parameter changes fastest.

        Raises:
          UserError: a parameter without listed values.
        """
        names = [one.name for one in self.parameters]
        for values in itertools.product(*(one.points() for one in self.parameters)):
            yield dict(zip(names, values, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, as a space file has it."""
        return {one.name: one.to_json() for one in self.parameters}


def read_space(path: str | Path) -> dict[str, Any]:
    """Read a space file: TOML, YAML, or Python with `get_space() -> dict`.

    Raises:
      UserError: no such file, another ending, or a file that cannot be read.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"space file {str(path)!r} does not exist; --space names a .toml, .yaml or .py file")
    try:
        if file.suffix == ".toml":
            return tomllib.loads(file.read_text(encoding="utf-8"))
        if file.suffix in (".yaml", ".yml"):
            import yaml

            return yaml.safe_load(file.read_text(encoding="utf-8"))
        if file.suffix == ".py":
            return runpy.run_path(str(file))["get_space"]()
    except KeyError as error:
        raise UserError(f"{file} has no function get_space() -> dict of fields and their values") from error
    except Exception as error:  # whatever a user's file raises
        raise UserError(f"space file {str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    raise UserError(f"space file {str(path)!r} must end in .toml, .yaml or .py")


def make_space(values: Any, *, config: Config) -> Space:
    """Check a space against the config that it varies.

    Args:
      values: of `read_space`: dotted path -> values; sections may be nested.
      config: the experiment.

    Raises:
      UserError: no parameter, a field that the config does not have (the nearest is named), a range that is none, or a
        value that the field does not take.
    """
    if not isinstance(values, Mapping) or not values:
        raise UserError(f"a space must map fields of the config to {FORMS}; got {values!r:.80}")
    leaves = _leaves(values)
    for name in leaves:
        check_field(name, config=config)
    made = tuple(_parameter(name, form, known=flatten(config).get(name)) for name, form in leaves.items())
    for one in made:
        for value in one.choices or (_number(one.low, one), _number(one.high, one)):
            with_overrides(config, [one.override(value)])
    return Space(parameters=made)


def check_field(name: str, *, config: Config) -> None:
    """Raise UserError unless a config has a field, or may have it: sections whose fields are known are looked up.

    Other fields of a section that exists are checked by the run that takes them.
    """
    known = flatten(config)
    if name in known:
        return
    section, _, field = name.partition(".")
    fields = _fields_of(section)
    if fields and field not in fields:
        shown = sorted({*fields, *(key.partition(".")[2] for key in known if key.startswith(f"{section}."))})
        raise unknown(f"field of the space in config.{section}:", field, shown)
    try:
        with_overrides(config, [f"{name}=0"])
    except UserError as error:
        if "has no field" not in str(error) and "did you mean" not in str(error):
            return
        hint = nearest(name, known)
        raise UserError(
            f"the space names {name!r}, and the config has no such field"
            + (f"; did you mean {hint!r}?" if hint else f" (its fields: {', '.join(sorted(known))})")
        ) from error


def _fields_of(section: str) -> frozenset[str]:
    """Return the fields that a section may have, where one signature has them all; else nothing."""
    from ..base.section import arguments
    from ..data.options import PARTS
    from ..engine.loop.options import TrainOptions
    from ..engine.optimizer.optimizer import make_optimizer

    if section == "data":
        return frozenset().union(*(arguments(part) for part in PARTS.values()))
    target = {"train": TrainOptions, "optimizer": make_optimizer}.get(section)
    return frozenset() if target is None else arguments(target)


def _leaves(values: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """Return dotted path -> form; a mapping with one of the words of a range is a form, another one a section."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}".removeprefix("config.")
        if isinstance(value, Mapping) and not set(value) & set(_KEYS):
            if not value:
                raise UserError(f"the space gives {name!r} an empty section; wanted {FORMS}")
            found |= _leaves(value, prefix=f"{name}.")
        else:
            found[name] = value
    return found


def _parameter(name: str, form: Any, *, known: Any) -> Parameter:
    if isinstance(form, Mapping):
        for key in form:
            if key not in _KEYS:
                raise unknown(f"word of {name!r} in the space", str(key), _KEYS)
        if "choices" not in form:
            return _range(name, form, known=known)
        if len(form) > 1:
            raise UserError(f"the space gives {name!r} choices and {', '.join(set(form) - {'choices'})}; leave one out")
        form = form["choices"]
    if not isinstance(form, Sequence) or isinstance(form, str):
        raise UserError(f"the space gives {name!r} the value {form!r}; wanted {FORMS}")
    choices = [_scalar(value) for value in form]
    if len({(type(value), value) for value in choices}) < max(len(choices), 1):
        raise UserError(f"the space gives {name!r} {'no value' if not choices else 'a value twice'}: {list(form)}")
    texts = frozenset(text for text, value in zip(choices, form, strict=True) if isinstance(value, (list, tuple)))
    return Parameter(name=name, choices=tuple(choices), texts=frozenset(map(str, texts)))


def _range(name: str, form: Mapping[str, Any], *, known: Any) -> Parameter:
    for key in ("low", "high"):
        if isinstance(form.get(key), bool) or not isinstance(form.get(key), (int, float)):
            raise UserError(f"the space gives {name!r} the {key} {form.get(key)!r}; a range needs two numbers")
    low, high, log, step = form["low"], form["high"], form.get("log", False), form.get("step")
    whole = all(isinstance(value, int) for value in (low, high, step or 0)) and not isinstance(known, float)
    if not math.isfinite(low) or not math.isfinite(high) or low >= high:
        raise UserError(f"the space gives {name!r} the range {low!r} to {high!r}; low must be below high")
    if not isinstance(log, bool) or (log and low <= 0):
        raise UserError(
            f"the space gives {name!r} log={log!r} from {low!r}; log is true or false, and needs low above 0"
        )
    if step is not None and (isinstance(step, bool) or not isinstance(step, (int, float)) or step <= 0 or log):
        raise UserError(f"the space gives {name!r} the step {step!r}; wanted a number above 0, without log")
    return Parameter(name=name, low=low, high=high, log=log, step=step, whole=whole)


def _number(value: float, one: Parameter) -> Value:
    return int(value) if one.whole else float(value)


def _scalar(value: Any) -> Value:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return repr(tuple(value))
    raise UserError(
        f"a space cannot have the value {value!r}; wanted numbers, strings, booleans, None or lists of them"
    )
