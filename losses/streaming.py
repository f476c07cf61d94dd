"""A contrastive loss whose score matrix is never held whole: one pass for the value, one for the gradient.

The loss is a mean over rows of a function of statistics of each row and each column (see `tiles`). A `Rule` defines the
statistics, the loss of a row, and its derivative by a score, for which the scores are computed again. A rule whose
derivative needs no statistics takes one pass for both.
"""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .exchange import Layout, on_each_device, pair_statistics, total
from .ties import rounded
from .tiles import PRECISION, Side, Statistics, Tile

Marks = dict[str, Side]
Metrics = dict[str, Array]


class RowLosses(NamedTuple):
    """The loss of each row, from the statistics of a device's rows and columns.

    Attributes:
      loss: [b] loss of each row, nats.
      hits: name of a metric -> [b] how much the row counts, 0..1.
      rows: arrays [b] that `Rule.score_gradient` needs of the rows.
      cols: arrays that it needs of the columns.
    """

    loss: Float[Array, "b"]
    hits: dict[str, Float[Array, "b"]]
    rows: Side
    cols: Side


class Rule(Protocol):
    """A contrastive loss, hashable.

    Attributes:
      same: see `tiles.relate`.
      per_row: columns in a row that belong to each row.
      one_pass: `score_gradient` needs no statistics.
    """

    @property
    def same(self) -> str: ...  # noqa: D102
    @property
    def per_row(self) -> int: ...  # noqa: D102
    @property
    def one_pass(self) -> bool: ...  # noqa: D102

    def statistics(self, tile: Tile, *, scores: Array, cosines: Array) -> tuple[Statistics, Statistics]:
        """Return the statistics of a tile's rows and columns; `cosines` [R,C] are rounded, to compare (see `ties`)."""
        ...

    def row_losses(self, rows: Statistics, cols: Statistics) -> RowLosses:
        """Return the losses of the rows from all statistics."""
        ...

    def score_gradient(self, tile: Tile, scores: Array) -> Float[Array, "R C"]:
        """Return the derivative of the sum of all rows' losses by each score; 0 where a pair takes no part."""
        ...


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def streamed(
    rule: Rule, layout: Layout, x: Array, y: Array, scale: Array, bias: Array | None, marks: Marks
) -> tuple[Array, Metrics]:
    """Compute a loss of scores `scale * x @ y.T + bias` without holding them.

    Args:
      rule: the loss.
      layout: devices, exchange and block.
      x: float32 [B,E] rows.
      y: float32 [B * rule.per_row, E] columns.
      scale: float32 [].
      bias: float32 [], or None for 0.
      marks: under "x" and "y" what `tiles.relate` reads of rows and columns.

    Returns:
      The mean loss over valid rows, and the mean of each metric over them (0..1), which has no gradient.
    """
    loss, metrics, _, _ = _value(rule, layout, x, y, scale, bias, marks, with_pull=False)
    return loss, metrics


def _forward(rule, layout, x, y, scale, bias, marks):
    loss, metrics, count, kept = _value(rule, layout, x, y, scale, bias, marks, with_pull=rule.one_pass)
    return (loss, metrics), (x, None if rule.one_pass else y, scale, bias, marks, count, kept)


def _backward(rule, layout, residuals, cotangents):
    x, y, scale, bias, marks, count, kept = residuals
    pulls = kept if rule.one_pass else _pulls(rule, layout, x, y, scale, bias, marks, kept)
    rows, cols = pulls
    factor = cotangents[0] / jnp.maximum(count, 1.0)
    by_bias = None if bias is None else factor * jnp.sum(rows["bias"])
    return factor * scale * rows["e"], factor * cols["e"], factor * jnp.sum(x * rows["e"]), by_bias, None


streamed.defvjp(_forward, _backward)


def _value(rule, layout, x, y, scale, bias, marks, *, with_pull):
    """Return loss, metrics, number of valid rows, and what the backward pass needs of rows and columns."""

    def local(split: Any, whole: Any) -> tuple[Any, Any]:
        (x, y, marks), (scale, bias) = split, whole

        def visit(tile: Tile) -> tuple[Statistics, Statistics]:
            similarity = _similarity(tile)
            scores = _with_bias(similarity, bias)
            stats = rule.statistics(tile, scores=scores, cosines=rounded(similarity, scale=scale))
            return _merged(stats, _pull(tile, rule.score_gradient(tile, scores), bias)) if with_pull else stats

        stats = _all_pairs(visit, rule, layout, {"e": scale * x, **marks["x"]}, {"e": y, **marks["y"]})
        found = rule.row_losses(*stats)
        valid = marks["x"]["valid"]
        valid = jnp.ones(x.shape[:1], jnp.float32) if valid is None else valid.astype(jnp.float32)
        count = total(jnp.sum(valid), layout=layout)

        def mean(of: Array) -> Array:
            return total(jnp.sum(valid * of.astype(jnp.float32)), layout=layout) / jnp.maximum(count, 1.0)

        kept = _pulled(stats) if with_pull else (found.rows, found.cols)
        return kept, (mean(found.loss), {name: mean(hit) for name, hit in found.hits.items()}, count)

    kept, (loss, metrics, count) = on_each_device(local, layout=layout)((x, y, marks), (scale, bias))
    return loss, metrics, count, kept


def _pulls(rule, layout, x, y, scale, bias, marks, known):
    """Return the gradients of the sum of all losses by the scores, carried to rows and columns."""

    def local(split: Any, whole: Any) -> tuple[Any, Any]:
        (x, y, marks, (of_rows, of_cols)), (scale, bias) = split, whole
        stats = _all_pairs(
            lambda tile: _pull(tile, rule.score_gradient(tile, _with_bias(_similarity(tile), bias)), bias),
            rule,
            layout,
            {"e": scale * x, **marks["x"], **of_rows},
            {"e": y, **marks["y"], **of_cols},
        )
        return _pulled(stats), ()

    return on_each_device(local, layout=layout)((x, y, marks, known), (scale, bias))[0]


def _all_pairs(visit, rule, layout, rows, cols):
    return pair_statistics(visit, rows=rows, cols=cols, layout=layout, same=rule.same, per_row=rule.per_row)


def _similarity(tile: Tile) -> Array:
    return lax.dot_general(tile.rows["e"], tile.cols["e"], (((1,), (1,)), ((), ())), precision=PRECISION)  # [R,C]


def _with_bias(similarity: Array, bias: Array | None) -> Array:
    return similarity if bias is None else similarity + bias


def _pull(tile: Tile, weights: Array, bias: Array | None) -> tuple[Statistics, Statistics]:
    """Carry the derivatives by a tile's scores back to its embeddings."""
    rows = {"e": lax.dot_general(weights, tile.cols["e"], (((1,), (0,)), ((), ())), precision=PRECISION)}  # [R,E]
    cols = {"e": lax.dot_general(weights, tile.rows["e"], (((0,), (0,)), ((), ())), precision=PRECISION)}  # [C,E]
    if bias is not None:
        rows["bias"] = jnp.sum(weights, axis=1)
    return {"sum": rows}, {"sum": cols}


def _pulled(stats: tuple[Statistics, Statistics]) -> tuple[Side, ...]:
    """Of all statistics, those of `_pull`."""
    return tuple({key: x for key, x in part["sum"].items() if key in ("e", "bias")} for part in stats)


def _merged(one: tuple[Statistics, Statistics], other: tuple[Statistics, Statistics]) -> Any:
    """Join the names of two statistics, of rows and of columns."""
    return tuple(
        {kind: {**a.get(kind, {}), **b.get(kind, {})} for kind in sorted({*a, *b})}
        for a, b in zip(one, other, strict=True)
    )
