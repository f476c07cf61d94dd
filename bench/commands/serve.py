"""`twinreel bench serve`: requests/s and latencies of the server, and its batches beside a plain loop."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...base.errors import UserError
from ...base.parser import Parser
from ..measure.clients import Body, load

DESCRIPTION = """\
Measure `twinreel serve` on this machine: searches, and embeddings of texts.

  twinreel bench serve
  twinreel bench serve --index library --clients 1,8,32 --seconds 20 --json

Without --index, an index with made-up embeddings (--rows) and a small text tower with random parameters (4 layers of
width 256, 32 tokens) is written first. The server is a process of its own. Clients of this process ask again as soon as
they are answered, each time with another text, so that nothing comes from a cache:

  search   POST /api/search with a text: its embedding, the neighbours, merged hits
  encode   POST /api/encode?as=base64 with one text
  batch    POST /api/encode?as=base64 with 16 texts

Every run has p50 and p99, the server's CPU time for a request, and errors: all answers but 200. The same model embeds
texts in this process one by one, as a plain loop does, once before and once after the server's turns. `ratio` is the
server's rate of texts to that of the loop, `cpu_ratio` the loop's CPU time for a text to that of the server, which
other load on the machine does not change much. Memory is that of the server before and after all requests. Clients and
server share the processor."""
_BATCH = 16
_ADJECTIVES = (
    *("red", "green", "blue", "bright", "dark", "small", "large", "old"),
    *("new", "quiet", "loud", "fast", "slow", "tall", "round"),
)
_NOUNS = (
    *("dog", "cat", "car", "tree", "house", "boat", "street", "beach"),
    *("river", "horse", "bird", "child", "ball", "train", "kitchen"),
)


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench serve", description=DESCRIPTION)
    parser.add_argument("--index", default="", metavar="DIR", help="an index; default: a made-up one")
    parser.add_argument("--rows", type=int, default=20_000, help="moments of the made-up index")
    parser.add_argument("--clients", default="1,8,32", help="connections at a time, several numbers")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each run")
    parser.add_argument("--batch_size", type=int, default=16, help="as `serve --batch_size`")
    parser.add_json()
    args, _ = parser.parse(argv)
    try:
        clients = [int(number) for number in args.clients.split(",")]
    except ValueError as error:
        raise UserError(f"--clients is {args.clients!r}; wanted numbers such as 1,8,32") from error
    if min(clients) < 1 or max(clients) > 100 or args.seconds <= 0 or args.rows < 1:
        raise UserError("--clients must be 1 to 100, and --seconds and --rows above 0")
    given: dict[str, Any] = {"clients": clients, "seconds": args.seconds, "batch_size": args.batch_size}
    if args.index:
        result = measure(Path(args.index), **given)
    else:
        with tempfile.TemporaryDirectory() as root:
            made = Path(root) / "index"
            make_library(made, rows=args.rows)
            result = measure(made, **given)
    print(json.dumps(result)) if args.json else _print(result)
    return 0


def text(number: int) -> str:
    """Return a text; the first 10^5 numbers have different ones."""
    words, found = (_ADJECTIVES, _NOUNS), []
    for place in range(4):
        number, chosen = divmod(number, 15)
        found.append(words[place % 2][chosen])
    return f"a {found[0]} {found[1]} and a {found[2]} {found[3]} {number or ''}".strip()


def make_library(folder: Path, *, rows: int) -> None:
    """Write a small model with random parameters, and an index of made-up embeddings that names it."""
    from flax import nnx

    from ...base.section import section
    from ...data.options import InputSpec
    from ...data.text.pieces import SentencePieceTokenizer
    from ...encode.embed.encoder import Encoder
    from ...serve.index.models import opened_of
    from ...zoo.build import build
    from ...zoo.spec import ModelOptions
    from ..made.index import make_index

    tokenizer = SentencePieceTokenizer.train([text(n) for n in range(5000)], vocab_size=1000)
    options = {
        "embed_dim": 256,
        "video": {"image_size": 32, "patch": 16, "width": 32, "depth": 1, "heads": 2, "temporal_depth": 1},
        "text": {"width": 256, "depth": 4, "heads": 4},
    }
    given = InputSpec(num_frames=4, eval_video="resize_short(32)|center_crop(32)", context_length=32)
    spec = section(ModelOptions, options, name="model").spec(input=given, vocab_size=tokenizer.vocab_size)
    spec = spec.replace(tokenizer=tokenizer.to_meta())
    encoder = Encoder(spec=spec, model=build(spec, rngs=nnx.Rngs(0)))
    bundle = encoder.save(folder.parent / "model")
    make_index(folder, model=opened_of(encoder, name="made-up", source=str(bundle)).row, rows=rows)


def measure(folder: Path, *, clients: list[int], seconds: float, batch_size: int) -> dict[str, Any]:
    """Load a server of an index.

    Args:
      folder: the index.
      clients: connections of each run.
      seconds: of each run.
      batch_size: rows of the server's largest batch.

    Returns:
      JSON values: `moments`, `loop_texts_per_s` and `loop_cpu_ms` (before and after), `runs` (`path`, `clients`, what
      `clients.load` returns, and `cpu_ms` of the server for a request; of "encode" and "batch" also `texts_per_s`,
      `ratio` and `cpu_ratio`), `memory_before_mb` and `memory_after_mb`.

    Raises:
      UserError: the server does not start.
    """
    import psutil

    from ...serve.search.collection import Collection
    from ...serve.search.opened import open_for

    with Collection(folder) as collection:
        opened, moments = open_for(collection), len(collection.side("video"))
    loops = [_loop(opened, seconds=seconds)]
    runs = []
    with _server(folder, batch_size=batch_size) as (address, pid):
        for _, path, body in _WORK:  # compiles, and fills what is filled once
            load(address, path=path, body=_from(body, 10**6), clients=2, seconds=min(2.0, seconds))
        before = psutil.Process(pid).memory_info().rss / 1e6
        first = 0
        for name, path, body in _WORK:
            for count in clients:
                cpu = _cpu_s(pid)
                run = load(address, path=path, body=_from(body, first), clients=count, seconds=seconds)
                first += run["requests"] + run["errors"] + count
                run["cpu_ms"] = 1000 * (_cpu_s(pid) - cpu) / max(run["requests"], 1)
                runs.append({"path": name, "clients": count} | run)
        after = psutil.Process(pid).memory_info().rss / 1e6
    loops.append(_loop(opened, seconds=seconds))
    rate, cpu_ms = ((loops[0][i] + loops[1][i]) / 2 for i in (0, 1))
    for run in runs:
        texts = {"encode": 1, "batch": _BATCH}.get(run["path"])
        if texts is not None:
            run["texts_per_s"] = texts * run["requests_per_s"]
            run |= {"ratio": run["texts_per_s"] / rate, "cpu_ratio": cpu_ms * texts / run["cpu_ms"]}
    memory = {"memory_before_mb": before, "memory_after_mb": after}
    found = {"loop_texts_per_s": [loop[0] for loop in loops], "loop_cpu_ms": [loop[1] for loop in loops]}
    return {"moments": moments, **found, "runs": runs, **memory}


_WORK: tuple[tuple[str, str, Body], ...] = (
    ("search", "/api/search", lambda n: json.dumps({"text": text(n)}).encode()),
    ("encode", "/api/encode?as=base64", lambda n: json.dumps({"texts": [text(n)]}).encode()),
    (
        "batch",
        "/api/encode?as=base64",
        lambda n: json.dumps({"texts": [text(_BATCH * n + i) for i in range(_BATCH)]}).encode(),
    ),
)
"""Name, path and body of the requests."""


def _from(body: Body, first: int) -> Body:
    """Return the bodies of requests from number `first` on."""
    return lambda number: body(first + number)


def _cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, in seconds."""
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _loop(opened: Any, *, seconds: float) -> tuple[float, float]:
    """Return how many texts a second a plain loop embeds, and the CPU time for a text in milliseconds."""
    opened.encoder.encode_text([text(0)])
    begun, cpu, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begun < seconds:
        opened.encoder.encode_text([text(done)])
        done += 1
    return done / (time.perf_counter() - begun), 1000 * (time.process_time() - cpu) / done


@contextmanager
def _server(folder: Path, *, batch_size: int) -> Iterator[tuple[str, int]]:
    """Start `twinreel serve`; yields its address and the number of its process."""
    flags = ["--port", "0", "--rate", str(10**9), "--batch_size", str(batch_size)]
    package = (__package__ or "").split(".")[0]
    command = [sys.executable, "-m", package, "serve", str(folder), *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("http://"):
                yield line.split()[0], process.pid
                return
        raise UserError(f"the server does not start: {''.join(said)[-2000:]}")
    finally:
        process.terminate()
        process.communicate()


def _print(result: dict[str, Any]) -> None:
    loops = ", ".join(
        f"{rate:.0f} texts/s ({cpu:.1f} ms of CPU time a text)"
        for rate, cpu in zip(result["loop_texts_per_s"], result["loop_cpu_ms"], strict=True)
    )
    print(f"{result['moments']:,} moments; plain loop {loops}")
    for run in result["runs"]:
        texts = ""
        if "ratio" in run:
            texts = (
                f", {run['texts_per_s']:.0f} texts/s ({run['ratio']:.2f} x loop; {run['cpu_ratio']:.2f} by CPU time)"
            )
        print(
            f"{run['path']:<7} {run['clients']:>3} clients: {run['requests_per_s']:8.1f} requests/s, p50 "
            f"{run['p50_ms']:7.1f} ms, p99 {run['p99_ms']:7.1f} ms, CPU time {run['cpu_ms']:6.1f} ms, {run['errors']} "
            f"errors, {run['requests']} answers{texts}"
        )
    print(f"memory of the server: {result['memory_before_mb']:.0f} MB before, {result['memory_after_mb']:.0f} MB after")
