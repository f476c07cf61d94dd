"""What every family of public models provides: how it is recognised, and its spec and table for a config."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...base.errors import UserError, unknown
from ..spec import ModelSpec
from .files import SourceFiles
from .rules import Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
    """How one public model becomes one of ours; made from its config alone.

    Attributes:
      spec: what the model is, without `origin`.
      rules: the table of its tensors.
      ignored: regexes over whole names of tensors that hold no parameters.
      notes: what the user should know, such as a choice between two public versions.
    """

    spec: ModelSpec
    rules: Sequence[Rule]
    ignored: Sequence[str] = ()
    notes: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A family of public models.

    Attributes:
      name: as users call it, `--family`.
      models: public names (Hub ids or tags) with sizes in words.
      licence: of the weights, as their publishers state it.
      matches: tells from the files whether a model belongs to the family.
      conversion: reads the config and gives spec and table; it takes the chosen value of each of `options` by name.
      options: what a user may choose where public code disagrees: name -> values, of which the first is the default.
    """

    name: str
    models: Sequence[str]
    licence: str
    matches: Callable[[SourceFiles], bool]
    conversion: Callable[..., Conversion]
    options: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def choices(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the value of each of `options`, the default where none is given.

        Raises:
          UserError: an option or a value that the family does not have.
        """
        for name, value in given.items():
            if name not in self.options:
                raise unknown(f"option of the family {self.name!r}:", name, list(self.options))
            if value not in self.options[name]:
                raise unknown(f"option {name} of the family {self.name!r}:", value, self.options[name])
        return {name: given.get(name, values[0]) for name, values in self.options.items()}


def number(config: dict[str, Any], key: str, *, default: Any = None, source: str) -> Any:
    """Return a value of a public config.

    Raises:
      UserError: the key is not there and there is no default.
    """
    if key in config and config[key] is not None:
        return config[key]
    if default is None:
        raise UserError(f"the config of {source} lacks {key!r}; it is incomplete, fetch it again")
    return default


def choice(value: Any, *, known: Mapping[Any, Any], key: str, source: str) -> Any:
    """Return what a name in a public config means to us; nothing is guessed.

    Raises:
      UserError: an unknown name.
    """
    if value not in known:
        raise unknown(f"{key} in the config of {source}:", str(value), [str(one) for one in known])
    return known[value]


OWN_CONFIG = "twinreel_config.json"
"""Beside weights of a family without a config: the sizes that shapes of tensors do not tell, where they are unusual."""


def own_settings(files: SourceFiles, *, defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the settings in `twinreel_config.json`, of a family whose folders have no config.

    Args:
      files: the model.
      defaults: name of a setting -> its value where the file does not state one; numbers are at least 1.

    Raises:
      UserError: an unknown setting, or a value of another type.
    """
    given = files.json(OWN_CONFIG)
    for key, value in given.items():
        if key not in defaults:
            raise unknown(f"key in {files.folder / OWN_CONFIG}:", key, defaults)
        wanted = type(defaults[key])
        if type(value) is not wanted or (wanted is int and value < 1):
            kind = "a whole number of at least 1" if wanted is int else f"a {wanted.__name__}"
            raise UserError(f"{files.folder / OWN_CONFIG}: {key} must be {kind}, got {value!r}")
    return defaults | given


def shape_of(files: SourceFiles, tensor: str, *, axes: int) -> tuple[int, ...]:
    """Return the shape of a tensor that tells sizes of the model.

    Raises:
      UserError: the tensor is not there, or has another number of axes.
    """
    if tensor not in files.tensors:
        raise UserError(f"{files.name} lacks {tensor}; the file is incomplete, fetch it again")
    shape = files.tensors[tensor].shape
    if len(shape) != axes:
        raise UserError(f"{files.name}: {tensor} has the shape {shape}, wanted {axes} axes; fetch the file again")
    return shape


def depth_of(files: SourceFiles, stack: str, *, end: str = ".") -> int:
    """Return the number of layers: one more than the largest number after `stack` in a tensor's name; 0 without any.

    Args:
      files: the model.
      stack: beginning of the names, up to the number.
      end: what follows the number.
    """
    found = [
        re.match(rf"(\d+){re.escape(end)}", name[len(stack) :]) for name in files.tensors if name.startswith(stack)
    ]
    return 1 + max([int(number[1]) for number in found if number], default=-1)


def side_of(places: int, *, files: SourceFiles, what: str) -> int:
    """Return the side of a square grid of patches.

    Raises:
      UserError: the number is no square.
    """
    side = round(max(places, 0) ** 0.5)
    if side * side != places or not side:
        raise UserError(f"{files.name}: {what} hold {places} places, no square grid of patches; fetch the file again")
    return side


ACTIVATIONS = {
    "gelu": "gelu_exact",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu_python": "gelu_exact",
    "gelu_pytorch_tanh": "gelu",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""`hidden_act` of transformers -> a name of `models.layers.activations`: its "gelu" is the exact one."""
