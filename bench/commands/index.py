"""`twinreel bench index`: what it costs to open a prepared folder of very many clips."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ...base.parser import Parser

DESCRIPTION = """\
Measure how long it takes to open a prepared folder of very many clips, and how much memory.

  twinreel bench index
  twinreel bench index --rows 1000000000 --dir /scratch --json

A folder is made up: its files have the sizes that they would have, but are empty (sparse: they take no room on the
disk). A process of its own opens it and builds the order of a run, then looks up the rows of global batches. `open_s`
and `open_mb` are what opening and ordering add to a process that has loaded tensorflow; `batch_ms` is the time to find
the records of a global batch and what the index knows of them.
"""
_SHARD = 1024  # clips
_LINE, _FRAMES = 600, 80  # bytes of a line of clips.jsonl, frames of a clip


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench index", description=DESCRIPTION)
    parser.add_argument("--rows", type=int, default=100_000_000, help="clips of the folder")
    parser.add_argument("--batch_size", type=int, default=32_768, help="rows of a global batch")
    parser.add_argument("--order", default="blocks", choices=("records", "blocks"), help="as config.data.order")
    parser.add_argument("--dir", default="", help="existing folder for the files; by default that of temporary files")
    parser.add_json()
    args, _ = parser.parse(argv)
    if args.rows < args.batch_size:
        raise UserError(f"--rows={args.rows} must be at least --batch_size={args.batch_size}")
    result = measure(rows=args.rows, batch_size=args.batch_size, order=args.order, folder=args.dir)
    if args.json:
        print(json.dumps(result))
        return 0
    print(
        f"{result['rows']:,} clips in {result['shards']:,} shards, order {result['order']}: opened in "
        f"{result['open_s']:.2f} s with {result['open_mb']:.0f} MB; batch of {result['batch_size']:,}: "
        f"{result['batch_ms']:.1f} ms, batch number 10^9: {result['far_batch_ms']:.1f} ms"
    )
    return 0


def measure(*, rows: int, batch_size: int, order: str, folder: str = "") -> dict[str, Any]:
    """Make the folder up, and open it in a process of its own.

    Args:
      rows: clips.
      batch_size: rows of a global batch.
      order: `config.data.order`.
      folder: existing folder for the files; "" = that of temporary files.

    Returns:
      JSON values: `open_s`, `open_mb` (1e6 bytes), `batch_ms`, `far_batch_ms` (of batch 10^9), and the settings.

    Raises:
      UserError: the folder cannot be opened.
    """
    with tempfile.TemporaryDirectory(dir=folder or None) as root:
        home = Path(root) / "data"
        shards = make_up(home, rows=rows)
        given = json.dumps({"folder": str(home), "batch_size": batch_size, "order": order})
        command = [sys.executable, "-c", f"from {__package__}.index import opened; opened({given!r})"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise UserError(f"the process that opens the folder has failed ({done.returncode}); what it says is above")
    made = json.loads(done.stdout.splitlines()[-1])
    return made | {"rows": rows, "shards": shards, "batch_size": batch_size, "order": order}


def make_up(folder: Path, *, rows: int) -> int:
    """Make a prepared folder of empty files; return how many shards it has."""
    from ...data.index.columns import HEADER, KEYS, ROW, Summary, header
    from ...data.index.parts import FRAME
    from ...data.layout import FORMAT, INDEX, NAME, RECORDS_VERSION

    lengths = [min(_SHARD, rows - begin) for begin in range(0, rows, _SHARD)]
    home, index = folder / NAME / RECORDS_VERSION, folder / INDEX
    home.mkdir(parents=True)
    index.mkdir()
    names = [f"{NAME}-train.array_record-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))]
    for name in names:
        (home / name).touch()
    for name, dtype, count in (("rows", ROW, rows), ("captions", KEYS, 2 * rows), ("frames", FRAME, _FRAMES * rows)):
        with (index / f"train.{name}.npy").open("wb") as file:
            file.write(header(dtype, count=count))
            file.truncate(HEADER + count * dtype.itemsize)
    with (folder / "clips.jsonl").open("wb") as file:
        file.truncate(_LINE * rows)
    summary = Summary(rows=rows, clips_bytes=_LINE * rows, sizes={(256, 456): 0}, parts=True)
    summary.num_frames[_FRAMES] = rows
    (index / "train.json").write_text(json.dumps(summary.to_json()))
    features = {key: {} for key in ("frames", "timestamps_s", "height", "width", "audio", "has_audio")}
    (home / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    splits = {"splits": [{"name": "train", "shardLengths": [str(n) for n in lengths]}]}
    (home / "dataset_info.json").write_text(json.dumps(splits))
    listed = [
        {"name": name, "split": "train", "records": n, "bytes": 0, "sha256": "0" * 64, "notes": {}}
        for name, n in zip(names, lengths, strict=True)
    ]
    prepared = {"version": FORMAT, "options": {}, "shards": listed, "counts": {"train": {"clips": rows}}}
    (folder / "prepare.json").write_text(json.dumps(prepared))
    return len(lengths)


def opened(given: str) -> None:
    """Open a folder and print the figures: what the process of `measure` runs."""
    import numpy as np
    import psutil

    from ...data.batches.run_order import make_run_order
    from ...data.batches.source import open_sources
    from ...data.options import DataOptions

    asked = json.loads(given)
    data = DataOptions.of({"dir": asked["folder"], "batch_size": asked["batch_size"], "order": asked["order"]})
    memory, begin = psutil.Process().memory_info().rss, time.perf_counter()
    sources = open_sources(data)
    order = make_run_order(data, sources=sources, seed=0, process_count=1, only=None)
    result: dict[str, Any] = {"open_s": time.perf_counter() - begin}
    result["open_mb"] = (psutil.Process().memory_info().rss - memory) / 1e6
    for name, first in (("batch_ms", 0), ("far_batch_ms", 10**9)):
        times = []
        for k in range(first, first + 5):
            begin = time.perf_counter()
            rows = order.rows(k)
            sources[0].rows.keys(rows.record, captions=np.zeros(len(rows.record), np.int64))
            times.append(1000 * (time.perf_counter() - begin))
        result[name] = sorted(times)[2]
    print(json.dumps(result))
