"""What prepared folders hold, wherever they lie: a run compares it with what it began with."""

import hashlib
from collections.abc import Mapping
from typing import Any

from ..options import FeedOptions
from ..paths import PathLike
from .records import read_prepared
from .shards_cache import Mirror

_DIGITS = 12  # hex digits of a hash that are kept


def contents(feed: FeedOptions) -> dict[str, dict[str, Any]]:
    """Return the content of every prepared folder that `config.data` names.

    Returns:
      Config field ("data.dir", "data.mixture.NAME.dir") -> see `content_of`.

    Raises:
      UserError: a folder is none that is prepared.
    """
    folders = {"data.dir": feed.dir} if feed.dir else {}
    for name, source in feed.mixture.items():
        if isinstance(source, Mapping) and source.get("dir"):  # what is wrong with others, `open_sources` reports
            folders[f"data.mixture.{name}.dir"] = source["dir"]
    cache = {"cache_dir": feed.cache_dir, "cache_gb": feed.cache_gb}
    return {field: content_of(folder, **cache) for field, folder in folders.items()}


def content_of(folder: PathLike, *, cache_dir: str = "", cache_gb: float = 0.0) -> dict[str, Any]:
    """Return what a prepared folder holds: how it was prepared and from what, how many clips, a hash of the records.

    Args:
      folder: one that `Records` opens.
      cache_dir: as there.
      cache_gb: as there.

    Returns:
      JSON values: `kind` ("data set"), `source_sha256` and `records_sha256` (their first hex digits), `clips` by split,
      and every option of `prepare`.

    Raises:
      UserError: it is no prepared folder.
    """
    prepared = read_prepared(Mirror(folder, cache_dir=cache_dir, cache_gb=cache_gb).folder)
    records = hashlib.sha256("".join(shard["sha256"] for shard in prepared["shards"]).encode()).hexdigest()
    return {
        **prepared["options"],
        "kind": "data set",
        "source_sha256": prepared["source_sha256"][:_DIGITS],
        "records_sha256": records[:_DIGITS],
        "clips": {split: count["clips"] for split, count in prepared["counts"].items()},
    }
