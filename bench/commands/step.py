"""`twinreel bench step`: the cost of one train step, on synthetic batches and without tensorflow."""

import dataclasses
import json
import statistics
import time
from typing import Any

from ...base.config import Config, load_config
from ...base.errors import UserError
from ...base.parser import Parser
from ...engine.start.allocator import keep_freed_memory_on_cpus
from ...pretrain.begin import with_sources
from ...pretrain.step_parts import StepParts, make_parts
from ...pretrain.synthetic import batch_like

DESCRIPTION = """Measure the train step of a config on synthetic batches; no data set and no tensorflow are needed.

  twinreel bench step --config demo
  twinreel bench step --config demo --steps 50 --config.data.batch_size=256 --json

Prints clips/s, the step time, the FLOPs of the step's matrix products, MFU (model FLOPs utilisation: FLOPs per second
divided by the device's peak for the dtype of the video tower) where the peak is known, and peak memory. The step is the
one that `pretrain` runs."""


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = Parser(verb="bench step", description=DESCRIPTION)
    parser.add_config()
    parser.add_argument("--steps", type=int, default=20, help="steps to time, after two for warm-up")
    parser.add_json()
    args, overrides = parser.parse(argv)
    if args.steps < 1:
        raise UserError(f"--steps must be at least 1, got {args.steps}")
    keep_freed_memory_on_cpus()  # as `pretrain`, before any library starts threads
    config, _ = with_sources(load_config(args.config, overrides=overrides))
    result = bench_step(config, steps=args.steps, progress=not args.json)
    print(json.dumps(result)) if args.json else _print_table(result)
    return 0


def bench_step(config: Config, *, steps: int, progress: bool = False) -> dict[str, Any]:
    """Compile the config's train step and time it.

    Args:
      config: as for `pretrain`; nothing is read from `config.data.dir`.
      steps: number of steps to time, each on its own.
      progress: show a progress bar on standard error.

    Returns:
      JSON values: `step_time_s` (median) and `step_time_min_s` in seconds; `clips_per_s` and `frames_per_s` over all
      devices; `flops_per_device` of the matrix products of one step, `flops_recomputed_per_device` by remat;
      `flops_per_s_per_device`; `mfu` (0..1, None where the device's peak is not known); `peak_bytes` per device as the
      compiler plans it, `device_peak_bytes` as the device counts it (None on CPU); `compile_s`; and the settings.
      `dtype` is the video tower's. MFU is relative to the peak for `peak_dtype`, in which its matrix products run.
    """
    import jax

    from ...cost.step import matmul_dtype, mfu, step_cost
    from ...data.options import DataOptions
    from ...zoo.build import argument_of

    data = DataOptions.of(config.data)
    bench = compile_bench(config)
    times = _time(bench, steps=steps, progress=progress)
    cost = step_cost(bench.jaxpr, compiled=bench.compiled, devices=bench.parts.mesh.size)
    device, seconds = bench.parts.mesh.devices.flat[0], statistics.median(times)
    dtype = argument_of(config.model.video, side="video", field="dtype")
    peak = matmul_dtype(dtype, device_kind=device.device_kind)
    return {
        "device": device.device_kind,
        "devices": bench.parts.mesh.size,
        "mesh": dict(bench.parts.mesh.shape),
        "dtype": dtype,
        "peak_dtype": peak,
        "batch_size": data.feed.batch_size,
        "num_frames": data.input.num_frames,
        "vocab_size": bench.parts.vocabulary.size,
        "parameters": sum(x.size for x in jax.tree.leaves((bench.state.params, bench.state.others))),
        "steps": steps,
        "compile_s": bench.compile_s,
        "step_time_s": seconds,
        "step_time_min_s": min(times),
        "clips_per_s": data.feed.batch_size / seconds,
        "frames_per_s": data.feed.batch_size * data.input.num_frames / seconds,
        "flops_per_device": cost.flops,
        "flops_recomputed_per_device": cost.recomputed_flops,
        "flops_are_lower_bound": cost.open_loops > 0,
        "flops_per_s_per_device": cost.flops / seconds,
        "mfu": mfu(cost, seconds=seconds, device_kind=device.device_kind, dtype=peak),
        "peak_bytes": cost.peak_bytes,
        "device_peak_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
    }


@dataclasses.dataclass(kw_only=True)
class Bench:
    """A compiled step and its arguments."""

    parts: StepParts
    jaxpr: Any
    compiled: Any
    compile_s: float
    state: Any
    batch: Any
    go_on: Any


def compile_bench(config: Config) -> Bench:
    """Compile the step that `engine.loop.train` would at the start of the run, for one synthetic batch."""
    import jax

    from ...engine.sharding.mesh import put_batch
    from ...engine.step.step import stop_flags

    parts = make_parts(config)
    rows = config.data.batch_size
    with jax.set_mesh(parts.mesh):
        batch = put_batch(batch_like(config, rows=rows), mesh=parts.mesh)
        start = time.perf_counter()
        traced = parts.trace()
        compiled = traced.lower().compile()
        return Bench(
            parts=parts,
            jaxpr=traced.jaxpr,
            compiled=compiled,
            compile_s=time.perf_counter() - start,
            state=parts.builder.init(),
            batch=batch,
            go_on=stop_flags(parts.mesh)[False],
        )


def _time(bench: Bench, *, steps: int, progress: bool) -> list[float]:
    """Run the step; return the seconds of each of `steps` calls, after two for warm-up."""
    import jax
    from rich.console import Console
    from rich.progress import track

    times = []
    shown = Console(stderr=True, quiet=not progress)
    for number in track(range(steps + 2), description="timing steps", console=shown):
        start = time.perf_counter()
        bench.state, outputs = bench.compiled(bench.state, bench.batch, bench.go_on)
        jax.block_until_ready(outputs)
        if number >= 2:
            times.append(time.perf_counter() - start)
    return times


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"train step on {result['devices']} x {result['device']}", title_justify="left")
    table.add_column("quantity")
    table.add_column("value", justify="right")

    def row(name: str, value: float | None, form: str, *, unit: float = 1.0) -> None:
        table.add_row(name, "unknown" if value is None else form.format(value / unit))

    row("parameters", result["parameters"], "{:,.0f}")
    row("global batch, clips", result["batch_size"], "{:,.0f}")
    row("step time, median", result["step_time_s"], "{:.1f} ms", unit=1e-3)
    row("step time, minimum", result["step_time_min_s"], "{:.1f} ms", unit=1e-3)
    row("clips/s", result["clips_per_s"], "{:,.1f}")
    row("FLOPs of a step, per device", result["flops_per_device"], "{:,.2f} G", unit=1e9)
    row("FLOP/s, per device", result["flops_per_s_per_device"], "{:,.1f} G", unit=1e9)
    row("MFU", result["mfu"], "{:.1f} %", unit=1e-2)
    row("peak memory, per device (compiler)", result["peak_bytes"], "{:,.0f} MiB", unit=2**20)
    row("peak memory, per device (counted)", result["device_peak_bytes"], "{:,.0f} MiB", unit=2**20)
    row("compile time", result["compile_s"], "{:.1f} s")
    Console().print(table)
