"""Opened splits of prepared folders, as `config.data` names them."""

from collections.abc import Mapping

from ...base.errors import UserError, unknown
from ..options import DataOptions
from .records import Records


class Source:
    """An opened split of a prepared folder.

    Attributes:
      name: of the source, for messages.
      records: the folder.
      split: the split's name.
      rows: what is known of its records.
    """

    def __init__(
        self, folder: str, *, split: str, field: str, data: DataOptions, name: str = "", records: Records | None = None
    ):
        """Open, unless `records` has the folder open; of a folder behind a URL no shard is fetched for it.

        Raises:
          UserError: the folder cannot be opened, or has no such split; `field` names the config field of the split.
        """
        self.records = records or Records(folder, cache_dir=data.feed.cache_dir, cache_gb=data.feed.cache_gb)
        self.name = name or self.records.folder.name
        if split not in self.records.splits:
            raise unknown(f"split ({field}) in {folder!r}:", split, self.records.splits)
        self.split = split
        self.rows = self.records.rows(split)


def open_sources(data: DataOptions) -> list[Source]:
    """Open what `config.data` trains on: the folder `dir`, or those of the mixture.

    Raises:
      UserError: neither or a fault in one of them; a field of a source that does not exist.
    """
    if not data.feed.mixture:
        if not data.feed.dir:
            raise UserError("config.data.dir is empty; set it to a folder that `twinreel prepare` made (--data DIR)")
        return [Source(data.feed.dir, split=data.feed.train_split, field="config.data.train_split", data=data)]
    found = []
    for name, given in data.feed.mixture.items():
        where = f"config.data.mixture.{name}"
        for key in given if isinstance(given, Mapping) else ():
            if key not in ("dir", "weight", "split"):
                raise unknown(f"field of {where}", key, ("dir", "weight", "split"))
        if not isinstance(given, Mapping) or not given.get("dir"):
            raise UserError(f'{where} is {given!r}, wanted a section with dir, as {{"dir": "data/{name}"}}')
        found.append(
            Source(
                given["dir"],
                split=given.get("split", data.feed.train_split),
                field=f"{where}.split",
                data=data,
                name=name,
            )
        )
    return found


def read_in_parts(source: Source, *, data: DataOptions, ahead: bool) -> bool:
    """Return whether of each record only the drawn frames are fetched.

    Args:
      source: an opened split.
      data: `config.data`; `fetch` says what is wanted.
      ahead: whether whole shards would be fetched ahead, block by block; else all of them at once.

    Raises:
      UserError: it is asked for, but precomputed features are, too, or it is not known where the frames lie.
    """
    feed, summary = data.feed, source.rows.summary
    if source.records.url and feed.fetch == "frames" and feed.features:
        raise UserError(
            "config.data.fetch='frames' fetches frames and sound alone, but "
            f"config.data.features={dict(feed.features)} wants precomputed features; set config.data.fetch='shards'"
        )
    if not source.records.url or feed.fetch == "shards" or feed.features or not data.input.num_frames:
        return False
    if feed.fetch == "frames":
        if not summary.parts:
            raise UserError(
                f"config.data.fetch='frames' needs to know where the frames of {source.records.url!r} lie, which this "
                "folder does not say; run `twinreel prepare` again, or set config.data.fetch='shards'"
            )
        return True
    stored = sum(frames * clips for frames, clips in summary.num_frames.items())
    # A frame within a segment brings those ahead of it, half of the others on average.
    most = data.input.num_frames * (source.records.segment + 1) / 2
    drawn = sum(min(frames, most) * clips for frames, clips in summary.num_frames.items())
    return ahead and summary.parts and 2 * drawn < stored
