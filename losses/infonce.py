"""InfoNCE, the temperature-scaled contrastive loss of CLIP, dense and blockwise."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from ..base.errors import UserError, unknown
from .exchange import check_exchange, lay_out
from .streaming import RowLosses, streamed
from .ties import FLOOR, rounded, share_won, top_of
from .tiles import PRECISION, Statistics, Tile, all_pairs, kept, logsum

FORMS = ("dense", "blockwise")
SAME = ("ignore", "positive", "negative")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Foils:
    """Wrong texts of each row: further negatives of what is on the side `x` (NegCLIP, Yuksekgonul et al. 2023).

    Attributes:
      embedding: rows of unit length, the n foils of each row.
      valid: which of them are there.
      group: what `group` is for the rows. A foil is no negative of a row that says the same.
    """

    embedding: Float[Array, "B n E"]
    valid: Bool[Array, "B n"]
    group: UInt[Array, "B n G"] | None = None


def info_nce(
    *,
    x: Float[Array, "B E"],
    y: Float[Array, "B E"],
    scale: Float[Array, ""],
    valid: Bool[Array, "B"] | None = None,
    group: Int[Array, "B *G"] | UInt[Array, "B *G"] | None = None,
    same: str = "ignore",
    label_smoothing: float = 0.0,
    hard_negative: float = 0.0,
    foils: Foils | None = None,
    form: str = "dense",
    exchange: str = "gather",
    block: int = 1024,
    axes: tuple[str, ...],
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute the symmetric InfoNCE loss over all pairs of a global batch (van den Oord et al. 2018; CLIP, figure 3).

    Args:
      x: rows of unit length, for example of videos; row i belongs to row i of `y`. Computed in float32.
      y: rows of unit length, for example of texts.
      scale: the factor on cosines (inverse temperature), > 0.
      valid: rows that take part; others are neither anchor nor negative. None = all.
      group: rows of one group (all G numbers equal) are known to mean the same, for example `text_group` of equal
        captions. None = no two rows do.
      same: what a pair of two rows of one group is: "ignore" = neither positive nor negative, "positive" = a further
        positive (the target is spread evenly over an anchor's positives: Khosla et al. 2020, eq. 2; UniCL, Yang et al.
        2022), "negative" = as any other pair.
      label_smoothing: share of the target that is spread evenly over all that the anchor is compared with, 0..1.
      hard_negative: beta >= 0 of hard-negative weighting: negatives count by exp(beta * score), with mean 1 over an
        anchor's negatives (Robinson et al. 2021, eq. 4; HN-NCE, Radenovic et al. 2023, with alpha = 1). 0 = off.
      foils: wrong texts; every row of `x` is also compared with all of these, its own and those of the other rows.
        In the dense form only.
      form: "dense" holds the scores [B,B]; "blockwise" never does (see `streaming`), the same value and gradients.
      exchange: blockwise over several devices: see `exchange.Layout`.
      block: blockwise: longest side of a tile of scores.
      axes: blockwise: mesh axes over which rows are split, of the mesh in the context (`jax.set_mesh`).

    Returns:
      The loss in nats (mean over valid rows of both directions) and the metrics `accuracy_x2y` and `accuracy_y2x`
      (share of valid rows for which a positive scores highest in the batch, 0..1; ties in expectation, see `ties`);
      with `foils` also `accuracy_foils`, the share of foils that score below their row's own text (a tie counts half).
      All NaN-free; 0 if no row is valid.

    Raises:
      UserError: an unknown name, an option out of range, fewer than two rows, or a batch that does not divide by the
        devices.
    """
    check_rows(x.shape[0], loss="InfoNCE")
    how = {"form": form, "exchange": exchange, "block": block}
    check_info_nce(same=same, label_smoothing=label_smoothing, hard_negative=hard_negative, **how)
    rule = InfoNCE(same=same, label_smoothing=label_smoothing, hard_negative=hard_negative, grouped=group is not None)
    if group is not None:
        group = group.reshape(group.shape[0], -1)
    x, y = without(x, valid=valid), without(y, valid=valid)
    scale = scale.astype(jnp.float32)
    if form == "dense":
        return dense(x=x, y=y, scale=scale, valid=valid, group=group, rule=rule, foils=foils)
    if foils is not None:
        raise UserError(f"config.loss.form={form!r} takes no foils; set config.loss.form='dense'")
    marks = {"valid": valid, "group": group}
    layout = lay_out(rows=x.shape[0], exchange=exchange, block=block, axes=axes)
    return streamed(rule, layout, x, y, scale, None, {"x": marks, "y": marks})


def check_info_nce(
    *, same: str, label_smoothing: float, hard_negative: float, form: str, exchange: str, block: int
) -> None:
    """Raise UserError, naming the field of `config.loss`, for an option that `info_nce` does not take."""
    check_options(same=same, label_smoothing=label_smoothing, form=form, exchange=exchange, block=block)
    if not 0.0 <= hard_negative < float("inf"):
        raise UserError(f"config.loss.hard_negative must be at least 0, got {hard_negative}")


def check_rows(rows: int, *, loss: str) -> None:
    """Raise UserError unless a global batch of `rows` has rows to compare with each other."""
    if rows < 2:
        raise UserError(
            f"{loss} compares the rows of a batch with each other: config.data.batch_size must be at least 2, got "
            f"{rows}; with a single row the loss is 0 whatever the model does"
        )


def check_options(*, same: str = "ignore", label_smoothing: float = 0.0, form: str, exchange: str, block: int) -> None:
    """Raise UserError, naming the field of `config.loss`, for an option that no loss takes."""
    if same not in SAME:
        raise unknown("config.loss.same_text", same, SAME)
    if form not in FORMS:
        raise unknown("config.loss.form", form, FORMS)
    if not 0.0 <= label_smoothing <= 1.0:
        raise UserError(f"config.loss.label_smoothing must be from 0 to 1, got {label_smoothing}")
    check_exchange(exchange=exchange, block=block)


def without(e: Array, *, valid: Array | None) -> Float[Array, "B E"]:
    """Return embeddings in float32 with zeros in rows that take no part, so that not even a NaN there spreads."""
    e = e.astype(jnp.float32)
    return e if valid is None else jnp.where(valid[:, None], e, 0.0)


def dense(
    *,
    x: Array,
    y: Array,
    scale: Array,
    valid: Array | None,
    group: Array | None,
    rule: "InfoNCE",
    foils: Foils | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute InfoNCE with all scores at hand: the definition that the blockwise form is tested against."""
    valid = jnp.ones(x.shape[:1], bool) if valid is None else valid
    similarity = jnp.matmul(x, y.T, precision=PRECISION)  # [B,B] rows: x, columns: y
    further = None if foils is None else (x, foils)
    return _of_similarity(similarity, scale=scale, valid=valid, group=group, rule=rule, foils=further)


def info_nce_of_similarity(
    similarity: Float[Array, "B B"],
    *,
    scale: Float[Array, ""],
    valid: Bool[Array, "B"],
    group: Int[Array, "B *G"] | UInt[Array, "B *G"] | None = None,
    same: str = "ignore",
    label_smoothing: float = 0.0,
    hard_negative: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute InfoNCE, in its dense form, of similarities that are not products of two embeddings.

    Args:
      similarity: of row i of one side, x, with row j of the other, y; for example cosines, -1..1.
      scale: as all further arguments and the result, see `info_nce`.
      valid: see there.
      group: see there.
      same: see there.
      label_smoothing: see there.
      hard_negative: see there.
    """
    rule = InfoNCE(same=same, label_smoothing=label_smoothing, hard_negative=hard_negative, grouped=group is not None)
    group = None if group is None else group.reshape(group.shape[0], -1)
    both = valid[:, None] & valid[None, :]
    similarity = jnp.where(both, similarity.astype(jnp.float32), 0.0)  # not even a NaN of other rows spreads
    return _of_similarity(similarity, scale=scale.astype(jnp.float32), valid=valid, group=group, rule=rule)


def _of_similarity(
    similarity: Array,
    *,
    scale: Array,
    valid: Array,
    group: Array | None,
    rule: "InfoNCE",
    foils: tuple[Array, Foils] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Compute InfoNCE from the similarities [B,B]; `foils` come with the rows of x."""
    taken, positive = all_pairs(valid=valid, group=group, same=rule.same)
    scores, cosines = scale * similarity, rounded(similarity)
    weight = valid.astype(jnp.float32) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    scores = jnp.where(taken, scores, FLOOR)
    loss, metrics = 0.0, {}
    wide = (scores, taken, positive)
    if foils is not None:
        x, wrong = foils
        against, real, metrics["accuracy_foils"] = _against_foils(
            x, similarity=similarity, valid=valid, group=group, foils=wrong
        )
        further = (jnp.where(real, scale * against, FLOOR), real, jnp.zeros_like(real))
        wide = tuple(jnp.concatenate(both, axis=1) for both in zip(wide, further, strict=True))
    for name, axis, (s, among, right) in (("x2y", 1, wide), ("y2x", 0, (scores, taken, positive))):
        loss += 0.5 * jnp.sum(weight * _one_way(s, axis=axis, taken=among, positive=right, rule=rule))
        hit = share_won(top_of(cosines, mask=positive, axis=axis), among=top_of(cosines, mask=taken, axis=axis))
        metrics[f"accuracy_{name}"] = jnp.sum(weight * hit)
    return loss, metrics


def _against_foils(
    x: Array, *, similarity: Array, valid: Array, group: Array | None, foils: Foils
) -> tuple[Float[Array, "B Bn"], Bool[Array, "B Bn"], Float[Array, ""]]:
    """Return the cosines of all rows with all foils, which of these pairs are negatives, and `accuracy_foils`."""
    rows, each = foils.valid.shape
    there = foils.valid & valid[:, None]  # [B,n]
    foil = without(foils.embedding.reshape(rows * each, -1), valid=there.reshape(-1))
    cosines = jnp.matmul(x, foil.T, precision=PRECISION)  # [B,Bn]
    negative = valid[:, None] & there.reshape(1, -1)
    if group is not None and foils.group is not None:
        said = foils.group.reshape(1, rows * each, -1)
        negative &= ~jnp.all(group[:, None, :] == said, axis=-1)
    own = rounded(jnp.sum(x[:, None] * foil.reshape(rows, each, -1), axis=-1))  # [B,n]
    right = rounded(jnp.diagonal(similarity))[:, None]
    won = (right > own).astype(jnp.float32) + 0.5 * (right == own).astype(jnp.float32)
    return cosines, negative, _mean(won, mask=there, axis=(0, 1))


def _one_way(s: Array, *, axis: int, taken: Array, positive: Array, rule: "InfoNCE") -> Float[Array, "B"]:
    """Cross-entropy of each anchor against its targets, which lie along `axis`."""
    eps, beta, logits = rule.label_smoothing, rule.hard_negative, s
    if beta:
        negative = taken & ~positive
        level = jax.nn.logsumexp(jnp.where(negative, beta * s, FLOOR), axis=axis, keepdims=True)
        count = jnp.sum(negative, axis=axis, keepdims=True, dtype=jnp.float32)
        logits += jnp.where(negative, beta * s - level + jnp.log(jnp.maximum(count, 1.0)), 0.0)
    # With one positive its score is the diagonal, which is much cheaper than a mean over a mask.
    right = _mean(s, mask=positive, axis=axis) if rule.many else jnp.diagonal(s)
    loss = jax.nn.logsumexp(logits, axis=axis) - (1.0 - eps) * right
    return loss - eps * _mean(s, mask=taken, axis=axis) if eps else loss


def _mean(s: Array, *, mask: Array, axis: int | tuple[int, ...]) -> Float[Array, "*B"]:
    """Mean along one or several axes where `mask` is True; 0 where it nowhere is."""
    count = jnp.sum(mask, axis=axis, dtype=jnp.float32)
    return jnp.sum(jnp.where(mask, s, 0.0), axis=axis) / jnp.maximum(count, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfoNCE:
    """The rule of InfoNCE for `streaming`; the fields are `info_nce`'s."""

    same: str
    label_smoothing: float
    hard_negative: float
    grouped: bool
    per_row: int = 1
    one_pass: bool = False

    @property
    def many(self) -> bool:
        """A row may have several positives."""
        return self.grouped and self.same == "positive"

    def statistics(self, tile: Tile, *, scores: Array, cosines: Array) -> tuple[Statistics, Statistics]:
        """Return the parts of both cross-entropies."""
        rows, cols = (self._along(tile, scores, cosines, axis=axis) for axis in (1, 0))
        return rows, cols

    def _along(self, tile: Tile, scores: Array, cosines: Array, *, axis: int) -> Statistics:
        s, beta = tile.only(scores), self.hard_negative
        tops = {"all": top_of(cosines, mask=tile.taken, axis=axis)}
        tops["own"] = top_of(cosines, mask=tile.positive, axis=axis)
        stats: Statistics = {"logsum": {}, "top": tops, "sum": {}}
        stats["sum"]["own"] = jnp.sum(jnp.where(tile.positive, s, 0.0), axis=axis)
        if self.many:
            stats["sum"]["positives"] = jnp.sum(tile.positive, axis=axis, dtype=jnp.float32)
        if self.label_smoothing:
            stats["sum"]["all"] = jnp.sum(kept(tile.taken, scores), axis=axis)
        if self.label_smoothing or beta:
            taken = jnp.ones_like(s, bool) if tile.taken is None else tile.taken
            stats["sum"]["count"] = jnp.sum(taken, axis=axis, dtype=jnp.float32)
        if beta:
            negative = jnp.where(tile.positive, FLOOR, s)
            stats["logsum"]["positives"] = logsum(jnp.where(tile.positive, s, FLOOR), axis=axis)
            stats["logsum"]["hard"] = logsum(jnp.where(negative > FLOOR, (1.0 + beta) * negative, FLOOR), axis=axis)
            stats["logsum"]["level"] = logsum(jnp.where(negative > FLOOR, beta * negative, FLOOR), axis=axis)
        else:
            stats["logsum"]["all"] = logsum(s, axis=axis)
        return stats

    def row_losses(self, rows: Statistics, cols: Statistics) -> RowLosses:
        """Return the mean of both directions."""
        ways = [self._one_way(side) for side in (rows, cols)]
        (x_loss, x_hit, x_kept), (y_loss, y_hit, y_kept) = ways
        return RowLosses(
            loss=0.5 * (x_loss + y_loss), hits={"accuracy_x2y": x_hit, "accuracy_y2x": y_hit}, rows=x_kept, cols=y_kept
        )

    def _one_way(self, stats: Statistics) -> tuple[Array, Array, dict[str, Array]]:
        eps, logsum, added = self.label_smoothing, stats["logsum"], stats["sum"]
        positives = jnp.maximum(added["positives"], 1.0) if self.many else jnp.ones_like(added["own"])
        known = {"positives": positives}
        if self.hard_negative:
            negatives = added["count"] - (positives if self.many else 1.0)
            excess = jnp.log(jnp.maximum(negatives, 1.0)) - logsum["level"]
            hard = jnp.where(negatives > 0.0, logsum["hard"] + excess, FLOOR)
            log_sum = jnp.logaddexp(logsum["positives"], hard)
            known |= {"hard": log_sum - excess, "level": logsum["level"], "share": jnp.exp(hard - log_sum)}
        else:
            log_sum = logsum["all"]
        known["log_sum"] = log_sum
        loss = log_sum - (1.0 - eps) * added["own"] / positives
        if eps:
            known["count"] = jnp.maximum(added["count"], 1.0)
            loss -= eps * added["all"] / known["count"]
        return loss, share_won(stats["top"]["own"], among=stats["top"]["all"]), known

    def score_gradient(self, tile: Tile, scores: Array) -> Float[Array, "R C"]:
        """Return half of softmax minus target, of both directions."""
        rows = {key: x[:, None] for key, x in tile.rows.items() if x.ndim == 1}
        cols = {key: x[None, :] for key, x in tile.cols.items() if x.ndim == 1}
        return 0.5 * (self._gradient_one_way(tile, scores, rows) + self._gradient_one_way(tile, scores, cols))

    def _gradient_one_way(self, tile: Tile, scores: Array, known: dict[str, Array]) -> Array:
        eps, beta = self.label_smoothing, self.hard_negative
        s = tile.only(scores)
        weight = jnp.exp(s - known["log_sum"])
        if beta:
            up = (1.0 + beta) * jnp.exp((1.0 + beta) * s - known["hard"])
            down = beta * known["share"] * jnp.exp(beta * s - known["level"])
            weight = jnp.where(tile.positive, weight, up - down)
        weight -= jnp.where(tile.positive, (1.0 - eps) / known["positives"], 0.0)
        if eps:
            weight -= eps / known["count"]
        return kept(tile.taken, weight)


def text_group(text: Int[Array, "B L"], *, mask: Bool[Array, "B L"]) -> UInt[Array, "B 2"]:
    """Hash token ids where `mask` is True: rows whose captions say the same have equal numbers.

    Two captions that differ share both numbers with a chance of 2^-64, so the [B,B] comparison of texts is not needed.
    A sum over positions of a mixed (token, position), as Zobrist's hash; the mixing is MurmurHash3's last step.
    """
    position = jnp.arange(text.shape[1], dtype=jnp.uint32)[None, :, None]
    seed = jnp.asarray([0x9E3779B9, 0x85EBCA77], jnp.uint32)[None, None, :]
    mixed = _mix(text.astype(jnp.uint32)[:, :, None] ^ _mix(position + seed))  # [B,L,2]
    return jnp.sum(jnp.where(mask[:, :, None], mixed, jnp.uint32(0)), axis=1, dtype=jnp.uint32)


def _mix(h: Array) -> Array:
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> jnp.uint32(shift))) * jnp.uint32(factor)
    return h ^ (h >> jnp.uint32(16))
