"""What a Pallas kernel costs: neither XLA's cost analysis nor its program text look inside one, but the trace does.

A kernel runs once for each step of its grid, on blocks that are copied to and from memory where their index changes
(`jax.experimental.pallas.BlockSpec`).
"""

import math
import re
from collections.abc import Iterator
from typing import Any

PRIMITIVE = "pallas_call"

_LANES, _SUBLANE_BYTES = 128, 32  # a tile in memory: 8 rows of float32, 16 of bfloat16, of 128 lanes each
_PADDED = re.compile(r"attention_(\d+)_of_(\d+)")  # a scope of models.layers.splash: tokens, and tokens with padding
_ATTENTION = re.compile(r"(?:splash_m[hq]a|short_attention)_(fwd|bwd|dkv|dq)")


def grid_steps(eqn: Any) -> int:
    """Return how often the body of a kernel runs."""
    return math.prod(eqn.params["grid_mapping"].grid)


def real_share(scope: str) -> float | None:
    """Return which share of an attention's scores belongs to real tokens, None if the scope does not say.

    >>> real_share("vmap(attention_192_of_256)/jit")
    0.5625
    """
    found = _PADDED.search(scope)
    return None if found is None else (int(found[1]) / int(found[2])) ** 2


def model_share(eqn: Any, *, products: int) -> float:
    """Return which share of a kernel's matrix products the model asks for; the rest is computed a second time.

    Of an attention these are two products forward and four backward (Dao et al. 2022).

    Args:
      eqn: the call of the kernel.
      products: matrix products in its body.
    """
    phase = _ATTENTION.match(eqn.params.get("name") or "")
    if phase is None or phase[1] == "fwd":
        return 1.0
    if phase[1] == "bwd":  # five products for each head, of which one is the scores once more
        return 4 / 5
    # dkv computes the scores once more, with (of five products) or without the queries' gradient; a kernel for that
    # gradient alone computes scores and their gradient again.
    return (1 if phase[1] == "dq" else products - 1) / products


def kernel_traffic(eqn: Any) -> int:
    """Return the bytes that all steps of a kernel's grid read from and write to memory, padding of tiles included.

    A block is copied where its index differs from that of the step before. An index that is looked up in a table of
    the kernel counts as different in each step that looks it up elsewhere, which is an upper bound.
    """
    mapping = eqn.params["grid_mapping"]
    return sum(_block_bytes(one.block_aval) * _copies(one, grid=mapping.grid) for one in mapping.block_mappings)


def _block_bytes(block: Any) -> int:
    size = block.dtype.itemsize
    *outer, rows, lanes = (1, 1, *block.shape)
    rows = rows if len(block.shape) < 2 else up(rows, _SUBLANE_BYTES // size)
    return math.prod(outer) * rows * up(lanes, _LANES) * size


def up(size: int, multiple: int) -> int:
    """Return the next multiple."""
    return -(-size // multiple) * multiple


def _copies(block: Any, *, grid: tuple[int, ...]) -> int:
    """Return how often the index of a block changes while the last axis of the grid runs fastest."""
    used = set(_axes(block.index_map_jaxpr.jaxpr, axes=len(grid)))
    innermost = max((axis for axis in used if grid[axis] > 1), default=-1)
    return math.prod(grid[: innermost + 1])


def _axes(index_map: Any, *, axes: int) -> Iterator[int]:
    """Yield the axes of the grid from which an index is computed."""
    wanted = {value for value in index_map.outvars if not hasattr(value, "val")}
    for eqn in reversed(index_map.eqns):
        if any(value in wanted for value in eqn.outvars):
            wanted |= {value for value in eqn.invars if not hasattr(value, "val")}
    yield from (axis for axis, value in enumerate(index_map.invars[:axes]) if value in wanted)
