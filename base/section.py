"""Splat one section of a config into one keyword-only function or dataclass; typos are named."""

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .errors import UserError, unknown

_Result = TypeVar("_Result")
_PLAIN = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}


def section(target: Callable[..., _Result], values: Any, *, name: str, **given: Any) -> _Result:
    """Call `target(**values, **given)`, with every mistake in `values` turned into an error that names the field.

    Args:
      target: a keyword-only function or a dataclass; its signature holds the defaults.
      values: the section of the config, for example `config.train`; a ConfigDict or a mapping.
      name: what the section is called in the config ("train"), for the messages.
      **given: arguments that do not come from this section.

    Raises:
      UserError: a key that `target` does not take (the nearest one is suggested), a missing one, or a plain value
        (int, float, bool, str) of another type than `target` declares.
    """
    if _is_config_dict(values):
        items = values.to_dict()
    elif isinstance(values, Mapping):
        items = dict(values)
    else:
        raise UserError(f"config.{name} must be a section of fields, got {values!r}")
    # A class is read by its __init__: some metaclasses (nnx.Module's) hide the signature.
    function = target.__init__ if inspect.isclass(target) else target
    parameters = {key: value for key, value in inspect.signature(function).parameters.items() if key != "self"}
    takes = [key for key in parameters if key not in given]
    hints = _hints(function)
    for key, value in items.items():
        if key not in takes:
            raise unknown(f"field of config.{name}", key, takes)
        items[key] = _checked(value, hints.get(key), field=f"config.{name}.{key}")
    missing = [key for key in takes if parameters[key].default is inspect.Parameter.empty and key not in items]
    if missing:
        raise UserError(f"config.{name} lacks {', '.join(map(repr, missing))}; add it to the section `{name}`")
    return target(**items, **given)


def field_of(target: Callable[..., Any], values: Any, *, field: str) -> Any:
    """Return what `section(target, values)` hands over as one argument: the config's value, or the default.

    Args:
      target: a function or a class; `field` has a default in its signature.
      values: the section of the config.
      field: the argument.
    """
    function = target.__init__ if inspect.isclass(target) else target
    return values[field] if field in values else inspect.signature(function).parameters[field].default


def _is_config_dict(values: Any) -> bool:
    """Tell a ConfigDict without importing its package, which need not be there where a step is measured."""
    package = sys.modules.get("ml_collections")
    return package is not None and isinstance(values, package.ConfigDict)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except NameError:  # an annotation under TYPE_CHECKING: no hint, no check
        return {}


def _checked(value: Any, hint: Any, *, field: str) -> Any:
    """Return `value` fit for `hint` (list -> tuple, int -> float), or raise if it is of another plain type."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    options = typing.get_args(hint) if union else (hint,)
    if isinstance(value, list) and any(o is tuple or typing.get_origin(o) is tuple for o in options):
        return tuple(value)
    if not all(option in _PLAIN or option is type(None) for option in options):
        return value
    if type(value) in options or (value is None and type(None) in options):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and float in options:
        return float(value)
    wanted = " or ".join("None" if option is type(None) else _PLAIN[option] for option in options)
    raise UserError(f"{field} must be {wanted}, got {value!r}")
