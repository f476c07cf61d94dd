"""MIL-NCE, for clips of which each has several candidate texts, dense and blockwise."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..base.errors import UserError
from .exchange import lay_out
from .infonce import check_options, check_rows, without
from .streaming import RowLosses, streamed
from .ties import FLOOR, reduce_tops, rounded, share_won, top_of
from .tiles import PRECISION, Statistics, Tile, kept, logsum


def mil_nce(
    *,
    video: Float[Array, "B E"],
    text: Float[Array, "B C E"],
    scale: Float[Array, ""],
    text_valid: Bool[Array, "B C"] | None = None,
    valid: Bool[Array, "B"] | None = None,
    form: str = "dense",
    exchange: str = "gather",
    block: int = 1024,
    axes: tuple[str, ...],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute MIL-NCE: any of a clip's candidate texts may be the one that fits (Miech et al. 2020, equation 1).

    A clip's own pairs stand against all pairs of its video with other texts and of other videos with its texts.

    Args:
      video: rows of unit length. Computed in float32.
      text: candidates of unit length; `[i, c]` belongs to video i.
      scale: the factor on cosines, > 0.
      text_valid: candidates that are there. None = all.
      valid: rows that take part. None = all. A row without a candidate takes no part either.
      form: as in `infonce.info_nce`.
      exchange: as in `infonce.info_nce`.
      block: as in `infonce.info_nce`.
      axes: as in `infonce.info_nce`.

    Returns:
      The loss in nats (mean over valid rows) and the metrics `accuracy_x2y` (share of videos whose best text is one of
      their own, 0..1) and `accuracy_y2x` (share of rows whose best own pair beats their texts with every other video);
      ties between pairs in expectation, see `ties`.

    Raises:
      UserError: an unknown name, fewer than two rows, or a batch that does not divide by the devices.
    """
    check_rows(text.shape[0], loss="MIL-NCE")
    check_options(form=form, exchange=exchange, block=block)
    size, candidates = text.shape[:2]
    there = None
    if valid is not None or text_valid is not None:
        there = jnp.ones((size, candidates), bool) if text_valid is None else text_valid
        there = there if valid is None else there & valid[:, None]
        valid = jnp.any(there, axis=1)
        there = there.reshape(-1)
    x, y = without(video, valid=valid), without(text.reshape(size * candidates, -1), valid=there)
    scale = scale.astype(jnp.float32)
    if form == "dense":
        return dense(video=x, text=y.reshape(text.shape), scale=scale, valid=valid, there=there)
    layout = lay_out(rows=size, exchange=exchange, block=block, axes=axes)
    marks = {"x": {"valid": valid, "group": None}, "y": {"valid": there, "group": None}}
    return streamed(MILNCE(per_row=candidates), layout, x, y, scale, None, marks)


def check_mil_nce(
    *, same: str, label_smoothing: float, hard_negative: float, form: str, exchange: str, block: int
) -> None:
    """Raise UserError, naming the field of `config.loss`, for an option that `mil_nce` does not take."""
    check_options(form=form, exchange=exchange, block=block)
    if label_smoothing or hard_negative or same != "ignore":
        raise UserError(
            "config.loss.name='mil_nce' has no label_smoothing, hard_negative or same_text; leave out these fields"
        )


def dense(
    *, video: Array, text: Array, scale: Array, valid: Array | None, there: Array | None
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute MIL-NCE with all scores at hand: the definition that the blockwise form is tested against."""
    size, candidates = text.shape[:2]
    valid = jnp.ones((size,), bool) if valid is None else valid
    there = jnp.ones((size, candidates), bool) if there is None else there.reshape(size, candidates)
    similarity = jnp.einsum("ie,jce->ijc", video, text, precision=PRECISION)  # [B,B,C]
    scores, cosines = scale * similarity, rounded(similarity)
    taken = valid[:, None, None] & there[None, :, :]
    own = taken & jnp.eye(size, dtype=bool)[:, :, None]

    def over(function, mask: Array, axis: tuple[int, int]) -> Array:
        return function(jnp.where(mask, scores, FLOOR), axis=axis)

    positive = over(jax.nn.logsumexp, own, (1, 2))
    all_pairs = jnp.logaddexp(over(jax.nn.logsumexp, taken, (1, 2)), over(jax.nn.logsumexp, taken & ~own, (0, 2)))
    weight = valid.astype(jnp.float32) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    best = top_of(cosines, mask=own, axis=(1, 2))
    of_videos, of_texts = (top_of(cosines, mask=taken, axis=axis) for axis in ((1, 2), (0, 2)))
    rivals = {"accuracy_x2y": of_videos, "accuracy_y2x": of_texts}
    hits = {name: jnp.sum(weight * share_won(best, among=rival)) for name, rival in rivals.items()}
    return jnp.sum(weight * (all_pairs - positive)), hits


@dataclasses.dataclass(frozen=True, kw_only=True)
class MILNCE:
    """The rule of MIL-NCE for `streaming`."""

    per_row: int
    same: str = "negative"
    one_pass: bool = False

    def statistics(self, tile: Tile, *, scores: Array, cosines: Array) -> tuple[Statistics, Statistics]:
        """Return all and own of the rows, others of the columns."""
        s = tile.only(scores)
        own, others = jnp.where(tile.own, s, FLOOR), jnp.where(tile.own, FLOOR, s)
        rows = {"all": logsum(s, axis=1), "own": logsum(own, axis=1)}
        best = {"all": top_of(cosines, mask=tile.taken, axis=1), "own": top_of(cosines, mask=tile.own, axis=1)}
        cols = {"logsum": {"others": logsum(others, axis=0)}, "top": {"all": top_of(cosines, mask=tile.taken, axis=0)}}
        return {"logsum": rows, "top": best}, cols

    def row_losses(self, rows: Statistics, cols: Statistics) -> RowLosses:
        """Join the statistics of a row with those of its candidates."""
        others = jax.nn.logsumexp(cols["logsum"]["others"].reshape(-1, self.per_row), axis=1)
        of_texts = reduce_tops(jnp.moveaxis(cols["top"]["all"].reshape(-1, self.per_row, 2), 1, 0))
        own, log_sum = rows["logsum"]["own"], jnp.logaddexp(rows["logsum"]["all"], others)
        best, of_videos = rows["top"]["own"], rows["top"]["all"]
        return RowLosses(
            loss=log_sum - own,
            hits={"accuracy_x2y": share_won(best, among=of_videos), "accuracy_y2x": share_won(best, among=of_texts)},
            rows={"log_sum": log_sum, "own": own},
            cols={"log_sum": jnp.repeat(log_sum, self.per_row)},
        )

    def score_gradient(self, tile: Tile, scores: Array) -> Float[Array, "R C"]:
        """Return the shares in both denominators minus the share among the own pairs."""
        by_row = jnp.exp(scores - tile.rows["log_sum"][:, None])
        by_col = jnp.exp(scores - tile.cols["log_sum"][None, :])
        own = jnp.exp(scores - tile.rows["own"][:, None])
        return kept(tile.taken, by_row + jnp.where(tile.own, -own, by_col))
