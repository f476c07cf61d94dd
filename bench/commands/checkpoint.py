"""`twinreel bench checkpoint`: the cost of a save and of a restore, on synthetic batches and without tensorflow."""

import collections
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...base.config import Config, load_config
from ...base.errors import UserError
from ...base.parser import Parser
from .step import Bench, compile_bench

if TYPE_CHECKING:
    from ...engine.keeping.checkpoints import Checkpoints

DESCRIPTION = """Measure the checkpoints of a config: how long a save blocks training, how long it takes until the
checkpoint is complete on disk, how long a restore takes, and how both compare with a plain file of the same size.

  twinreel bench checkpoint --config demo
  twinreel bench checkpoint --config small_26m --dir /scratch --saves 5 --json

Prints `blocked`, the time for which the loop cannot hand a step to the device, and `delay`, the time by which the same
number of steps takes longer with a save among them: it includes what writing takes from the steps (on a CPU they share
the cores). As in `pretrain`, the host runs two steps ahead of the device; steps continue while a save is written."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench checkpoint", description=DESCRIPTION)
    parser.add_config()
    parser.add_argument("--dir", default=".", help="existing folder on the disk to measure; left as it was")
    parser.add_argument("--saves", type=int, default=3, help="saves to time, after one for warm-up")
    parser.add_json()
    args, overrides = parser.parse(argv)
    if args.saves < 1:
        raise UserError(f"--saves must be at least 1, got {args.saves}")
    if not Path(args.dir).is_dir():
        raise UserError(f"--dir={args.dir} is no folder; give an existing folder on the disk to measure")
    config = load_config(args.config, overrides=overrides)
    result = bench_checkpoint(config, folder=Path(args.dir), saves=args.saves)
    print(json.dumps(result)) if args.json else _print_table(result)
    return 0


def bench_checkpoint(config: Config, *, folder: Path, saves: int) -> dict[str, Any]:
    """Train a few steps of the config on synthetic batches, save among them, and restore the last checkpoint.

    Args:
      config: as for `pretrain`; nothing is read from `config.data.dir`.
      folder: where a temporary folder for the checkpoints is made.
      saves: number of saves to time; the figures are medians.

    Returns:
      JSON values: `step_time_s` without saves; `blocked_s` and `delay_s` of a save (see DESCRIPTION), and the same in
      step times, `blocked_steps` and `delay_steps`; `save_s` from the call until the checkpoint is complete;
      `restore_s` onto the devices; `size_bytes` on disk and `state_bytes` in memory; `save_mb_per_s`,
      `restore_mb_per_s`, `raw_write_mb_per_s` (a plain file, with fsync) and `raw_read_mb_per_s` (from the page cache,
      as the restore), with 1 MB = 1e6 bytes; and the settings.
    """
    import jax

    from ...engine.keeping.checkpoints import Checkpoints

    bench = compile_bench(config)
    builder, mesh = bench.parts.builder, bench.parts.mesh
    with tempfile.TemporaryDirectory(prefix="bench-checkpoint-", dir=folder) as temporary:
        place = Path(temporary)
        with Checkpoints(place / "checkpoints", abstract=builder.abstract, keep_last=1) as checkpoints:
            runs = _Steps(bench)
            step_time = runs.step_time()
            each = _repeat(runs, checkpoints=checkpoints, saves=saves)
        start = time.perf_counter()
        with Checkpoints(place / "checkpoints", abstract=builder.abstract) as checkpoints:
            restored = checkpoints.restore()
            assert restored is not None
            jax.block_until_ready(restored[0])
        restore_s = time.perf_counter() - start
        size = sum(path.stat().st_size for path in (place / "checkpoints").rglob("*") if path.is_file())
        raw_write, raw_read = raw_rates(place / "raw", size=size)
    found = {name: statistics.median(one[name] for one in each) for name in each[0]}
    return {
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "mesh": dict(mesh.shape),
        "saves": saves,
        "state_bytes": sum(x.nbytes for x in jax.tree.leaves(restored[0])),
        "size_bytes": size,
        "step_time_s": step_time,
        **found,
        "blocked_steps": found["blocked_s"] / step_time,
        "delay_steps": found["delay_s"] / step_time,
        "restore_s": restore_s,
        "save_mb_per_s": size / found["save_s"] / 1e6,
        "restore_mb_per_s": size / restore_s / 1e6,
        "raw_write_mb_per_s": raw_write / 1e6,
        "raw_read_mb_per_s": raw_read / 1e6,
    }


class _Steps:
    """Runs steps as the loop does: the host dispatches a step when the one RUN_AHEAD before it is done."""

    def __init__(self, bench: Bench):
        self._bench, self.step = bench, 0

    @property
    def state(self) -> Any:
        return self._bench.state

    def take(self, count: int, *, between: Any = None) -> float:
        """Run steps; call `between` after the first RUN_AHEAD (the device is busy); return the seconds of all steps."""
        import jax

        from ...engine.loop.metrics import RUN_AHEAD

        pending = collections.deque()
        start = time.perf_counter()
        for number in range(count):
            self._bench.state, outputs = self._bench.compiled(self._bench.state, self._bench.batch, self._bench.go_on)
            self.step += 1
            pending.append(outputs)
            if number == RUN_AHEAD - 1 and between is not None:
                between()
            if len(pending) > RUN_AHEAD:
                jax.block_until_ready(pending.popleft())
        jax.block_until_ready(list(pending))
        return time.perf_counter() - start

    def step_time(self) -> float:
        """Return the seconds of a step without saves: the median over a few short runs."""
        self.take(3)
        return statistics.median(self.take(6) / 6 for _ in range(3))


def _repeat(runs: _Steps, *, checkpoints: "Checkpoints", saves: int) -> list[dict[str, float]]:
    """Time saves among steps; the first save, which opens the folder and compiles the copy, is not counted."""
    steps = 6
    each = []
    for _ in range(saves + 1):
        alone = runs.take(steps)
        times: dict[str, float] = {}

        def save(times: dict[str, float] = times) -> None:
            start = time.perf_counter()
            checkpoints.save(runs.state, step=runs.step, meta={})
            times["blocked_s"] = time.perf_counter() - start

        together = runs.take(steps, between=save)
        while checkpoints.busy():  # steps continue, as in training
            runs.take(1)
        checkpoints.wait()
        each.append(times | {"delay_s": together - alone, "save_s": checkpoints.last_save_s})
    return each[1:]


def raw_rates(path: Path, *, size: int) -> tuple[float, float]:
    """Write (with fsync) and read a plain file of `size` bytes; returns both rates in bytes per second."""
    block = os.urandom(min(size, 1 << 24))
    start = time.perf_counter()
    with path.open("wb") as file:
        for at in range(0, size, len(block)):
            file.write(block[: min(len(block), size - at)])
        file.flush()
        os.fsync(file.fileno())
    written = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
    read = time.perf_counter()
    path.unlink()
    return size / (written - start), size / (read - written)


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"checkpoints of {result['devices']} x {result['device']}", title_justify="left")
    table.add_column("quantity")
    table.add_column("value", justify="right")
    rows = [
        ("step time", f"{result['step_time_s'] * 1e3:,.1f} ms"),
        ("a save blocks the loop", f"{result['blocked_s'] * 1e3:,.1f} ms"),
        ("... in step times", f"{result['blocked_steps']:.2f}"),
        ("a save delays six steps", f"{result['delay_s'] * 1e3:,.1f} ms"),
        ("... in step times", f"{result['delay_steps']:.2f}"),
        ("save, until it is complete", f"{result['save_s']:.2f} s"),
        ("restore", f"{result['restore_s']:.2f} s"),
        ("state in memory", f"{result['state_bytes'] / 1e6:,.1f} MB"),
        ("checkpoint on disk", f"{result['size_bytes'] / 1e6:,.1f} MB"),
        ("save rate", f"{result['save_mb_per_s']:,.1f} MB/s"),
        ("plain file, write and fsync", f"{result['raw_write_mb_per_s']:,.1f} MB/s"),
        ("restore rate", f"{result['restore_mb_per_s']:,.1f} MB/s"),
        ("plain file, read (page cache)", f"{result['raw_read_mb_per_s']:,.1f} MB/s"),
    ]
    for row in rows:
        table.add_row(*row)
    Console().print(table)
