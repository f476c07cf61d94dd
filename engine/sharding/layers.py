"""Stacked layers: parameters of many blocks in one array, with the depth as axis 0 (applied by `lax.scan`)."""

import re
from typing import Any

STACK = re.compile(r"(?:^|/)layers/")
"""A path with the component `layers` is a stack; axis 0 is the depth."""


def is_stacked(path: str) -> bool:
    """Tell whether axis 0 of the parameter at `path` counts layers."""
    return STACK.search(path) is not None and not re.search(r"(?:^|/)layers/\d+/", path)


def layer_rank(path: str, value: Any) -> int:
    """Return the rank that a parameter has in one layer."""
    return value.ndim - is_stacked(path)
