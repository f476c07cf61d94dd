"""What does not fit between a checkpoint and a model, as a table."""

from typing import Any

import jax

_ABSENT = "(absent)"
_ROWS = 40


def misfits(*, saved: dict[str, Any], wanted: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, in checkpoint, in model) for each array of two trees that differs in presence, shape or dtype."""
    a, b = _described(saved), _described(wanted)
    names = [*b, *(name for name in a if name not in b)]
    return [(n, a.get(n, _ABSENT), b.get(n, _ABSENT)) for n in names if a.get(n) != b.get(n)]


def table(rows: list[tuple[str, str, str]]) -> str:
    """Lay out the rows of `misfits` in columns; at most 40 rows, the rest is counted."""
    head = ("parameter", "in checkpoint", "in model")
    shown = [head, *rows[:_ROWS]]
    widths = [max(len(row[i]) for row in shown) for i in range(3)]
    lines = [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    ]
    if len(rows) > _ROWS:
        lines.append(f"  ... and {len(rows) - _ROWS} more")
    return "\n".join(lines)


def _described(tree: dict[str, Any]) -> dict[str, str]:
    """Return {"params/tower/kernel": "float32[3,4]"} of a tree whose leaves have shape and dtype."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(map(_name, path)): f"{value.dtype}[{','.join(map(str, value.shape))}]" for path, value in leaves}


def _name(key: Any) -> str:
    """The name of a step into a tree; a named tuple's field, which orbax stores as a key, has its own name too."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
