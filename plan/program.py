"""A config's train step as a program for devices that need not exist: traced, compiled, analysed, never allocated."""

import copy
import dataclasses
import re
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ..base.config import Config
from ..base.section import section
from ..cost.chips import matrix_tile
from ..cost.collectives import Traffic, count_collectives
from ..cost.flops import Flops, count_flops
from ..cost.gpus import Gpu
from ..cost.hbm import count_hbm_bytes, count_kernel_bytes
from ..cost.hlo import parse_program
from ..cost.memory import Memory, kept_activations, step_memory, whole_bytes
from ..cost.roofline import Assumptions, Estimate, estimate_step
from ..engine.start.collectives import compile_lowered
from ..pretrain.loss_options import LossOptions
from ..pretrain.step_parts import StepParts, make_parts
from .topology import Topology

_GIGA = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_AMOUNT = r"([\d.]+)([KMGT]?)i?B?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traced:
    """A traced step.

    Attributes:
      parts: what it is made of.
      phase: the phase of the run; None where the objective has no phases.
      stage: `jax.stages.Traced`, to lower and compile.
      flops: over all devices.
      kept: bytes on one device that the forward pass stores for the backward pass, an estimate.
      trace_s: seconds for tracing.
    """

    parts: StepParts
    phase: Hashable | None
    stage: Any
    flops: Flops
    kept: float
    trace_s: float

    @property
    def steps(self) -> int:
        """Number of steps of the run in this phase."""
        return self.parts.phases[self.phase]

    @property
    def mesh(self) -> Any:
        """The mesh of the topology's devices."""
        return self.parts.mesh

    @property
    def state(self) -> Any:
        """The TrainState: shapes with shardings."""
        return self.parts.builder.abstract

    @property
    def batch(self) -> dict[str, Any]:
        """A global batch: shapes with shardings."""
        return self.parts.batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutOfMemory:
    """The compiler's report of a step that does not fit.

    Attributes:
      needed: bytes needed of each chip's main memory (by the part that the report names); None if another memory is
        short, such as an on-chip one.
      limit: bytes available of it.
      largest: (bytes, description) of the largest allocations, where the compiler lists them.
      message: the compiler's message.
    """

    needed: int | None
    limit: int | None
    largest: tuple[tuple[int, str], ...]
    message: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """A compiled step and its analysis.

    Attributes:
      memory: on one device, by kind; None if the compiler rejects the program.
      out_of_memory: why it does not fit; None if it does.
      traffic: collectives by kind and mesh axes.
      hbm_bytes: moved to and from the memory of one device.
      open_loops: number of loops of unknown length; above 0 the bytes are lower bounds.
      estimate: of its time; None on fake devices and where it does not fit.
      compile_s: seconds for compiling.
    """

    memory: Memory | None
    out_of_memory: OutOfMemory | None
    traffic: tuple[Traffic, ...]
    hbm_bytes: int
    open_loops: int
    estimate: Estimate | None
    compile_s: float


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a copy of a config with dotted fields set; sections and fields that it lacks are added."""
    after = copy.deepcopy(config)
    with after.unlocked():
        for key, value in changes.items():
            *sections, field = key.split(".")
            at = after
            for name in sections:
                if name not in at:
                    at[name] = {}
                at = at[name]
            at[field] = value
    return after


def trace_phases(config: Config, *, devices: Sequence[Any]) -> list[Traced]:
    """Trace every step that `pretrain` would compile with this config: one for each phase of the run.

    Returns:
      The phase that keeps the most activations first.

    Raises:
      UserError: a mistake in the config, or sizes that do not divide.
    """
    parts = make_parts(config, devices=devices)
    traced = [_trace(config, parts=parts, phase=phase) for phase in parts.phases]
    return sorted(traced, key=lambda one: -one.kept)


def trace(config: Config, *, devices: Sequence[Any], phase: Hashable | None = None) -> Traced:
    """Trace the step of one phase, None = that of step 0; raises as `trace_phases`."""
    parts = make_parts(config, devices=devices)
    return _trace(config, parts=parts, phase=next(iter(parts.phases)) if phase is None else phase)


def _trace(config: Config, *, parts: StepParts, phase: Hashable | None) -> Traced:
    start = time.perf_counter()
    stage = parts.trace(phase=phase)
    rows = config.data.batch_size // section(LossOptions, config.loss, name="loss").microbatch
    return Traced(
        parts=parts,
        phase=phase,
        stage=stage,
        flops=count_flops(stage.jaxpr, tile=matrix_tile(parts.mesh.devices.flat[0].device_kind)),
        kept=kept_activations(stage.jaxpr, rows=rows, ways=parts.ways),
        trace_s=time.perf_counter() - start,
    )


def compile_traced(traced: Traced, *, topology: Topology, assumptions: Assumptions) -> Compiled:
    """Compile a traced step with the compiler of its devices and analyse it; one that does not fit is a result, too."""
    import jax

    start = time.perf_counter()
    try:
        with jax.set_mesh(traced.mesh):
            program = compile_lowered(traced.stage.lower())
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(
            memory=None,
            out_of_memory=parse_out_of_memory(str(error)),
            traffic=(),
            hbm_bytes=0,
            open_loops=0,
            estimate=None,
            compile_s=time.perf_counter() - start,
        )
    spent = time.perf_counter() - start
    text = program.as_text()
    assert text is not None, "every backend that plans shows its program"
    parsed = parse_program(text)
    gpus = isinstance(topology.chip, Gpu)
    traffic = count_collectives(
        parsed,
        mesh=dict(traced.mesh.shape),
        slices=1 if gpus else topology.slices,
        host_devices=topology.shape[0] if gpus else None,
    )
    moved = count_hbm_bytes(parsed) + count_kernel_bytes(traced.stage.jaxpr.jaxpr) // traced.mesh.size
    estimate = None
    if topology.chip is not None:
        estimate = estimate_step(
            chip=topology.chip,
            mesh=traced.mesh,
            wraps=topology.wraps,
            model_flops=traced.flops.model / traced.mesh.size,
            hardware_flops=traced.flops.on_tiles / traced.mesh.size,
            hbm_bytes=moved,
            traffic=traffic,
            assumptions=assumptions,
        )
    memory = step_memory(program, state=traced.state, batch=traced.batch, kept=traced.kept)
    return Compiled(
        memory=memory,
        out_of_memory=_too_large(memory, topology=topology),
        traffic=tuple(traffic),
        hbm_bytes=moved,
        open_loops=parsed.open_loops(),
        estimate=estimate,
        compile_s=spent,
    )


def _too_large(memory: Memory | None, *, topology: Topology) -> OutOfMemory | None:
    """Return why a compiled program does not fit, if so: the compiler checks its temporaries only."""
    if memory is None or topology.chip is None:
        return None
    limit = topology.chip.usable_bytes
    if memory.total <= limit:
        return None
    return OutOfMemory(
        needed=memory.total,
        limit=limit,
        largest=(),
        message="it compiles, but state, batch, temporaries and program together exceed a chip's memory",
    )


def checkpoint_bytes(state: Any) -> int:
    """Return the size of a checkpoint: parameters, other variables, moving averages and optimizer state, each once."""
    return whole_bytes((state.params, state.others, state.opt_state, state.ema))


def parse_out_of_memory(message: str) -> OutOfMemory:
    """Parse the TPU compiler's report of a program that does not fit; some concern other memories than a chip's HBM.

    >>> report = parse_out_of_memory("RESOURCE_EXHAUSTED: ... temporaries (50.73G) exceeds available HBM (15.75G).")
    >>> report.needed // 2**30, report.limit // 2**30
    (50, 15)
    >>> parse_out_of_memory("RESOURCE_EXHAUSTED: Ran out of memory in memory space vmem.").needed is None
    True
    """
    used = re.search(rf"[Uu]sed {_AMOUNT} of {_AMOUNT} hbm", message)
    short = re.search(rf"\({_AMOUNT}\) exceeds available HBM \({_AMOUNT}\)", message)
    found = used or short
    needed, limit = (_bytes(found[1], found[2]), _bytes(found[3], found[4])) if found else (None, None)
    largest = []
    for size, unit, rest in re.findall(rf"\d+\. Size: {_AMOUNT}\n(.*?)(?:=====|\Z)", message, re.DOTALL):
        shape = re.search(r"Shape: (\S+)", rest)
        operator = re.search(r'op_name="([^"]*)"', rest)
        words = " of ".join(one[1] for one in (shape, operator) if one)
        largest.append((_bytes(size, unit), words or rest.strip().splitlines()[0]))
    return OutOfMemory(needed=needed, limit=limit, largest=tuple(largest), message=message)


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _GIGA[unit])
