"""Call a keyword-only function or dataclass with one section of a config, checking names and types of its fields."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from .errors import UserError, unknown
from .fields import fit, is_config_dict

_Result = TypeVar("_Result")


def section(target: Callable[..., _Result], values: Any, *, name: str, **given: Any) -> _Result:
    """Call `target(**values, **given)` and turn every mistake in `values` into an error that names the field.

    Args:
      target: a keyword-only function or a dataclass; its signature holds the defaults and the types.
      values: the section of the config, for example `config.train`; a ConfigDict or a mapping.
      name: the section's name in the config ("train"), for the messages.
      **given: arguments that do not come from this section; they are not checked.

    Returns:
      The result of the call. Lists become tuples and integers become floats where `target` declares them so; a field
      that is declared as a dataclass is built from its mapping.

    Raises:
      UserError: a key that `target` does not take (the nearest one is suggested), a missing one, or a value of another
        type than `target` declares.
    """
    items = _items(values, name=name)
    function, parameters = _signature(target)
    takes = [key for key in parameters if key not in given]
    hints = _hints(function, parameters)
    for key, value in items.items():
        if key not in takes:
            raise unknown(f"field of config.{name}", key, takes)
        items[key] = fit(value, hints[key], field=f"config.{name}.{key}", build=_build)
    missing = [key for key in takes if parameters[key].default is inspect.Parameter.empty and key not in items]
    if missing:
        raise UserError(f"config.{name} lacks {', '.join(map(repr, missing))}; add it to the section `{name}`")
    return target(**items, **given)


def arguments(target: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the arguments that a function or a class takes."""
    return frozenset(_signature(target)[1])


_REQUIRED = object()


def field_of(target: Callable[..., Any], values: Any, *, field: str, absent: Any = _REQUIRED) -> Any:
    """Return the argument that `section(target, values)` would pass for one field: the config's value, or the default.

    Args:
      target: a function or a class; `field` has a default in its signature.
      values: the section of the config.
      field: the argument.
      absent: what to return if `target` has no such argument; left out, that is a KeyError.

    Raises:
      UserError: the value is of another type than `target` declares.
    """
    function, parameters = _signature(target)
    if field not in parameters and absent is not _REQUIRED:
        return absent
    if field not in values:
        return parameters[field].default
    return fit(values[field], _hints(function, parameters)[field], field=f"config field {field}", build=_build)


def _build(target: type, values: Any, field: str) -> Any:
    """Build the dataclass of a nested section."""
    return section(target, values, name=field.removeprefix("config."))


def _items(values: Any, *, name: str) -> dict[str, Any]:
    if is_config_dict(values):
        return values.to_dict()
    if isinstance(values, Mapping):
        return dict(values)
    raise UserError(f"config.{name} must be a section of fields, got {values!r}")


def _signature(target: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, inspect.Parameter]]:
    """Return the function that takes the arguments, and its parameters.

    A class is read by its __init__: some metaclasses (nnx.Module's) hide the signature.
    """
    function = target.__init__ if inspect.isclass(target) else target
    found = inspect.signature(function).parameters
    return function, {key: value for key, value in found.items() if key != "self"}


def _hints(function: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Return the declared type of each parameter; Any where there is none or it is imported for type checkers only."""
    try:
        return dict.fromkeys(parameters, Any) | typing.get_type_hints(function)
    except NameError:
        return {key: _hint(function, value.annotation) for key, value in parameters.items()}


def _hint(function: Callable[..., Any], annotation: Any) -> Any:
    alone = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        names = getattr(inspect.unwrap(function), "__globals__", {})
        return Any if annotation is inspect.Parameter.empty else typing.get_type_hints(alone, names)["it"]
    except NameError:
        return Any
