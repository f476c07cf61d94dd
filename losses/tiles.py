"""Visit every (row, column) pair of two lists of embeddings tile by tile, and join statistics of rows and of columns.

A tile gives statistics of each of its rows and each of its columns, of three kinds: `logsum` (joined by
log(exp + exp)), `top` (the highest score and how many share it, see `ties`) and `sum`. They can be joined in any order,
so tiles may come from any device.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .ties import FLOOR, join_tops, reduce_tops

PRECISION = lax.Precision.HIGHEST

Side = dict[str, Any]
Statistics = dict[str, dict[str, Array]]
_JOIN = {"logsum": jnp.logaddexp, "top": join_tops, "sum": jnp.add}
_START = {"logsum": FLOOR, "top": (FLOOR, 0.0), "sum": 0.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tile:
    """One tile of the score matrix.

    Attributes:
      rows: arrays of the rows, at least `e` [R,E].
      cols: arrays of the columns, at least `e` [C,E].
      own: [R,C] row and column belong to the same clip, and both take part.
      taken: [R,C] the pair takes part: own, positive or negative. None = all pairs do.
      positive: [R,C] own, or known to say the same where that makes a positive.
    """

    rows: Side
    cols: Side
    own: Bool[Array, "R C"]
    taken: Bool[Array, "R C"] | None
    positive: Bool[Array, "R C"]

    def only(self, scores: Float[Array, "R C"]) -> Float[Array, "R C"]:
        """Return the scores with FLOOR where the pair takes no part."""
        return scores if self.taken is None else jnp.where(self.taken, scores, FLOOR)


Visit = Callable[[Tile], tuple[Statistics, Statistics]]


def relate(
    rows: Side, *, cols: Side, row_index: Array, col_index: Array, same: str, per_row: int = 1
) -> tuple[Array, Array | None, Array]:
    """Return the masks (own, taken, positive) of all pairs of rows and columns.

    Args:
      rows: may hold `valid` [R] and `group` [R,G].
      cols: may hold `valid` [C] and `group` [C,G].
      row_index: [R] numbers of the rows in the global batch.
      col_index: [C] numbers of the columns in the global list.
      same: what a pair of one group is that is not own: "ignore", "positive" or "negative".
      per_row: how many columns in a row belong to each row (candidate captions).
    """
    owner = col_index if per_row == 1 else col_index // per_row
    own = row_index[:, None] == owner[None, :]
    taken = None
    for flag in ("valid", "fresh"):
        row, col = rows.get(flag), cols.get(flag)
        for part in (None if row is None else row[:, None], None if col is None else col[None, :]):
            if part is not None:
                part = jnp.broadcast_to(part, own.shape)
                taken = part if taken is None else taken & part
    own = own if taken is None else own & taken
    if rows.get("group") is None or same == "negative":
        return own, taken, own
    equal = jnp.all(rows["group"][:, None, :] == cols["group"][None, :, :], axis=-1)
    if same == "positive":
        return own, taken, own | (equal if taken is None else equal & taken)
    apart = own | ~equal
    return own, apart if taken is None else apart & taken, own


def all_pairs(*, valid: Array, group: Array | None, same: str) -> tuple[Bool[Array, "B B"], Bool[Array, "B B"]]:
    """Return the masks (taken, positive) of all pairs of a batch, for the dense forms.

    Args:
      valid: [B] rows that take part.
      group: [B,G] or None.
      same: see `relate`.
    """
    index = jnp.arange(valid.shape[0], dtype=jnp.int32)
    side = {"valid": valid, "group": group}
    own, taken, positive = relate(side, cols=side, row_index=index, col_index=index, same=same)
    return own if taken is None else taken, positive


def sweep(
    visit: Visit,
    *,
    rows: Side,
    cols: Side,
    row_offset: Array | int,
    col_offset: Array | int,
    block: int,
    same: str,
    per_row: int = 1,
    onto: tuple[Statistics, Statistics] | None = None,
    none: bool = False,
) -> tuple[Statistics, Statistics]:
    """Visit all tiles of at most block x block pairs; return the statistics of the rows and of the columns.

    Args:
      visit: tile -> statistics of its rows [R,...] and of its columns [C,...].
      rows: arrays with a leading axis of all rows.
      cols: arrays with a leading axis of all columns.
      row_offset: number of the first row in the global batch.
      col_offset: number of the first column in the global list.
      block: longest side of a tile.
      same: see `relate`.
      per_row: see `relate`.
      onto: statistics to continue with.
      none: visit no tile; return the initial statistics.
    """
    row_cut, col_cut = _Cut.of(rows, block=block), _Cut.of(cols, block=block)

    def tile(i: Array | int, j: Array | int) -> Tile:
        row_part, col_part = row_cut.take(rows, i), col_cut.take(cols, j)
        own, taken, positive = relate(
            row_part,
            cols=col_part,
            row_index=row_offset + row_cut.numbers(i),
            col_index=col_offset + col_cut.numbers(j),
            same=same,
            per_row=per_row,
        )
        return Tile(rows=row_part, cols=col_part, own=own, taken=taken, positive=positive)

    def step(k: Array, so_far: tuple[Statistics, Statistics]) -> tuple[Statistics, Statistics]:
        i, j = k % row_cut.blocks, k // row_cut.blocks
        of_rows, of_cols = visit(tile(i, j))
        return row_cut.join(so_far[0], of_rows, i), col_cut.join(so_far[1], of_cols, j)

    if onto is None:
        shapes = jax.eval_shape(lambda: visit(tile(0, 0)))
        onto = (_initial(shapes[0], length=row_cut.length), _initial(shapes[1], length=col_cut.length))
    return onto if none else lax.fori_loop(0, row_cut.blocks * col_cut.blocks, step, onto)


def kept(mask: Array | None, x: Array) -> Array:
    """Return `x` with 0 where `mask` is False; None = all are True."""
    return x if mask is None else jnp.where(mask, x, 0.0)


def logsum(s: Array, *, axis: int) -> Array:
    """Return log(sum(exp(s))) of finite scores."""
    peak = jnp.max(s, axis=axis, keepdims=True)
    return jnp.log(jnp.sum(jnp.exp(s - peak), axis=axis)) + jnp.squeeze(peak, axis)


def join(one: Statistics, other: Statistics) -> Statistics:
    """Join two statistics of the same rows or columns, from different tiles."""
    return {
        kind: {name: _JOIN[kind](x, other[kind][name]) for name, x in values.items()} for kind, values in one.items()
    }


def joined(kind: str, parts: Array) -> Array:
    """Join statistics of one kind along the leading axis."""
    if kind == "top":
        return reduce_tops(parts)
    return {"logsum": jax.nn.logsumexp, "sum": jnp.sum}[kind](parts, axis=0)


def _initial(shapes: Any, *, length: int) -> Statistics:
    return {
        kind: {
            name: jnp.broadcast_to(jnp.asarray(_START[kind], x.dtype), (length, *x.shape[1:]))
            for name, x in values.items()
        }
        for kind, values in shapes.items()
    }


@dataclasses.dataclass(frozen=True)
class _Cut:
    """A list of `length` cut into `blocks` parts of `size`; the last one begins early enough to be whole."""

    length: int
    size: int
    blocks: int

    @classmethod
    def of(cls, side: Side, *, block: int) -> "_Cut":
        length = side["e"].shape[0]
        blocks = -(-length // block)
        return cls(length=length, size=-(-length // blocks), blocks=blocks)

    def start(self, i: Array | int) -> Array | int:
        return jnp.minimum(i * self.size, self.length - self.size) if self.length % self.size else i * self.size

    def numbers(self, i: Array | int) -> Array:
        return self.start(i) + jnp.arange(self.size, dtype=jnp.int32)

    def take(self, side: Side, i: Array | int) -> Side:
        part = {key: lax.dynamic_slice_in_dim(x, self.start(i), self.size) for key, x in side.items() if x is not None}
        if self.length % self.size:  # rows that the part before has seen already
            part["fresh"] = self.numbers(i) >= i * self.size
        return part

    def join(self, so_far: Statistics, stats: Statistics, i: Array) -> Statistics:
        def put(kind: str, old: Array, new: Array) -> Array:
            before = lax.dynamic_slice_in_dim(old, self.start(i), self.size)
            return lax.dynamic_update_slice_in_dim(old, _JOIN[kind](before, new), self.start(i), axis=0)

        return {
            kind: {name: put(kind, old, stats[kind][name]) for name, old in values.items()}
            for kind, values in so_far.items()
        }
