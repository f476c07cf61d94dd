"""`twinreel bench search`: searches of a large made-up index: time to build, memory, recall, latency."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ...base.errors import UserError
from ...base.parser import Parser

DESCRIPTION = """\
Measure searches of a large index with made-up embeddings.

  twinreel bench search --rows 1000000 --ann ivfpq
  twinreel bench search --rows 1000000 --ann hnsw --dir /scratch --keep --json

Embeddings are drawn from a mixture of Gaussians in few directions (bench/made/index.py). Several processes then open
the index and answer the same queries: `--processes` at a time, as servers do that share an index. p50 and p99 are those
of a whole search (neighbours, scoring with full embeddings, merging per file), in wall time and in CPU time, which
other load on the machine does not change much; recall@10 is that of the ten nearest moments beside a brute-force count.
Memory of a process: `rss` is all that it has mapped, `own` (USS) what it shares with nobody, `share` (PSS) counts
shared pages once over all processes.

With --dir and --keep, the index stays and the next run with the same --rows, --width and --ann uses it again."""
_LIMIT = 10  # neighbours of recall@10
_BLOCK = 65_536


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench search", description=DESCRIPTION)
    parser.add_argument("--rows", type=int, default=1_000_000, help="moments")
    parser.add_argument("--width", type=int, default=512, help="of the embeddings")
    parser.add_argument("--ann", default="hnsw", choices=("flat", "hnsw", "ivfpq"), help="as `index --ann`")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--processes", type=int, default=2, help="that search at a time")
    parser.add_argument("--dir", default="", help="existing folder for the index; by default that of temporary files")
    parser.add_argument("--keep", action="store_true", help="do not delete the index")
    parser.add_json()
    args, _ = parser.parse(argv)
    if min(args.rows, args.width, args.queries, args.processes) < 1 or (args.keep and not args.dir):
        raise UserError("--rows, --width, --queries and --processes must be at least 1, and --keep needs --dir")
    given: dict[str, Any] = {name: getattr(args, name) for name in ("rows", "width", "ann", "queries", "processes")}
    if args.keep:
        folder = Path(args.dir) / f"search-{args.rows}-{args.width}-{args.ann}"
        result = measure(folder, **given, progress=not args.json)
    else:
        with tempfile.TemporaryDirectory(dir=args.dir or None) as root:
            result = measure(Path(root) / "index", **given, progress=not args.json)
    print(json.dumps(result)) if args.json else _print(result)
    return 0


def measure(
    folder: Path, *, rows: int, width: int, ann: str, queries: int, processes: int, progress: bool = False
) -> dict[str, Any]:
    """Make the index up unless it is there, and search it.

    Args:
      folder: of the index.
      rows: moments.
      width: E.
      ann: "flat", "hnsw" or "ivfpq".
      queries: how many.
      processes: that search at a time.
      progress: draw a progress bar on standard error while building.

    Returns:
      JSON values: the arguments; `write_s`, `build_s` and `build_cpu_s` (None where the index was there), `vectors_mb`
      and `index_mb` on disk (1e6 bytes), `recall_at_10`, `processes`: for each `p50_ms`, `p99_ms`, `p50_cpu_ms`,
      `p99_cpu_ms`, `rss_mb`, `own_mb`, `share_mb`.

    Raises:
      UserError: FAISS is missing, or a process fails.
    """
    from ...serve.index import database
    from ...serve.index.database import ModelRow
    from ..made.index import Embeddings, make_index

    result: dict[str, Any] = {"rows": rows, "width": width, "ann": ann, "queries": queries}
    result |= {"write_s": None, "build_s": None, "build_cpu_s": None}
    if not database.exists(folder):
        begun = time.perf_counter()
        model = ModelRow(id=0, name="made-up", source="made-up", weights="made-up", width=width, sides=("video",))
        make_index(folder, model=model, rows=rows)
        result["write_s"] = time.perf_counter() - begun
        result["build_s"], result["build_cpu_s"] = _build(folder, ann=ann, progress=progress)
    files = {path.suffix: path.stat().st_size / 1e6 for path in (folder / "vectors").iterdir()}
    result |= {"vectors_mb": files[".f32"], "index_mb": files.get(".faiss", 0.0)}
    asked = Embeddings(width=width).queries(queries)
    found = _processes(folder, asked, count=processes)
    right = _nearest(folder, asked, rows=rows)
    hits = [len(set(own) & set(true)) / len(true) for own, true in zip(found[0].pop("moments"), right, strict=True)]
    for one in found[1:]:
        one.pop("moments")
    return result | {"recall_at_10": float(np.mean(hits)), "search": found[0]["search"], "processes": found}


def _build(folder: Path, *, ann: str, progress: bool) -> tuple[float, float]:
    """Build the approximate index; return the seconds, and those of the processor."""
    from ...serve.index.approximate import build_approximate
    from ...serve.index.database import Settings, model_named
    from ...serve.index.store import Store

    begun, cpu = time.perf_counter(), time.process_time()
    with Store(folder, settings=Settings()) as store:
        build_approximate(store, model=model_named(store.connection, "", folder=folder), kind=ann, progress=progress)
    return time.perf_counter() - begun, time.process_time() - cpu


def _nearest(folder: Path, queries: np.ndarray, *, rows: int) -> list[list[int]]:
    """Return the ids of the nearest moments of each query, by counting all."""
    (path,) = (folder / "vectors").glob("*.f32")
    vectors = np.memmap(path, "<f4", "r", shape=(rows, queries.shape[1]))
    best, top = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for start in range(0, rows, _BLOCK):
        scores = queries @ vectors[start : start + _BLOCK].T
        places = np.argpartition(-scores, min(_LIMIT, scores.shape[1]) - 1, axis=1)[:, :_LIMIT]
        top = np.concatenate([top, np.take_along_axis(scores, places, axis=1)], axis=1)
        best = np.concatenate([best, start + places], axis=1)
        order = np.argsort(-top, axis=1)[:, :_LIMIT]
        top, best = np.take_along_axis(top, order, axis=1), np.take_along_axis(best, order, axis=1)
    return (best + 1).tolist()  # ids of moments begin at 1


def _processes(folder: Path, queries: np.ndarray, *, count: int) -> list[dict[str, Any]]:
    """Let processes search at the same time; return what they measured, and their memory while all are there."""
    import psutil

    with tempfile.TemporaryDirectory() as root:
        np.save(Path(root) / "queries.npy", queries)
        given = json.dumps({"folder": str(folder), "queries": str(Path(root) / "queries.npy")})
        command = [sys.executable, "-c", f"from {__package__}.search import searched; searched({given!r})"]
        running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        found = []
        for process in running:
            assert process.stdout is not None
            line = process.stdout.readline()
            found.append(json.loads(line) if line else {})
        for process, one in zip(running, found, strict=True):
            if one:
                memory: Any = psutil.Process(process.pid).memory_full_info()
                one |= {"rss_mb": memory.rss / 1e6, "own_mb": memory.uss / 1e6, "share_mb": memory.pss / 1e6}
        for process in running:
            process.communicate("end\n")
    if not all(found):
        raise UserError("a process that searches has failed; what it says is above")
    return found


def searched(given: str) -> None:
    """Answer queries and print the figures, then wait for a line: what the processes of `measure` run."""
    from ...serve.search.collection import Collection
    from ...serve.search.engine import SearchOptions, search
    from ...serve.search.filters import Filters
    from ...serve.search.query import Term, Wanted

    asked = json.loads(given)
    queries = np.load(asked["queries"])
    seconds: list[tuple[float, float]] = []
    moments: list[list[int]] = []
    with Collection(Path(asked["folder"])) as collection:
        side = collection.side("video")
        for number, query in enumerate([*queries[:3], *queries]):  # the first three warm up
            wanted = [Wanted(term=Term(kind="text", value=str(number)), vectors=query[None])]
            begun, cpu = time.perf_counter(), time.process_time()
            search(collection, wanted, filters=Filters(), options=SearchOptions())
            seconds.append((time.perf_counter() - begun, time.process_time() - cpu))
            places = side.nearest(query[None], count=256)
            order = np.argsort(-side.scores(query[None], places=places), kind="stable")[:_LIMIT]
            moments.append(side.moments[places[order]].tolist())
        p50, p99 = (1000 * np.percentile(seconds[3:], q, axis=0) for q in (50, 99))
        times = {"p50_ms": p50[0], "p99_ms": p99[0], "p50_cpu_ms": p50[1], "p99_cpu_ms": p99[1]}
        print(json.dumps(times | {"search": side.kind, "moments": moments[3:]}), flush=True)
        sys.stdin.readline()


def _print(result: dict[str, Any]) -> None:
    made = ""
    if result["build_s"] is not None:
        made = (
            f"; written in {result['write_s']:.0f} s, built in {result['build_s']:.0f} s "
            f"({result['build_cpu_s']:.0f} s of CPU time)"
        )
    print(
        f"{result['rows']:,} moments of width {result['width']}, {result['search']}{made}; vectors "
        f"{result['vectors_mb']:,.0f} MB, index {result['index_mb']:,.0f} MB"
    )
    print(f"recall@10 {result['recall_at_10']:.4f} of {result['queries']} queries")
    for number, one in enumerate(result["processes"]):
        print(
            f"process {number}: p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms (CPU time "
            f"{one['p50_cpu_ms']:.1f}, {one['p99_cpu_ms']:.1f}); memory {one['rss_mb']:,.0f} MB, its own "
            f"{one['own_mb']:,.0f} MB, its share {one['share_mb']:,.0f} MB"
        )
