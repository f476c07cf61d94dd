"""What a report states about the split that it measures: its source, its subset, and whether it fits the model."""

import json
import sys
from typing import TYPE_CHECKING, Any

from ...data.batches.mismatch import record_mismatches
from ..protocols.retrieval import name_test_set

if TYPE_CHECKING:
    from ...data.batches.records import Records
    from ...encode.embed.encoder import Encoder


def describe_split(encoder: "Encoder", *, records: "Records", split: str) -> dict[str, Any]:
    """Return what a report's protocol states about a split; warnings go to standard error, too.

    Args:
      encoder: the model, for the options that the records were prepared with.
      records: the opened folder.
      split: which split; of one that does not exist nothing is known.

    Returns:
      `source_sha256`, `warnings`, and `benchmark` and `subset_id` as `name_test_set`.
    """
    rows = records.rows(split) if split in records.splits else []
    warnings = record_mismatches(
        trained=encoder.input.decode,
        prepared=records.options,
        rows=rows,
        num_frames=encoder.input.num_frames,
        sound=encoder.input.audio_seconds > 0,
    )
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    prepared = json.loads((records.folder / "prepare.json").read_text())
    about = {"source_sha256": prepared.get("source_sha256"), "warnings": warnings}
    return about | name_test_set(prepared, rows=list(rows))
