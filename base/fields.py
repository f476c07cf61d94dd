"""Check a value against a declared type, as `section` does for each field of a config."""

import ast
import dataclasses
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from pathlib import PurePath
from typing import Any

from .errors import UserError, unknown

Build = Callable[[type, Any, str], Any]
"""(dataclass, mapping, field) -> the dataclass, built from the mapping."""

_SCALARS = {
    bool: ("True or False", "booleans"),
    int: ("an integer", "integers"),
    float: ("a number", "numbers"),
    str: ("a string", "strings"),
}
_LISTS = (list, MutableSequence)
_SEQUENCES = (*_LISTS, tuple, Sequence, Collection, Iterable, set, frozenset)
_MAPPINGS = (dict, Mapping, MutableMapping)
_NONE = type(None)


def fit(value: Any, hint: Any, *, field: str, build: Build | None = None) -> Any:
    """Return `value` as the declared type wants it.

    Args:
      value: what the config says.
      hint: the declared type: a scalar, None, `Literal`, tuple, list, Sequence, set, Mapping, a dataclass, or a union
        of them, with types of elements. Anything else (an array, a function, `Any`) takes every value.
      field: the field's full name, for the messages; elements are named `field[0]` and `field.key`.
      build: how a dataclass is built from a mapping; None = its constructor.

    Returns:
      The value; lists become tuples (for a Sequence, too) and tuples lists, integers become floats, and mappings
      dataclasses, where that is declared.

    Raises:
      UserError: the value is of another type; the message says what to write where the intention is clear.
    """
    options = sorted(_options(hint), key=lambda option: option is not type(value))  # an exact type goes first
    chosen = [option for option in options if _takes(option, value)]
    for option in chosen[:-1]:
        try:
            return _converted(value, option, field=field, build=build)
        except UserError:
            continue
    if chosen:
        return _converted(value, chosen[-1], field=field, build=build)
    raise UserError(f"{field} must be {_described(options)}, got {value!r}{_remedy(value, options)}")


def fits(value: Any, hint: Any) -> bool:
    """Return whether `fit` takes the value."""
    try:
        fit(value, hint, field="")
    except UserError:
        return False
    return True


def _options(hint: Any) -> list[Any]:
    """Return the members of a union; a type that is no union is its only member."""
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _options(typing.get_args(hint)[0])
    if hasattr(hint, "__supertype__"):  # typing.NewType
        return _options(hint.__supertype__)
    if origin in (typing.Union, types.UnionType):
        return [option for member in typing.get_args(hint) for option in _options(member)]
    return [hint]


def _kind(option: Any) -> Any:
    """Return `tuple` for `tuple[int, ...]`, `Literal` for `Literal["a"]`, and a plain type itself."""
    return typing.get_origin(option) or option


def _is_dataclass(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def _is_path(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, PurePath)


def _takes(option: Any, value: Any) -> bool:
    """Return whether the value has the outer form of a type; elements are not looked at."""
    kind = _kind(option)
    if kind in (None, _NONE):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, str)
    if kind is typing.Literal:
        return isinstance(value, str) or any(type(value) is type(one) for one in typing.get_args(option))
    if kind in _SEQUENCES:
        return isinstance(value, (list, tuple, set, frozenset))
    if kind in _MAPPINGS:
        return isinstance(value, Mapping) or is_config_dict(value)
    if _is_dataclass(kind):
        return isinstance(value, (kind, Mapping)) or is_config_dict(value)
    if _is_path(kind):
        return isinstance(value, (str, os.PathLike))
    return True


def _converted(value: Any, option: Any, *, field: str, build: Build | None) -> Any:
    kind = _kind(option)
    if kind in (int, float):
        return kind(value)
    if kind is typing.Literal:
        allowed = typing.get_args(option)
        if not any(value == one and type(value) is type(one) for one in allowed):
            raise unknown(f"value of {field}", str(value), map(str, allowed))
        return value
    if kind in _SEQUENCES:
        return _elements(value, option, field=field, build=build)
    if kind in _MAPPINGS:
        return _mapping(value, option, field=field, build=build)
    if _is_dataclass(kind) and not isinstance(value, kind):
        return build(kind, value, field) if build else kind(**value)
    return value


def _elements(value: Collection[Any], option: Any, *, field: str, build: Build | None) -> Any:
    kind, hints = _kind(option), typing.get_args(option)
    result = kind if kind in (set, frozenset) else list if kind in _LISTS else tuple
    if not hints:
        return result(value)
    if kind is tuple and hints[-1] is not ...:
        if len(value) != len(hints):
            raise UserError(f"{field} must have {len(hints)} values, got {len(value)}: {value!r}")
    else:
        hints = (hints[0],) * len(value)
    alike = len(set(hints)) == 1
    try:
        pairs = enumerate(zip(value, hints, strict=True))
        return result(fit(one, hint, field=f"{field}[{i}]", build=build) for i, (one, hint) in pairs)
    except UserError:
        if alike and fits(value, hints[0]):  # one element, without the outer brackets
            raise UserError(f"{field} must be {_name(option)}, got {value!r}; write {_wrapped(value, kind)}") from None
        raise


def _mapping(value: Any, option: Any, *, field: str, build: Build | None) -> dict[Any, Any]:
    items = value.to_dict() if is_config_dict(value) else dict(value)
    keys, values = typing.get_args(option) or (Any, Any)
    return {
        fit(key, keys, field=f"key {key!r} of {field}"): fit(one, values, field=f"{field}.{key}", build=build)
        for key, one in items.items()
    }


def _described(options: Sequence[Any]) -> str:
    return " or ".join(dict.fromkeys(map(_name, options)))


def _name(option: Any) -> str:
    """Return a type in words: "an integer", "a tuple of strings"."""
    kind, hints = _kind(option), typing.get_args(option)
    if kind in _SCALARS:
        return _SCALARS[kind][0]
    if kind in (None, _NONE):
        return "None"
    if kind is typing.Literal:
        return "one of " + ", ".join(map(repr, hints))
    if kind in _SEQUENCES:
        name = "a set" if kind in (set, frozenset) else "a list" if kind in _LISTS else "a tuple"
        if kind is tuple and hints and hints[-1] is not ...:
            return f"{name} of {len(hints)} values"
        return name + (f" of {_plural(hints[0])}" if hints and hints[0] is not Any else "")
    if kind in _MAPPINGS:
        values = _plural(hints[1]) if len(hints) == 2 and hints[1] is not Any else ""
        return f"a mapping from {_plural(hints[0])} to {values}" if values else "a section of fields"
    if _is_dataclass(kind):
        return "a section of fields"
    if _is_path(kind):
        return "a path"
    return getattr(kind, "__name__", str(kind))


def _plural(hint: Any) -> str:
    names = []
    for option in _options(hint):
        kind = _kind(option)
        if kind in _SCALARS:
            names.append(_SCALARS[kind][1])
        elif kind in _SEQUENCES:
            names.append("sets" if kind in (set, frozenset) else "lists" if kind in _LISTS else "tuples")
        elif kind in _MAPPINGS or _is_dataclass(kind):
            names.append("sections of fields")
        else:
            names.append("values")
    return " or ".join(dict.fromkeys(names))


def _remedy(value: Any, options: Sequence[Any]) -> str:
    """Return what to write instead, after a semicolon; "" where the intention is not clear."""
    for option in options:
        kind, hints = _kind(option), typing.get_args(option)
        if kind in _SEQUENCES and isinstance(value, (str, int, float)):
            element = hints[0] if hints else None
            alike = kind is not tuple or len(hints) < 2 or hints[-1] is ...
            read = next((one for one in _readings(value) if element is None or fits(one, element)), None)
            if alike and read is not None and element is not Any:
                return f"; write {_wrapped(read, kind)}"
        elif kind in (bool, int, float):
            read = next((one for one in _readings(value) if _takes(kind, one)), None)
            if read is not None:
                return f"; write {read!r}"
        elif kind is str and isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str):
            return f"; write {value[0]!r}"
        elif kind is str and isinstance(value, (bool, int, float)):
            return f'; write {str(value)!r} (in a shell: "{str(value)!r}")'
    return ""


def _readings(value: Any) -> list[Any]:
    """Return the value and what else a person may have meant by it: 5 for "5" and for 5.0, True for "yes" and for 1."""
    readings = [value]
    if isinstance(value, str):
        try:
            readings.append(ast.literal_eval(value))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
            readings.append(words.get(value.lower()))
    elif isinstance(value, float) and value.is_integer():
        readings.append(int(value))
    elif type(value) is int:
        readings += [{0: False, 1: True}.get(value), str(value)]
    return [one for one in readings if one is not None]


def _wrapped(value: Any, kind: Any) -> str:
    """Return a list, set or tuple of one value as Python writes it."""
    if kind in _LISTS:
        return f"[{value!r}]"
    return f"{{{value!r}}}" if kind in (set, frozenset) else f"({value!r},)"


def is_config_dict(value: Any) -> bool:
    """Recognise a ConfigDict without importing its package, which a machine that only measures steps may lack."""
    package = sys.modules.get("ml_collections")
    return package is not None and isinstance(value, package.ConfigDict)
