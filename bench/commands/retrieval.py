"""`twinreel bench retrieval`: pairs/s of the scorer of large sets, beside bare matrix products of the same tiles."""

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from ...base.errors import UserError
from ...base.parser import Parser
from ..measure.peak import peak_since, start_of_peak

DESCRIPTION = """\
Measure how fast ranks are counted, in both directions, on random embeddings.

  twinreel bench retrieval
  twinreel bench retrieval --queries 16384 --gallery 131072 --dim 768 --devices 2 --json

Prints pairs/s of the whole count (rows checked and normalised, tiles scored and compared, open pairs decided exactly),
of its tiles alone, and of bare matrix products of the same tiles in float32 on the same devices. These take turns, so
that other load affects all alike; ratios are medians over rounds of the ratio within a round, by wall time and by CPU
time of all threads. Preparing a row takes as long whatever the number of its pairs, so its share is smaller in larger
sets. "open" is the number of pairs that float32 cannot decide, per query. Memory is the compiler's plan for one
device: arguments, results and temporaries of one call; "grown" is, on Linux CPUs, by how much the process grew."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench retrieval", description=DESCRIPTION)
    parser.add_argument("--queries", type=int, default=16384, metavar="N", help="texts")
    parser.add_argument("--gallery", type=int, default=32768, metavar="M", help="videos")
    parser.add_argument("--dim", type=int, default=512, metavar="E", help="width of the embeddings")
    parser.add_argument("--captions", type=int, default=1, help="texts of a video")
    parser.add_argument("--noise", type=float, default=8.0, help="of a text, in units of its video: 0 = equal rows")
    parser.add_argument("--devices", type=int, default=0, help="0 = all; on CPU, fake devices share the cores")
    parser.add_argument(
        "--tile_mib", type=float, default=0.0, help="memory for a tile of scores; 0 = as `evaluate` does"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_json()
    args, _ = parser.parse(argv)
    names = {field.name for field in dataclasses.fields(Retrieval)}
    result = bench_retrieval(Retrieval(**{key: value for key, value in vars(args).items() if key in names}))
    print(json.dumps(result)) if args.json else _print(result)
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What is measured; see the flags."""

    queries: int = 16384
    gallery: int = 32768
    dim: int = 512
    captions: int = 1
    noise: float = 8.0
    devices: int = 0
    tile_mib: float = 0.0
    rounds: int = 3


def bench_retrieval(options: Retrieval) -> dict[str, Any]:
    """Measure the scorer of large sets.

    Args:
      options: sizes.

    Returns:
      JSON values: the options; `device`, `devices`, `tile` (its two sides) and `piece` (videos on a device at a time);
      `pairs_per_s`, `tile_pairs_per_s` and `matmul_pairs_per_s`, medians; `ratio` and `cpu_ratio` of the whole count to
      the matrix products, `tile_ratio` and `tile_cpu_ratio` of its tiles; `open_per_query`, `mean_rank`; the
      compiler's `argument_bytes`, `temporary_bytes`, `output_bytes`, and `grown_bytes` (None where unknown).

    Raises:
      UserError: a value out of range.
    """
    for name in ("queries", "gallery", "dim", "captions", "rounds"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(options, name)}")
    if options.queries < options.captions or options.queries > options.captions * options.gallery:
        raise UserError(
            f"--queries must be from --captions to --captions times --gallery, here from {options.captions} to "
            f"{options.captions * options.gallery}, got {options.queries}"
        )
    mesh = _devices(options.devices)
    case = _Case(options, mesh=mesh)
    sides = {"count": case.count, "tiles": case.tiles, "matmul": case.matmul}
    for call in sides.values():
        call()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    before, grown = start_of_peak(), None
    for turn in range(options.rounds):
        for name, call in sides.items():
            times[name].append(_timed(call))
            if turn == 0 and name == "count" and before is not None:
                grown = peak_since(before)
    return dataclasses.asdict(options) | case.facts() | _figures(times, case=case) | {"grown_bytes": grown}


def _devices(devices: int) -> Any:
    import jax

    with contextlib.suppress(RuntimeError):  # jax has started with the devices that it has
        jax.config.update("jax_num_cpu_devices", devices or 1)
    have = len(jax.local_devices())
    if not 0 <= devices <= have:
        raise UserError(f"--devices={devices} must be from 0 to the {have} {jax.default_backend()} devices here")
    from ...evaluate.counting.devices import device_mesh

    return device_mesh(jax.local_devices()[: devices or have])


class _Case:
    """Random texts around their videos, and the three calls that are compared."""

    def __init__(self, options: Retrieval, *, mesh: Any):
        import numpy as np

        from ...evaluate.counting.count import CountOptions
        from ...evaluate.counting.devices import DeviceCounter
        from ...evaluate.counting.layout import row_blocks
        from ...evaluate.counting.questions import TEXT_TO_VIDEO, VIDEO_TO_TEXT, Count

        rng = np.random.default_rng(0)
        self._video = rng.standard_normal((options.gallery, options.dim), np.float32)
        self._index = np.arange(options.queries) // options.captions
        noise = rng.standard_normal((options.queries, options.dim), np.float32)
        self._text = self._video[self._index] + np.float32(options.noise) * noise
        self._options = CountOptions(
            host_pairs=0, tile_bytes=int(options.tile_mib * 2**20), devices=list(mesh.devices.flat)
        )
        self._asked, self.mesh, self._ranks, self._decided = (TEXT_TO_VIDEO, VIDEO_TO_TEXT), mesh, {}, 0
        pairs = self._pairs()
        self._shapes = self._options.tiles(pairs, platform=mesh.devices.flat[0].platform)
        self._block = max(row_blocks(pairs, rows=self._shapes.rows, devices=mesh.size), key=lambda one: min(one.texts))
        counts = [Count(question, pairs=pairs) for question in self._asked]
        self._counter = DeviceCounter(counts, pairs=pairs, tiles=self._shapes, mesh=mesh)
        self._piece = next(self._shapes.pieces(options.gallery))
        self._gallery = self._counter.gallery(self._piece)
        self._products = _products(self._counter, self._block, gallery=self._gallery, columns=self._shapes.columns)
        self.pairs = options.queries * options.gallery
        self.tile_pairs = len(self._block.texts) * self._shapes.piece * self._shapes.columns
        self._repeat = max(1, self.pairs // self.tile_pairs // 2)

    def _pairs(self) -> Any:
        from ...evaluate.counting.questions import Pairs

        return Pairs(self._text, video=self._video, video_of_text=self._index)

    def count(self) -> int:
        """Count all ranks as `evaluate` does; return the pairs scored."""
        from ...evaluate.counting.count import count_ranks

        pairs = self._pairs()
        self._ranks = count_ranks(self._asked, pairs=pairs, options=self._options)
        self._decided = pairs.decided
        return self.pairs

    def tiles(self) -> int:
        """Score and compare the tiles of some calls, nothing else."""
        import jax

        for _ in range(self._repeat):
            jax.block_until_ready(self._counter.call(self._block, gallery=self._gallery, piece=self._piece))
        return self._repeat * self.tile_pairs

    def matmul(self) -> int:
        """Multiply the same tiles."""
        for _ in range(self._repeat):
            self._products().block_until_ready()
        return self._repeat * self.tile_pairs

    def facts(self) -> dict[str, Any]:
        """Return shapes, memory as compiled, and what came out."""
        from ...evaluate.counting.devices import count_tiles

        shape, rows = self._counter.shape(self._block, piece=self._piece), self._counter.rows(self._block)
        plan = count_tiles.lower(self._gallery, rows, shape=shape, mesh=self.mesh).compile().memory_analysis()
        sizes = {"argument_bytes": None, "temporary_bytes": None, "output_bytes": None}
        if plan is not None:
            sizes["argument_bytes"] = plan.argument_size_in_bytes
            sizes |= {"temporary_bytes": plan.temp_size_in_bytes, "output_bytes": plan.output_size_in_bytes}
        return {
            "device": self.mesh.devices.flat[0].device_kind,
            "devices": self.mesh.size,
            "tile": [len(self._block.texts) // self.mesh.size, self._shapes.columns],
            "piece": self._shapes.piece * self._shapes.columns,
            "open_per_query": self._decided / len(self._text),
            "mean_rank": float(self._ranks[self._asked[0]].expected.mean()),
            **sizes,
        }


def _products(counter: Any, block: Any, *, gallery: Any, columns: int) -> Callable[[], Any]:
    """Return a call that multiplies a block with every tile of a piece; each product replaces the one before it."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    from ...evaluate.counting.devices import AXIS, PRECISION

    rows, tiles = counter.rows(block)["rows"], gallery["rows"]

    def one_device(rows: Any, tiles: Any) -> Any:
        def step(before: Any, tile: Any) -> tuple[Any, None]:
            del before
            return jnp.einsum("re,ce->rc", rows, tile, precision=PRECISION), None

        nothing = jnp.zeros((len(rows), columns), jnp.float32)
        return jax.lax.scan(step, nothing, tiles.reshape(-1, columns, tiles.shape[1]))[0]

    split = PartitionSpec(AXIS)
    specs: dict[str, Any] = {"in_specs": (split, PartitionSpec()), "out_specs": split, "check_vma": False}
    call = jax.jit(jax.shard_map(one_device, mesh=counter.mesh, **specs))
    return lambda: call(rows, tiles)


def _timed(call: Callable[[], int]) -> tuple[float, float]:
    """Return the seconds that a pair takes, by wall time and by CPU time."""
    begin, cpu = time.perf_counter(), time.process_time()
    pairs = call()
    return (time.perf_counter() - begin) / pairs, (time.process_time() - cpu) / pairs


def _figures(times: dict[str, list[tuple[float, float]]], *, case: _Case) -> dict[str, float]:
    def ratio(name: str, which: int) -> float:
        return statistics.median(
            bare[which] / ours[which] for ours, bare in zip(times[name], times["matmul"], strict=True)
        )

    rates = {name: 1 / statistics.median(wall for wall, _ in pairs) for name, pairs in times.items()}
    return {
        "pairs_per_s": rates["count"],
        "tile_pairs_per_s": rates["tiles"],
        "matmul_pairs_per_s": rates["matmul"],
        "ratio": ratio("count", 0),
        "cpu_ratio": ratio("count", 1),
        "tile_ratio": ratio("tiles", 0),
        "tile_cpu_ratio": ratio("tiles", 1),
    }


def _print(result: dict[str, Any]) -> None:
    rows, columns = result["tile"]
    print(
        f"{result['queries']:,} texts x {result['gallery']:,} videos, width {result['dim']}, float32, "
        f"{result['devices']} x {result['device']}, tiles of {rows:,} x {columns:,}"
    )
    print(f"{'':26} {'pairs/s':>10} {'/matmul':>8} {'by CPU time':>12}")
    for name, key in (("count of all ranks", ""), ("  its tiles alone", "tile_"), ("bare matrix products", "matmul_")):
        line = f"{name:26} {result[f'{key}pairs_per_s'] / 1e6:8.1f} M"
        print(line + ("" if key == "matmul_" else f" {result[f'{key}ratio']:8.2f} {result[f'{key}cpu_ratio']:12.2f}"))
    print(f"mean rank {result['mean_rank']:,.1f}; open pairs per query {result['open_per_query']:.2f}")
    sizes = [result[f"{name}_bytes"] for name in ("argument", "output", "temporary")]
    if None not in sizes:
        arguments, results, temporaries = (f"{size / 1e6:,.1f} MB" for size in sizes)
        print(f"a call: arguments {arguments}, results {results}, temporaries {temporaries}")
    if result["grown_bytes"] is not None:
        whole = 4 * result["queries"] * result["gallery"]
        print(f"grown by {result['grown_bytes'] / 1e6:,.1f} MB; all scores would take {whole / 1e6:,.0f} MB")
