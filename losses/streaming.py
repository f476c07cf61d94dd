"""A contrastive loss whose score matrix is never held whole: one pass for the value, one for the gradient.

The loss is a mean over rows of something that is known from statistics of each row and each column (see `tiles`). A
`Rule` says which statistics, what loss they make, and the derivative of the loss by a score once they are known; the
scores are computed again for it. A rule whose derivative needs no statistics has both in one pass.
"""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from .exchange import Layout, meet, on_each_device, total
from .tiles import PRECISION, Side, Statistics, Tile

Marks = dict[str, Side]
Metrics = dict[str, Array]


class Verdict(NamedTuple):
    """What the statistics of a device's rows and columns make.

    Attributes:
      loss: [b] loss of each row, nats.
      hits: by the name of the metric, [b] whether the row counts.
      rows: arrays [b] that `Rule.weigh` needs of the rows.
      cols: arrays of the columns that it needs.
    """

    loss: Float[Array, "b"]
    hits: dict[str, Bool[Array, "b"]]
    rows: Side
    cols: Side


class Rule(Protocol):
    """A contrastive loss, hashable.

    Attributes:
      same: see `tiles.relate`.
      per_row: columns in a row that belong to each row.
      one_pass: `weigh` needs nothing of the verdict.
    """

    @property
    def same(self) -> str: ...  # noqa: D102
    @property
    def per_row(self) -> int: ...  # noqa: D102
    @property
    def one_pass(self) -> bool: ...  # noqa: D102

    def measure(self, tile: Tile, scores: Array) -> tuple[Statistics, Statistics]:
        """Return what a tile says of its rows and of its columns."""
        ...

    def conclude(self, rows: Statistics, cols: Statistics) -> Verdict:
        """Make losses of all that was said."""
        ...

    def weigh(self, tile: Tile, scores: Array) -> Float[Array, "R C"]:
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
      The mean loss over valid rows and the shares (0..1) of them that hit; the latter have no gradient.
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
    """Return loss, metrics, number of valid rows, and the verdict's rows and columns (or their pulls)."""

    def local(split: Any, whole: Any) -> tuple[Any, Any]:
        (x, y, marks), (scale, bias) = split, whole

        def visit(tile: Tile) -> tuple[Statistics, Statistics]:
            scores = _scores(tile, bias)
            said = rule.measure(tile, scores)
            return _beside(said, _pull(tile, rule.weigh(tile, scores), bias)) if with_pull else said

        said = _meet(visit, rule, layout, {"e": scale * x, **marks["x"]}, {"e": y, **marks["y"]})
        verdict = rule.conclude(*said)
        valid = marks["x"]["valid"]
        valid = jnp.ones(x.shape[:1], jnp.float32) if valid is None else valid.astype(jnp.float32)
        count = total(jnp.sum(valid), layout=layout)

        def mean(of: Array) -> Array:
            return total(jnp.sum(valid * of.astype(jnp.float32)), layout=layout) / jnp.maximum(count, 1.0)

        kept = _pulled(said) if with_pull else (verdict.rows, verdict.cols)
        return kept, (mean(verdict.loss), {name: mean(hit) for name, hit in verdict.hits.items()}, count)

    kept, (loss, metrics, count) = on_each_device(local, layout=layout)((x, y, marks), (scale, bias))
    return loss, metrics, count, kept


def _pulls(rule, layout, x, y, scale, bias, marks, verdict):
    """Return the gradients of the sum of all losses by the scores, carried to rows and columns."""

    def local(split: Any, whole: Any) -> tuple[Any, Any]:
        (x, y, marks, (of_rows, of_cols)), (scale, bias) = split, whole
        said = _meet(
            lambda tile: _pull(tile, rule.weigh(tile, _scores(tile, bias)), bias),
            rule,
            layout,
            {"e": scale * x, **marks["x"], **of_rows},
            {"e": y, **marks["y"], **of_cols},
        )
        return _pulled(said), ()

    return on_each_device(local, layout=layout)((x, y, marks, verdict), (scale, bias))[0]


def _meet(visit, rule, layout, rows, cols):
    return meet(visit, rows=rows, cols=cols, layout=layout, same=rule.same, per_row=rule.per_row)


def _scores(tile: Tile, bias: Array | None) -> Array:
    scores = lax.dot_general(tile.rows["e"], tile.cols["e"], (((1,), (1,)), ((), ())), precision=PRECISION)  # [R,C]
    return scores if bias is None else scores + bias


def _pull(tile: Tile, weights: Array, bias: Array | None) -> tuple[Statistics, Statistics]:
    """What the derivatives by a tile's scores do to its embeddings."""
    rows = {"e": lax.dot_general(weights, tile.cols["e"], (((1,), (0,)), ((), ())), precision=PRECISION)}  # [R,E]
    cols = {"e": lax.dot_general(weights, tile.rows["e"], (((0,), (0,)), ((), ())), precision=PRECISION)}  # [C,E]
    if bias is not None:
        rows["bias"] = jnp.sum(weights, axis=1)
    return {"sum": rows}, {"sum": cols}


def _pulled(said: tuple[Statistics, Statistics]) -> tuple[Side, ...]:
    """Of all statistics, those of `_pull`."""
    return tuple({key: x for key, x in part["sum"].items() if key in ("e", "bias")} for part in said)


def _beside(one: tuple[Statistics, Statistics], other: tuple[Statistics, Statistics]) -> Any:
    """Both statistics of rows, and both of columns."""
    return tuple(
        {kind: {**a.get(kind, {}), **b.get(kind, {})} for kind in sorted({*a, *b})}
        for a, b in zip(one, other, strict=True)
    )
