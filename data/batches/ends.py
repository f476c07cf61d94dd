"""Whether the data can be read, before anything waits for them."""

import numpy as np

from ..options import DataOptions
from .partial import PartialRecord, damaged, read_partial
from .source import open_sources, read_in_parts


def read_ends(data: DataOptions) -> None:
    """Read the first and the last record of every source of `config.data`; nothing else is fetched from behind a URL.

    Raises:
      UserError: a source cannot be opened, or one of these records cannot be read.
    """
    for source in open_sources(data):
        ends = [0, len(source.rows) - 1] if len(source.rows) else []
        if not read_in_parts(source, data=data, ahead=data.feed.order != "records"):
            source.records.read(source.split, ends)
            continue
        rows = source.rows.rows(np.array(ends, np.int64))
        urls = [source.records.shard_url(source.split, index=record) for record in ends]
        parts = [
            PartialRecord(url, row=row, frames=source.rows.frames(record), segment=source.records.segment)
            for url, row, record in zip(urls, rows, ends, strict=True)
        ]
        read_partial(parts, frames=[[0]] * len(parts), sound=False)
        for part in parts:
            if part.bad:
                raise damaged(part)
