"""`twinreel bench remote`: the rate of the input where the data lies behind a URL, and what goes over the network."""

import itertools
import json
import tempfile
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from ...base.errors import UserError
from ...base.parser import Parser

DESCRIPTION = """\
Measure the training input of a prepared folder behind a URL, with each value of config.data.fetch.

  twinreel bench remote --data s3://bucket/prepared
  twinreel bench remote --data s3://bucket/prepared --beside data/prepared --process_count 64 --json

Prints clips/s, megabytes and requests per clip. With --beside, a local copy is measured in the same order.
Shards are fetched into a folder for temporary files, which is empty at the start; the blocks that are fetched ahead
count, so measure over many batches.
"""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench remote", description=DESCRIPTION)
    parser.add_argument("--data", required=True, metavar="URL", help="a folder that `twinreel prepare` made")
    parser.add_argument("--beside", default="", metavar="DIR", help="the same folder on a local disk")
    parser.add_argument("--split", default="train", help="split to read")
    parser.add_argument("--num_frames", type=int, default=8, help="frames of a clip")
    parser.add_argument("--batch_size", type=int, default=64, help="clips of a global batch")
    parser.add_argument("--process_count", type=int, default=1, help="processes between which a batch is divided")
    parser.add_argument("--size", type=int, default=224, help="pixels of the crop")
    parser.add_argument("--batches", type=int, default=50, help="batches of a measurement")
    parser.add_json()
    args, _ = parser.parse(argv)
    if args.batches < 1:
        raise UserError(f"--batches must be at least 1, got {args.batches}")
    fields = vars(args)
    as_json = fields.pop("json")
    rows = measure(fields.pop("data"), **fields)
    print(json.dumps(rows)) if as_json else _print(rows)
    return 0


def measure(
    url: str,
    *,
    beside: str = "",
    split: str = "train",
    num_frames: int = 8,
    batch_size: int = 64,
    process_count: int = 1,
    size: int = 224,
    batches: int = 50,
) -> list[dict[str, Any]]:
    """Measure the input from a URL.

    Args:
      url: a prepared folder.
      beside: the same folder on a local disk; "" = none.
      split: its split to read.
      num_frames: frames T of a clip.
      batch_size: clips of a global batch.
      process_count: P; the rows of the first process are read.
      size: pixels of the crop.
      batches: batches of a measurement.

    Returns:
      For each way: `fetch` ("local" for the local folder), `clips_per_s`, `mb_per_clip` (1e6 bytes),
      `requests_per_clip`.

    Raises:
      UserError: a fault in the folder or the options.
    """
    from ...data.options import DataOptions

    given = {"batch_size": batch_size, "num_frames": num_frames, "train_split": split, "order": "blocks"}
    given |= {"train_video": f"random_crop({size})", "eval_video": f"center_crop({size})", "tokenizer": "train"}
    ways = [(url, "shards"), (url, "frames"), *([(beside, "local")] if beside else [])]
    rows = []
    for folder, way in ways:
        with tempfile.TemporaryDirectory() as cache:
            fetch = "auto" if way == "local" else way
            data = DataOptions.of(given | {"dir": folder, "fetch": fetch, "cache_dir": cache})
            rows.append({"fetch": way} | _measured(data, process_count=process_count, batches=batches))
    return rows


def _measured(data: Any, *, process_count: int, batches: int) -> dict[str, float]:
    from ...data import remote
    from ...data.batches.pipeline import make_tokenizer, train_batches

    tokenizer = make_tokenizer(data)
    stream = train_batches(data, tokenizer=tokenizer, seed=0, start_step=0, process_count=process_count)
    before, begin = remote.TRAFFIC.copy(), time.perf_counter()
    clips = sum(len(batch["valid"]) for batch in itertools.islice(stream, batches))
    seconds, after = time.perf_counter() - begin, remote.TRAFFIC.copy()
    stream.close()
    return {
        "clips_per_s": clips / seconds,
        "mb_per_clip": (after["bytes"] - before["bytes"]) / 1e6 / clips,
        "requests_per_clip": (after["requests"] - before["requests"]) / clips,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    table = Table("fetch", "clips/s", "MB/clip", "requests/clip")
    for row in rows:
        figures = (row["clips_per_s"], row["mb_per_clip"], row["requests_per_clip"])
        table.add_row(row["fetch"], *(f"{figure:,.3g}" for figure in figures))
    Console().print(table)
