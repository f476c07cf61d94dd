"""`twinreel plan`: the memory, time and cost of a config's train step on chips that are not here."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..base.config import Config, load_config
from ..base.errors import UserError
from ..base.parser import Parser, folder
from ..cost.rates import matmul_rate
from ..cost.roofline import Assumptions
from ..engine.keeping.files import write_atomically
from ..pretrain.begin import with_sources
from .feed import input_rate
from .program import Compiled, Traced, checkpoint_bytes, compile_traced, trace_phases
from .topology import Topology, parse_topology, topology_devices

DESCRIPTION = """Find out, before you reserve hardware, whether a config's train step fits and what the run will cost.

  twinreel plan --config base_1b --topology v5e-256
  twinreel plan --config base_1b --topology v5e-256 --config.mesh.fsdp=16 --json > plan.json
  twinreel plan --config base_1b --topology v5e-256 --search --workdir runs/search
  twinreel plan --config base_1b --topology h100-64
  twinreel plan --config demo --topology cpu-8
  twinreel plan --config base_1b --topology v5e-256 --scale 8..8192 --csv scale.csv

Compiles the train step that `pretrain` runs, with the real compiler; no accelerator and no network are used. Prints the
memory of a chip by kind, FLOPs, collectives by mesh axis, estimates of step time and MFU with their assumptions, the
input rate that each host must deliver, the checkpoint size, hours and chip-hours. If the step does not fit, it prints
the largest allocations and the changes to the config with which it fits; these have been compiled, too.

--search compiles the most promising combinations of mesh shape, remat policy and microbatch, several at a time, and
ranks them by step time. It ends after --limit_s seconds or one compilation, whichever is longer; the same command
resumes it.

--scale A..B compiles nothing: for each power of two of chips it prints, by formulas, the rate of data, bytes sent over
links and network, bandwidth of checkpoints, memory of a host, form of the loss and an estimate of time. --topology is
the size that the config's batch is meant for: a chip keeps that many clips, or, with --scale_batch fixed, the batch
stays. --csv writes the table, --json prints it.

Topologies: v5e-256, v6e-64 (chips); v4-128, v5p-256, tpu7x-64 (TensorCores, two to a chip, as Google Cloud counts:
v5p-256 is 128 chips); v5p:8x8x8 (chips along each axis: 512); v5e-512 or --slices=2 for slices joined by the hosts'
network; a100-64, h100-64, h200-64, b200-64 (GPUs in hosts of eight); cpu-8 for fake devices. A chip of TPU7x is two
devices: what is said of a chip is said of one of them. The compilers are extras: pip install
'twinreel[plan]' for TPUs, 'twinreel[plan-gpu]' for GPUs.

Memory and collectives come from the compiler; the time is an estimate (--matmul and others set its assumptions). The
exit status is 0 if the step fits (with --search: if any does), else 1."""


def main(argv: list[str]) -> int:
    """Run the verb; return 0 if the step fits (with --search: if any does), else 1."""
    parser = Parser(verb="plan", description=DESCRIPTION)
    parser.add_config()
    parser.add_argument(
        "--topology", required=True, help="chips to plan for, such as v5e-256, v5p:8x8x8, h100-64, cpu-8"
    )
    parser.add_argument("--slices", type=int, default=1, help="number of TPU slices, joined by the hosts' network")
    parser.add_json()
    parser.add_argument("--search", action="store_true", help="rank mesh shapes, remat policies and microbatches")
    parser.add_argument("--tries", type=int, default=12, help="with --search: number of programs to compile")
    parser.add_argument("--limit_s", type=float, default=180, help="with --search: seconds in which to end")
    parser.add_argument("--workdir", default="runs/plan", help="with --search: folder of search.jsonl, the results")
    parser.add_argument("--scale", metavar="A..B", help="a table over numbers of chips instead of a plan: 8..8192")
    parser.add_argument("--scale_batch", default="per_chip", help="with --scale: per_chip (clips of a chip) or fixed")
    parser.add_argument("--csv", help="with --scale: file for the table")
    parser.add_argument("--no_advice", action="store_true", help="if it does not fit, do not look for changes")
    for field in dataclasses.fields(Assumptions):
        parser.add_argument(f"--{field.name}", type=float, default=field.default, help=_SHARES[field.name])
    args, overrides = parser.parse(argv)
    assumptions = Assumptions(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Assumptions)})
    config, _ = with_sources(load_config(args.config, overrides=overrides))
    topology = parse_topology(args.topology, slices=args.slices)
    assumptions = assumptions.on(topology.chip)
    result: dict[str, Any]
    from . import report, search

    if args.csv and not args.scale:
        raise UserError("--csv is for the table of --scale; give --scale 8..8192")
    if args.scale and args.search:
        raise UserError("--scale and --search exclude each other; run them one after the other")
    if args.scale:
        result = _scale(config, topology=topology, args=args, assumptions=assumptions)
        show = report.print_scale
    elif args.search:
        found = search.search(
            config,
            topology=topology,
            assumptions=assumptions,
            workdir=folder(args.workdir, flag="--workdir"),
            tries=args.tries,
            limit_s=args.limit_s,
            quiet=args.json,
        )
        result = {"topology": topology_facts(topology)} | found
        show = report.print_search
    else:
        result = plan(
            config,
            topology=topology,
            assumptions=assumptions,
            advise=not args.no_advice,
            progress=_progress(quiet=args.json),
        )
        show = report.print_plan
    print(json.dumps(result)) if args.json else show(result)
    return 0 if result["fits"] else 1


def _scale(config: Config, *, topology: Topology, args: Any, assumptions: Assumptions) -> dict[str, Any]:
    from ..cost.scaling import ScaleAssumptions
    from .scale import scale, table_of

    shares = ScaleAssumptions(**dataclasses.asdict(assumptions))
    found = scale(config, topology=topology, sizes=args.scale, batch=args.scale_batch, shares=shares)
    if args.csv:
        write_atomically(Path(args.csv), text=table_of(found))
    return {"topology": topology_facts(topology), "fits": True} | found


_SHARES = {
    "matmul": "assumed share of the chip's peak FLOP/s that matrix products reach (default: measured, by chip)",
    "hbm": "assumed share of the memory bandwidth",
    "links": "assumed share of the bandwidth of the links between chips (ICI, NVLink)",
    "network": "assumed share of the bandwidth of the hosts' network (DCN)",
    "overlap": "assumed share of communication that overlaps with compute",
}


def plan(
    config: Config,
    *,
    topology: Topology,
    assumptions: Assumptions | None = None,
    advise: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Compile a config's step for a topology; return its memory, time and cost.

    Args:
      config: as for `pretrain`; nothing is read from `config.data.dir`.
      topology: from `parse_topology`.
      assumptions: of the time estimate.
      advise: if the step does not fit, look for changes that make it fit.
      progress: called with a line of progress.

    Returns:
      JSON values: `fits`, `topology`, `mesh`, `vocabulary`, `memory` (bytes on a chip by kind, None if it does not
      fit), `out_of_memory` (`needed` and `limit` are None if the memory that is short is not HBM), `flops` (per chip),
      `collectives`, `compiler_options`, `time` (None on fake devices), `input` (per host), `checkpoint_bytes`, `run`,
      `assumptions`, `matmul_source` (where its `matmul` is from), `compile_s`, and `advice` if there is any. A run with
      several phases is described in `phases` (steps, memory and time of each). Figures of one step are then those of
      `phase`, the largest; the run fits if all phases do; its hours are those of all steps; the input rate is that of
      the fastest phase.
    """
    from .advice import find_changes

    assumptions = (assumptions or Assumptions()).on(topology.chip)
    devices = topology_devices(topology)
    progress(f"tracing the step for {topology}")
    planned = []
    phases = trace_phases(config, devices=devices)
    for traced in phases:
        name = f" of phase {traced.phase!r}" if len(phases) > 1 else ""
        progress(f"compiling the step{name} ({traced.trace_s:.0f} s for the trace)")
        planned.append(Planned(traced, compile_traced(traced, topology=topology, assumptions=assumptions)))
    result = describe(config, planned=planned, topology=topology, assumptions=assumptions)
    traced, failed = largest(planned).traced, largest(planned).compiled.out_of_memory
    if failed is not None and failed.needed is not None and advise:  # without the numbers, changes cannot be compared
        result["advice"] = find_changes(
            config,
            traced=traced,
            failed=failed,
            topology=topology,
            devices=devices,
            assumptions=assumptions,
            progress=progress,
        )
    return result


class Planned(NamedTuple):
    """The step of one phase of the run."""

    traced: Traced
    compiled: Compiled

    @property
    def bytes(self) -> int:
        """Bytes that a chip would hold, according to the compiler; 0 where it does not report them."""
        if self.compiled.out_of_memory is not None:
            return self.compiled.out_of_memory.needed or 0
        return self.compiled.memory.total if self.compiled.memory else 0

    @property
    def step_s(self) -> float | None:
        """Seconds of a step; None if unknown."""
        return self.compiled.estimate.step_s if self.compiled.estimate else None


def largest(planned: Sequence[Planned]) -> Planned:
    """Return the phase that needs the most memory; phases that do not fit come before all others."""
    return max(planned, key=lambda one: (one.compiled.out_of_memory is not None, one.bytes, one.traced.kept))


def describe(
    config: Config, *, planned: Sequence[Planned], topology: Topology, assumptions: Assumptions
) -> dict[str, Any]:
    """Return the JSON values of `plan` for the compiled steps of all phases of a run."""
    traced, compiled = largest(planned)
    chips = traced.mesh.size
    known = [one.step_s for one in planned if one.step_s is not None]
    return {
        "fits": all(one.compiled.out_of_memory is None for one in planned),
        "topology": topology_facts(topology),
        "mesh": dict(traced.mesh.shape),
        "batch_size": config.data.batch_size,
        "phase": traced.phase,
        "phases": [_phase(one) for one in planned],
        "parameters": sum(math.prod(x.shape) for x in (traced.state.params | traced.state.others).values()),
        "vocabulary": dataclasses.asdict(traced.parts.vocabulary),
        "memory": None if compiled.memory is None else dataclasses.asdict(compiled.memory),
        "resident_bytes": resident_bytes(traced),
        "out_of_memory": None if compiled.out_of_memory is None else dataclasses.asdict(compiled.out_of_memory),
        "flops": {
            "model_per_chip": traced.flops.model / chips,
            "recomputed_per_chip": traced.flops.recomputed / chips,
            "tile_padding_per_chip": traced.flops.tile_padding / chips,
            "lower_bound": traced.flops.open_loops > 0,
        },
        "hbm_bytes_per_chip": compiled.hbm_bytes,
        "collectives": [dataclasses.asdict(one) for one in compiled.traffic],
        "compiler_options": traced.parts.compiler_options,
        "bytes_are_lower_bound": compiled.open_loops > 0,
        "time": None if compiled.estimate is None else dataclasses.asdict(compiled.estimate),
        "assumptions": dataclasses.asdict(assumptions),
        "matmul_source": matmul_source(assumptions, topology=topology),
        "input": input_rate(config, hosts=topology.hosts, step_s=min(known, default=None)),
        "checkpoint_bytes": checkpoint_bytes(traced.state),
        "run": run_time(config, planned=planned, chips=topology.chips),
        "trace_s": sum(one.traced.trace_s for one in planned),
        "compile_s": sum(one.compiled.compile_s for one in planned),
    }


def matmul_source(assumptions: Assumptions, *, topology: Topology) -> str:
    """Return where the assumed rate of matrix products is from; "" without a chip."""
    if topology.chip is None:
        return ""
    rate = matmul_rate(topology.chip)
    return rate.source if assumptions.matmul == rate.share else "--matmul"


def _phase(one: Planned) -> dict[str, Any]:
    return {
        "phase": one.traced.phase,
        "steps": one.traced.steps,
        "fits": one.compiled.out_of_memory is None,
        "memory_bytes": one.bytes,
        "step_s": one.step_s,
    }


def topology_facts(topology: Topology) -> dict[str, Any]:
    """Return the JSON values of a topology."""
    return {
        "name": topology.name,
        "description": str(topology),
        "chips": topology.chips,
        "hosts": topology.hosts,
        "slices": topology.slices,
        "hbm_bytes": topology.chip.hbm_bytes if topology.chip else None,
        "peak_flops": topology.chip.peak_flops if topology.chip else None,
    }


def resident_bytes(traced: Traced) -> dict[str, int]:
    """Return the bytes on one device that do not depend on the compiler, by kind."""
    from ..cost.memory import device_bytes

    state = traced.state
    return {
        "parameters": device_bytes((state.params, state.others)),
        "gradients": device_bytes(state.params),
        "optimizer": device_bytes((state.opt_state, state.ema)),
        "batch": device_bytes(traced.batch),
        "activations_kept": int(traced.kept),
    }


def run_time(config: Config, *, planned: Sequence[Planned], chips: int) -> dict[str, Any]:
    """Return the length of the planned run; every phase counts with its own step time."""
    steps = sum(one.traced.steps for one in planned)
    times = [one.traced.steps * one.step_s for one in planned if one.step_s is not None]
    hours = sum(times) / 3600 if len(times) == len(planned) else None
    return {
        "steps": steps,
        "samples": steps * config.data.batch_size,
        "hours": hours,
        "chip_hours": None if hours is None else hours * chips,
    }


def _progress(*, quiet: bool) -> Callable[[str], None]:
    return lambda text: None if quiet else print(text, file=sys.stderr, flush=True)
