"""The order of a run: over all records, or over blocks of shards, as `config.data.order` says."""

import functools
from collections.abc import Sequence

import numpy as np

from ...base.errors import UserError
from ..options import DataOptions
from .block_order import BlockOrder, Shards, make_block_order
from .blocks import same_shard, shard_ends
from .mixture import shares
from .order import NO_GROUP, Order, make_order, unit_table
from .source import Source, read_in_parts

_TABLES = 4096  # shards whose table of units is remembered
_BLOCKS = 3  # of which a process keeps the shards: the one before, the one at hand, the next


def make_run_order(
    data: DataOptions, *, sources: Sequence[Source], seed: int, process_count: int, only: np.ndarray | None
) -> Order | BlockOrder:
    """Build the order of the rows of one or several sources.

    Args:
      data: `config.data`.
      sources: opened.
      seed: of the run.
      process_count: P.
      only: int [m], the records that take part, where not all do (one source).

    Raises:
      UserError: see `order.make_order`; with the order over blocks, a cache that is too small.
    """
    if only is not None and len(sources) > 1:
        raise UserError("`only` chooses records of one source; config.data.mixture names several")
    chosen = None if only is None else np.asarray(only, np.int64)
    sizes = {source.name: len(source.rows) if chosen is None else len(chosen) for source in sources}
    weights = {name: data.feed.mixture[name].get("weight") if data.feed.mixture else None for name in sizes}
    given = {
        "shares": shares(sizes, weights=weights, temperature=data.feed.temperature),
        "group_size": data.feed.group_size,
        "batch_size": data.feed.batch_size,
        "seed": seed,
        "mix_by": data.feed.mix_by,
        "process_count": process_count,
    }
    if data.feed.order == "records" or (data.feed.order == "auto" and not any(s.records.url for s in sources)):
        groups = {source.name: _groups(source, grouped=data.feed.group_size > 1) for source in sources}
        if chosen is not None:
            groups = {name: members[chosen] for name, members in groups.items()}
        return make_order(groups, **given)
    if chosen is not None and (np.diff(chosen) <= 0).any():
        raise UserError(
            f"config.data.order={data.feed.order!r} goes over blocks here, where each record comes once in an epoch, "
            "but some clips have several examples (or are repeated); set config.data.order='records'"
        )
    shards = {source.name: _shards(source, only=chosen, group_size=data.feed.group_size) for source in sources}
    order = make_block_order(shards, **given, block_shards=data.feed.block_shards)
    _check_cache(order, sources, data=data, process_count=process_count)
    return order


def describe(order: Order | BlockOrder, *, sources: Sequence[Source]) -> str:
    """Return a line or two about an order, for the start of a run."""
    if isinstance(order, Order):
        units = sum(len(units) for units in order.units)
        return f"order: {units:,} {'records' if order.units[0].shape[1] == 1 else 'units'} permuted in each epoch"
    one = max(order.sources.values(), key=lambda blocks: len(blocks.ends))
    shards, width = len(one.ends), max(1, round(len(one.ends) / (one.lanes * one.blocks)))
    odds = 1 / same_shard(shards=shards, lanes=one.lanes, block_shards=width)
    lines = [
        f"order: over blocks, {one.lanes} lane{'s' * (one.lanes > 1)} of {one.blocks} blocks of about {width} of "
        f"{shards:,} shards; two rows of a batch are of one shard once in {odds:,.0f} (permuted as a whole: {shards:,})"
    ]
    for source in sources if one.group_size > 1 else ():
        if torn := source.rows.summary.torn:
            lines.append(
                f"warning: {torn:,} of the {source.rows.summary.groups:,} groups of {source.name!r} have clips in "
                "several shards, which do not stay together; list the clips of a group one after another and prepare "
                "them again, or set config.data.order='records'"
            )
    return "\n".join(lines)


def _groups(source: Source, *, grouped: bool) -> np.ndarray:
    """Return the key of each record's group, uint64 [n], 0 = none; where groups do not count, nothing is looked up."""
    return source.rows.column("group") if grouped else np.broadcast_to(NO_GROUP, len(source.rows))


def _shards(source: Source, *, only: np.ndarray | None, group_size: int) -> Shards:
    ends, numbers = shard_ends(source.records.shard_ends(source.split), only=only)
    begins = ends - np.diff(ends, prepend=0)

    @functools.lru_cache(maxsize=_TABLES)
    def units_of(shard: int) -> np.ndarray:
        records = np.arange(begins[shard], ends[shard])
        rows = source.rows.rows(records if only is None else only[records])
        return unit_table(rows["group"], group_size=group_size)

    return Shards(ends, units_of, numbers)


def _check_cache(order: BlockOrder, sources: Sequence[Source], *, data: DataOptions, process_count: int) -> None:
    """Refuse a cache in which the blocks that a process keeps have no room."""
    limit, lanes = data.feed.cache_gb, -(-order.lanes // process_count)
    both = zip(sources, order.sources.values(), strict=True)
    whole = [(source, blocks) for source, blocks in both if not read_in_parts(source, data=data, ahead=True)]
    far = [(source, blocks) for source, blocks in whole if source.records.url]
    if not limit or not far:
        return
    need = 0.0
    for source, blocks in far:
        of_block = len(blocks.ends) / (blocks.lanes * blocks.blocks) + 1
        need += min(_BLOCKS * lanes * of_block, len(blocks.ends)) * source.records.shard_bytes(source.split) / 1e9
    if need > limit:
        raise UserError(
            f"config.data.cache_gb={limit:g} is too small for the order over blocks: a process keeps {_BLOCKS} blocks "
            f"of each of its {lanes} lanes, about {need:.3g} GB; raise it, lower config.data.block_shards (now "
            f"{data.feed.block_shards}), or set config.data.fetch='frames', which keeps none"
        )
