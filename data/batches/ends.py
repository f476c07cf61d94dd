"""Whether the data can be read, before anything waits for them."""

from ..options import DataOptions
from .source import open_sources


def read_ends(data: DataOptions) -> None:
    """Read the first and the last record of every source of `config.data`; nothing else is fetched from behind a URL.

    Raises:
      UserError: a source cannot be opened, or one of these records cannot be read.
    """
    for source in open_sources(data):
        source.records.read(source.split, [0, len(source.rows) - 1] if len(source.rows) else [])
