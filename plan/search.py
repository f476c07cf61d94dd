"""`twinreel plan --search`: find the mesh shape, remat policy and microbatch of the fastest step that fits."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Sequence
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
from .topology import Topology, topology_devices

_TENSOR = (1, 2, 4)
_MICROBATCHES = (1, 2, 4, 8, 16, 32)
# The four names store the results of products; scores, softmax and activation functions are recomputed.
_POLICIES = (*REMAT, "names:qkv,attention,hidden,tokens")
# The estimate of memory before compiling may be too high by this factor: the compiler fuses operations.
_DOUBT = 2.0


def search(
    config: Config, *, topology: Topology, assumptions: Assumptions, workdir: Path, tries: int, quiet: bool = False
) -> dict[str, Any]:
    """Rank changes to a config by the estimated step time of those that fit.

    Every remat policy is traced with every microbatch (seconds each), which gives an estimate of memory for each mesh
    shape. Of the candidates that may fit, the `tries` with the fewest FLOPs are compiled. Each result is appended to
    `workdir/search.jsonl`, from which an interrupted search resumes. Of a run with several phases only the largest is
    searched.

    Args:
      config: the config to change.
      topology: chips to plan for.
      assumptions: of the time estimate.
      workdir: folder of search.jsonl.
      tries: number of programs to compile, including those of an interrupted search.
      quiet: show no progress bar.

    Returns:
      JSON values: `fits`, whether any candidate does; `ranked`, the values of `advice.summary`, those that fit first,
      in order of step time; `phase`, None for a run with one phase; `least`, the `changes` with the smallest
      estimate of memory and its `bytes`; `refused`, changes that turned out to be impossible, with the reason.
    """
    devices = topology_devices(topology)
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / "search.jsonl"
    key = fingerprint(config, topology=topology, assumptions=assumptions)
    done, refused = _read(file, key=key), {}
    with Progress(console=Console(stderr=True, quiet=quiet)) as progress:
        bar = progress.add_task("tracing", total=len(_POLICIES) * len(_MICROBATCHES))
        found = _candidates(config, topology=topology, devices=devices, tick=lambda: progress.advance(bar))
        chosen = found.promising(topology)[:tries]
        bar = progress.add_task("compiling", total=len(chosen))
        for changes in chosen:
            name = describe_changes(changes)
            progress.update(bar, description=f"compiling {name}")
            if name not in done:
                try:
                    traced = trace(changed(config, changes), devices=devices, phase=found.phase)
                except UserError as error:  # sizes that do not divide on this mesh
                    refused[name] = str(error)
                    continue
                compiled = compile_traced(traced, topology=topology, assumptions=assumptions)
                done[name] = summary(changes, compiled=compiled)
                with file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps({"key": key, "name": name} | done[name]) + "\n")
            progress.advance(bar)
    ranked = sorted(done.values(), key=_rank)
    least = min(found.all, key=lambda one: one.bytes)
    return {
        "fits": any(one["fits"] for one in ranked),
        "phase": found.phase,
        "ranked": ranked,
        "least": {"changes": least.changes, "bytes": int(least.bytes)},
        "refused": refused,
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


class _Candidate(NamedTuple):
    """Changes to try, their estimate of memory on a chip, and their sort key (lower is better)."""

    changes: dict[str, Any]
    bytes: float
    order: tuple[float, ...]


class _Candidates(NamedTuple):
    phase: Hashable | None
    all: list[_Candidate]

    def promising(self, topology: Topology) -> list[dict[str, Any]]:
        """Return the candidates that may fit, the most promising first: few FLOPs, few parts, few shards."""
        limit = topology.chip.usable_bytes if topology.chip else float("inf")
        return [one.changes for one in sorted(self.all, key=lambda one: one.order) if one.bytes <= limit]


def _candidates(config: Config, *, topology: Topology, devices: Sequence[Any], tick: Callable[[], None]) -> _Candidates:
    """Estimate the memory of every combination of mesh shape, remat policy and microbatch."""
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
    for kind in _kinds():
        tick()
        try:
            traced = trace(changed(config, shapes[0][0] | kind), devices=devices, phase=phase)
        except UserError as error:  # a batch that does not divide by so many parts
            refused = error
            continue
        for changes, resident in shapes:
            order = (traced.flops.hardware, kind["loss.microbatch"], changes["mesh.tensor"], changes["mesh.fsdp"])
            found.append(_Candidate(changes | kind, bytes=resident + traced.kept / _DOUBT, order=order))
    if not found and refused is not None:
        raise refused
    return _Candidates(phase=phase, all=found)


def _kinds() -> Iterator[dict[str, Any]]:
    """Yield combinations of remat policy and microbatch."""
    for policy in _POLICIES:
        for parts in _MICROBATCHES:
            yield {"model.remat": policy, "loss.microbatch": parts}


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
