"""Parses operations declared as a string, `"random_crop(224)|flip_lr"`, against one explicit table. No tensorflow."""

import ast
import dataclasses
from collections.abc import Mapping
from typing import Any

from ...base.errors import UserError, unknown


def parse(declared: str, *, table: Mapping[str, type], field: str) -> list[Any]:
    """Parse `"name|name(1, key=2)|..."` into a list of operations, in order.

    Args:
      declared: operations separated by `|`; arguments are Python literals; an empty string declares none.
      table: the dataclass of each operation by name; its fields are the arguments, its `__post_init__` may raise
        ValueError on a bad value.
      field: the config field that holds the string, named in errors.

    Raises:
      UserError: an unknown name (the nearest and all known ones are listed), or arguments that do not fit (the
        operation is named with its signature).
    """
    return [_operation(piece.strip(), table=table, field=field) for piece in declared.split("|")] if declared else []


def signature(name: str, operation: type) -> str:
    """Return an operation's signature as users write it: `random_crop(n: int)`."""
    parts = []
    for f in dataclasses.fields(operation):
        default = "" if f.default is dataclasses.MISSING else f"={f.default!r}"
        parts.append(f"{f.name}: {f.type.__name__ if isinstance(f.type, type) else f.type}{default}")
    return f"{name}({', '.join(parts)})"


def _operation(piece: str, *, table: Mapping[str, type], field: str) -> Any:
    name, arguments, keywords = _call(piece, field=field)
    if name not in table:
        raise unknown(f"operation in {field}:", name, table)
    operation = table[name]
    wanted = f"{field}: {piece!r} does not fit {signature(name, operation)}"
    try:
        made = operation(*arguments, **keywords)
    except (TypeError, ValueError) as error:
        raise UserError(f"{wanted}: {str(error).replace('__init__()', name)}") from None
    for f in dataclasses.fields(operation):
        value = getattr(made, f.name)
        types = (int, float) if f.type in (float, "float") else (int,)
        if isinstance(value, bool) or not isinstance(value, types):
            raise UserError(f"{wanted}: {f.name}={value!r} is no {getattr(f.type, '__name__', f.type)}")
    return made


def _call(piece: str, *, field: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Split `name(1, key=2)` into its name and literal arguments."""
    bad = UserError(f"{field}: cannot read {piece!r}; write operations as name or name(1, key=2), separated by '|'")
    try:
        node = ast.parse(piece, mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, [], {}
        if (
            not isinstance(node, ast.Call)
            or not isinstance(node.func, ast.Name)
            or None in [k.arg for k in node.keywords]
        ):
            raise bad
        arguments = [ast.literal_eval(a) for a in node.args]
        return node.func.id, arguments, {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}
    except (SyntaxError, ValueError) as error:
        raise error if error is bad else bad from None
