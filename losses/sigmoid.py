"""The pairwise sigmoid loss of SigLIP, dense and blockwise."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from ..base.errors import UserError
from .exchange import lay_out
from .infonce import check_options, without
from .streaming import RowLosses, streamed
from .ties import rounded, share_won, top_of
from .tiles import PRECISION, Statistics, Tile, all_pairs, kept


def sigmoid(
    *,
    x: Float[Array, "B E"],
    y: Float[Array, "B E"],
    scale: Float[Array, ""],
    bias: Float[Array, ""],
    valid: Bool[Array, "B"] | None = None,
    group: Int[Array, "B *G"] | UInt[Array, "B *G"] | None = None,
    same: str = "ignore",
    label_smoothing: float = 0.0,
    hard_negative: float = 0.0,
    form: str = "dense",
    exchange: str = "gather",
    block: int = 1024,
    axes: tuple[str, ...],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the sigmoid loss over all pairs of a global batch (Zhai et al. 2023, SigLIP, algorithm 1).

    Every pair is a binary question of its own, positive or not; the loss is the sum over pairs divided by the rows.

    Args:
      x: rows of unit length; row i belongs to row i of `y`. Computed in float32.
      y: rows of unit length.
      scale: the factor on cosines, > 0 (SigLIP starts at 10).
      bias: added to every score (SigLIP starts at -10).
      valid: rows that take part; others are in no pair. None = all.
      group: as in `infonce.info_nce`.
      same: as in `infonce.info_nce`; "positive" makes every pair of one group a positive.
      label_smoothing: the target of a pair is (1 - label_smoothing) * target + label_smoothing / 2, 0..1.
      hard_negative: 0; the pairs of this loss do not compete, so there is nothing to weigh them against.
      form: as in `infonce.info_nce`.
      exchange: as in `infonce.info_nce`.
      block: as in `infonce.info_nce`.
      axes: as in `infonce.info_nce`.

    Returns:
      The loss in nats and the metrics `accuracy_x2y` and `accuracy_y2x` as `infonce.info_nce` has them.

    Raises:
      UserError: an unknown name, an option out of range, or a batch that does not divide by the devices.
    """
    how = {"form": form, "exchange": exchange, "block": block}
    check_sigmoid(same=same, label_smoothing=label_smoothing, hard_negative=hard_negative, **how)
    rule = Sigmoid(same=same, label_smoothing=label_smoothing)
    if group is not None:
        group = group.reshape(group.shape[0], -1)
    x, y = without(x, valid=valid), without(y, valid=valid)
    scale, bias = scale.astype(jnp.float32), bias.astype(jnp.float32)
    if form == "dense":
        return dense(x=x, y=y, scale=scale, bias=bias, valid=valid, group=group, rule=rule)
    marks = {"valid": valid, "group": group}
    layout = lay_out(rows=x.shape[0], exchange=exchange, block=block, axes=axes)
    return streamed(rule, layout, x, y, scale, bias, {"x": marks, "y": marks})


def check_sigmoid(
    *, same: str, label_smoothing: float, hard_negative: float, form: str, exchange: str, block: int
) -> None:
    """Raise UserError, naming the field of `config.loss`, for an option that `sigmoid` does not take."""
    check_options(same=same, label_smoothing=label_smoothing, form=form, exchange=exchange, block=block)
    if hard_negative:
        raise UserError(
            f"config.loss.hard_negative={hard_negative} needs a loss in which negatives compete; set it to 0 or "
            "config.loss.name to 'infonce'"
        )


def dense(
    *, x: Array, y: Array, scale: Array, bias: Array, valid: Array | None, group: Array | None, rule: "Sigmoid"
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the sigmoid loss with all scores at hand: the definition that the blockwise form is tested against."""
    valid = jnp.ones(x.shape[:1], bool) if valid is None else valid
    taken, positive = all_pairs(valid=valid, group=group, same=rule.same)
    similarity = jnp.matmul(x, y.T, precision=PRECISION)  # [B,B]
    scores, cosines = scale * similarity + bias, rounded(similarity)
    target = (1.0 - rule.label_smoothing) * positive.astype(jnp.float32) + 0.5 * rule.label_smoothing
    per_pair = -target * jax.nn.log_sigmoid(scores) - (1.0 - target) * jax.nn.log_sigmoid(-scores)
    weight = valid.astype(jnp.float32) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    loss = jnp.sum(weight * jnp.sum(jnp.where(taken, per_pair, 0.0), axis=1))
    metrics = {}
    for name, axis in (("x2y", 1), ("y2x", 0)):
        hit = share_won(top_of(cosines, mask=positive, axis=axis), among=top_of(cosines, mask=taken, axis=axis))
        metrics[f"accuracy_{name}"] = jnp.sum(weight * hit)
    return loss, metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """The rule of the sigmoid loss for `streaming`; the fields are `sigmoid`'s."""

    same: str
    label_smoothing: float
    per_row: int = 1
    one_pass: bool = True

    def _target(self, tile: Tile) -> Array:
        return jnp.where(tile.positive, 1.0 - 0.5 * self.label_smoothing, 0.5 * self.label_smoothing)

    def statistics(self, tile: Tile, *, scores: Array, cosines: Array) -> tuple[Statistics, Statistics]:
        """Return the loss of each row, and the highest scores."""
        per_pair = jax.nn.softplus(scores) - self._target(tile) * scores  # -t log sigma(s) - (1 - t) log sigma(-s)
        per_pair = kept(tile.taken, per_pair)
        masks = {"all": tile.taken, "own": tile.positive}
        rows, cols = (
            {"top": {name: top_of(cosines, mask=mask, axis=axis) for name, mask in masks.items()}} for axis in (1, 0)
        )
        return rows | {"sum": {"loss": jnp.sum(per_pair, axis=1)}}, cols

    def row_losses(self, rows: Statistics, cols: Statistics) -> RowLosses:
        """Return the sums of the rows."""
        x_hit, y_hit = (share_won(side["top"]["own"], among=side["top"]["all"]) for side in (rows, cols))
        hits = {"accuracy_x2y": x_hit, "accuracy_y2x": y_hit}
        return RowLosses(loss=rows["sum"]["loss"], hits=hits, rows={}, cols={})

    def score_gradient(self, tile: Tile, scores: Array) -> Float[Array, "R C"]:
        """Return sigma(s) minus target."""
        return kept(tile.taken, jax.nn.sigmoid(scores) - self._target(tile))
