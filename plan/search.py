"""`twinreel plan --search`: find the mesh shape, remat policy and microbatch of the fastest step that fits."""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import Progress

from ..base.config import Config, to_json
from ..base.errors import UserError
from ..base.section import field_of
from ..cost.roofline import Assumptions
from ..engine.loop.train import create_rules
from ..engine.sharding.mesh import make_mesh
from ..engine.sharding.rules import PRESETS
from ..pretrain.step_parts import make_parts
from ..zoo.build import TOWERS, argument_of
from .advice import REMAT, describe_changes, mesh_changes, summary
from .program import changed, compile_traced, trace, trace_phases
from .queue import Candidate, Queue, in_parallel
from .topology import Topology, topology_devices

_TENSOR = (1, 2, 4)
_MICROBATCHES = (1, 2, 4, 8, 16, 32)
_TRACED_PARTS = (1, 2)
_LOOPED_PARTS = 4  # without GradCache: what a layer needs while it is computed falls to a quarter
# The four names store the results of products; scores, softmax and activation functions are recomputed.
_POLICIES = (*REMAT, "names:qkv,attention,hidden,tokens")
# The estimate of memory before compiling may be too high by this factor: the compiler fuses operations.
_DOUBT = 2.0


def search(
    config: Config,
    *,
    topology: Topology,
    assumptions: Assumptions,
    workdir: Path,
    tries: int,
    limit_s: float = 180.0,
    quiet: bool = False,
) -> dict[str, Any]:
    """Rank changes to a config by the estimated step time of those that fit.

    Every remat policy is traced with one part of the batch and with two (seconds each), from which the memory of more
    parts and of each mesh shape is estimated. Of the candidates that may fit, those with the fewest FLOPs are compiled
    first, several at a time. A candidate is passed over if its matrix products alone take as long as the fastest step
    so far, or if another mesh has shown that its remat policy and parts need too much memory. Each result is appended
    to `workdir/search.jsonl`, from which an interrupted search resumes. Of a run with several phases only the largest
    is searched.

    Args:
      config: the config to change.
      topology: chips to plan for.
      assumptions: of the time estimate.
      workdir: folder of search.jsonl.
      tries: number of programs to compile, including those of an interrupted search.
      limit_s: seconds; no program is begun that would end later, if it took as long as the longest so far. The first
        are begun in any case.
      quiet: show no progress bar.

    Returns:
      JSON values: `fits`, whether any candidate does; `ranked`, the values of `advice.summary`, those that fit first,
      in order of step time; `phase`, None for a run with one phase; `least`, the `changes` with the smallest
      estimate of memory and its `bytes`; `refused`, changes that turned out to be impossible, with the reason; `left`,
      the number of candidates that the time did not suffice for; `passed_over`, that of those which could not win.
    """
    end = time.monotonic() + limit_s
    devices = topology_devices(topology)
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / "search.jsonl"
    key = fingerprint(config, topology=topology, assumptions=assumptions)
    done, refused = _read(file, key=key), {}
    with Progress(console=Console(stderr=True, quiet=quiet)) as progress:
        bar = progress.add_task("tracing", total=len(_POLICIES) * len(_TRACED_PARTS))
        found = _candidates(config, topology=topology, devices=devices, assumptions=assumptions,
                            tick=lambda: progress.advance(bar))  # fmt: skip
        promising = {describe_changes(one.changes): one for one in found.promising(topology)}
        queue = Queue(promising, done=done, tries=tries, limit=usable_bytes(topology))
        bar = progress.add_task("compiling", total=queue.tries, completed=queue.tries - queue.left())

        def compile_changes(changes: dict[str, Any]) -> dict[str, Any]:
            traced = trace(changed(config, changes), devices=devices, phase=found.phase)
            return summary(changes, compiled=compile_traced(traced, topology=topology, assumptions=assumptions))

        for name, result in in_parallel(compile_changes, queue, end=end):
            if isinstance(result, UserError):  # sizes that do not divide on this mesh
                refused[name] = str(result)
            else:
                done[name] = result
                with file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"key": key, "name": name} | result) + "\n")
            progress.advance(bar)
    least = min(found.all, key=lambda one: one.bytes)
    ranked = sorted(done.values(), key=_rank)
    return {
        "fits": any(one["fits"] for one in ranked),
        "phase": found.phase,
        "ranked": ranked,
        "least": {"changes": least.changes, "bytes": int(least.bytes)},
        "refused": refused,
        "left": queue.left(),
        "passed_over": queue.passed_over,
    }


def fingerprint(config: Config, *, topology: Topology, assumptions: Assumptions) -> str:
    """Return a short hash of everything but the changes on which a stored result depends."""
    text = json.dumps([to_json(config), str(topology), str(assumptions)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def meshes(config: Config, *, topology: Topology) -> list[dict[str, Any]]:
    """Return the mesh shapes to try: parameters replicated, or sharded over 4, 16 ... or all chips of a slice.

    With a preset of sharding rules, several sizes of `tensor` are tried where heads and widths divide, each with the
    smallest and the largest `fsdp` only. With a table of rules of its own, a config keeps its `tensor`.
    """
    chips, own = topology.shards, field_of(make_mesh, config.mesh, field="tensor")
    preset = create_rules(config) in PRESETS.values()
    found = []
    for tensor in [size for size in _TENSOR if _divides(config, tensor=size)] if preset else [own]:
        most = chips // tensor
        sizes = sorted({size for size in (1, 4, 16, 64, 256, most) if size <= most and most % size == 0})
        if tensor > 1 and preset:
            sizes = sorted({sizes[0], sizes[-1]})
        found += [mesh_changes(config, fsdp=size, tensor=tensor) for size in sizes]
    return found


def _divides(config: Config, *, tensor: int) -> bool:
    """Return whether the heads and the width of every tower divide by `tensor`."""
    sizes = [
        argument_of(config.model[side], side=side, field=field)
        for side in TOWERS
        if config.model.get(side) is not None
        for field in ("heads", "width")
    ]
    return all(size % tensor == 0 for size in sizes if size is not None)


class _Candidates(NamedTuple):
    phase: Hashable | None
    all: list[Candidate]

    def promising(self, topology: Topology) -> list[Candidate]:
        """Return the candidates that may fit, the most promising first: few FLOPs, few parts, few shards."""
        limit = usable_bytes(topology)
        return [one for one in sorted(self.all, key=lambda one: one.order) if one.bytes <= limit]


def usable_bytes(topology: Topology) -> float:
    """Return the bytes of a chip that a program may use, infinity on fake devices."""
    return topology.chip.usable_bytes if topology.chip else float("inf")


def _candidates(
    config: Config,
    *,
    topology: Topology,
    devices: Sequence[Any],
    assumptions: Assumptions,
    tick: Callable[[], None],
) -> _Candidates:
    """Estimate the memory of every combination of mesh shape, remat policy and microbatch."""
    rate = _flop_rate(topology, assumptions=assumptions)
    shapes = []
    for changes in meshes(config, topology=topology):
        with contextlib.suppress(UserError):  # a size that does not divide by this mesh
            resident = make_parts(changed(config, changes), devices=devices).standing_bytes
            shapes.append((changes, resident))
    if not shapes:
        raise UserError("no mesh shape suits this config; run plan without --search to see the error of its own mesh")
    phases = trace_phases(changed(config, shapes[0][0]), devices=devices)
    phase = phases[0].phase if len(phases) > 1 else None
    found, refused = [], None
    for policy in _POLICIES:
        traces: dict[int, Any] = {}
        for parts in _TRACED_PARTS:
            tick()
            try:
                kind = {"model.remat": policy, "loss.microbatch": parts}
                traces[parts] = trace(changed(config, shapes[0][0] | kind), devices=devices, phase=phase)
            except UserError as error:  # a batch that does not divide by so many parts
                refused = error
        for parts, cached in [(parts, True) for parts in _MICROBATCHES] + [(_LOOPED_PARTS, False)]:
            traced = traces.get(min(parts, _TRACED_PARTS[-1]) if cached else 1)
            if traced is None:
                continue
            kind = {"model.remat": policy, "loss.microbatch": parts}
            kind |= {"loss.grad_cache": cached} if parts > 1 else {}
            # GradCache keeps of one part at a time.
            kept = traced.kept * (min(1.0, _TRACED_PARTS[-1] / parts) if cached else 1.0)
            for changes, resident in shapes:
                if config.data.batch_size % (parts * topology.devices // changes["mesh.tensor"]):
                    continue
                order = (traced.flops.on_tiles, parts, changes["mesh.tensor"], changes["mesh.fsdp"])
                least = traced.flops.on_tiles / traced.mesh.size / rate
                found.append(Candidate(changes | kind, bytes=resident + kept / _DOUBT, least_s=least, order=order))
    if not found and refused is not None:
        raise refused
    return _Candidates(phase=phase, all=found)


def _flop_rate(topology: Topology, *, assumptions: Assumptions) -> float:
    """Return the FLOP/s of a chip's matrix products that the estimate assumes, infinity on fake devices."""
    if topology.chip is None:
        return float("inf")
    share = assumptions.on(topology.chip).matmul
    assert share is not None
    return share * topology.chip.peak_flops


def _read(file: Path, *, key: str) -> dict[str, dict[str, Any]]:
    """Return {described changes: summary} of the stored results for this config, topology and assumptions."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            kept = json.loads(line)
        except json.JSONDecodeError:  # the last line of a search that was killed while it wrote
            continue
        if kept.pop("key", None) == key:
            found[kept.pop("name")] = kept
    return found


def _rank(found: dict[str, Any]) -> tuple[bool, float]:
    time = found["time"]
    return not found["fits"], time["step_s"] if time else 0.0
