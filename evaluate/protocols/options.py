"""Methods that a user names on the command line with their parameters: `pe:reweight_scale=none`."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from ...base.errors import UserError, unknown


def parse_named(given: str, *, known: Mapping[str, Callable[..., Any]], flag: str) -> tuple[str, dict[str, Any]]:
    """Take a name and its parameters apart.

    Args:
      given: NAME or NAME:PARAMETER=VALUE,PARAMETER=VALUE; values are JSON, "none" or text.
      known: the names, with the functions whose keyword arguments are the parameters.
      flag: for messages.

    Raises:
      UserError: an unknown name or parameter, or no value.

    >>> def dsl(scores, *, scale=100.0): ...
    >>> parse_named("dsl:scale=1", known={"dsl": dsl}, flag="--rerank")
    ('dsl', {'scale': 1})
    """
    name, _, rest = given.partition(":")
    if name not in known:
        raise unknown(flag, name, known)
    parameters = inspect.signature(known[name]).parameters.values()
    taken = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is not one.empty]
    options = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in taken:
            raise unknown(f"parameter of {flag} {name}:", key, taken or ["none"])
        if not equals or not value:
            raise UserError(f"{flag} {given}: {key!r} has no value; write {name}:{key}=VALUE")
        options[key] = _value(value)
    return name, options


def _value(text: str) -> Any:
    if text.lower() == "none":
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
