"""`twinreel plan --search`: which mesh shape, remat policy and microbatch make the fastest step that fits."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from ...configs.errors import UserError
from ...configs.load import Config, to_json
from ...engine.cost.roofline import Assumptions
from ..step_parts import make_parts
from .advice import REMAT, entry, with_fsdp, words
from .program import changed, compile_traced, trace
from .topology import Topology, topology_devices

_MICROBATCHES = (1, 2, 4, 8, 16)
# The estimate of memory before compiling may be too high by this much: the compiler fuses what it says is kept.
_DOUBT = 2.0


def search(
    config: Config, *, topology: Topology, assumptions: Assumptions, workdir: Path, tries: int, quiet: bool = False
) -> list[dict[str, Any]]:
    """Rank changes to a config by the estimated step time of those that fit.

    Every remat policy with every microbatch is traced once (seconds), which with each mesh shape gives an estimate of
    memory. Those that cannot fit are dropped, of the rest the `tries` with the fewest FLOPs are compiled. Each result
    is written to `workdir/search.jsonl` at once: a search that was stopped goes on where it was.

    Args:
      config: what is changed.
      topology: chips to plan for.
      assumptions: of the time estimate.
      workdir: folder of search.jsonl.
      tries: the most programs to compile; those that were compiled before count.
      quiet: no progress bar.

    Returns:
      Entries of `advice.entry`, those that fit first, the fastest first.
    """
    devices = topology_devices(topology)
    workdir.mkdir(parents=True, exist_ok=True)
    file = workdir / "search.jsonl"
    done = _read(file, key=fingerprint(config, topology=topology, assumptions=assumptions))
    console = Console(stderr=True, quiet=quiet)
    with Progress(console=console) as progress:
        bar = progress.add_task("tracing", total=len(REMAT) * len(_MICROBATCHES))
        chosen = _promising(config, topology=topology, devices=devices, tick=lambda: progress.advance(bar))[:tries]
        bar = progress.add_task("compiling", total=len(chosen))
        for changes in chosen:
            name = words(changes)
            progress.update(bar, description=f"compiling {name}")
            if name not in done:
                traced = trace(changed(config, changes), devices=devices)
                done[name] = entry(changes, compiled=compile_traced(traced, topology=topology, assumptions=assumptions))
                line = {"key": fingerprint(config, topology=topology, assumptions=assumptions), "name": name}
                with file.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line | done[name]) + "\n")
            progress.advance(bar)
    return sorted(done.values(), key=_rank)


def fingerprint(config: Config, *, topology: Topology, assumptions: Assumptions) -> str:
    """Return what a kept result depends on beside its changes, as a short hash."""
    text = json.dumps([to_json(config), str(topology), str(assumptions)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def mesh_changes(config: Config, *, chips: int) -> list[dict[str, Any]]:
    """Return the mesh shapes to try: parameters whole, or split over 4, 16 ... or all chips."""
    sizes = sorted({size for size in (1, 4, 16, 64, 256, chips) if size <= chips and chips % size == 0})
    return [with_fsdp(config, fsdp=size) for size in sizes]


def _promising(
    config: Config, *, topology: Topology, devices: Sequence[Any], tick: Callable[[], None]
) -> list[dict[str, Any]]:
    """Return changes that may fit by the traces, the most promising first: few FLOPs, few parts, few splits."""
    limit = topology.chip.hbm_bytes if topology.chip else float("inf")
    meshes = []
    for changes in mesh_changes(config, chips=topology.chips):
        with contextlib.suppress(UserError):  # a size that does not divide by this mesh
            standing = make_parts(changed(config, changes), devices=devices).standing_bytes
            meshes.append((changes, standing))
    if not meshes:
        raise UserError("no mesh shape suits this config; plan without --search says what is wrong with its own")
    scored, refused = [], None
    for kind in _kinds():
        tick()
        try:
            traced = trace(changed(config, meshes[0][0] | kind), devices=devices)
        except UserError as error:  # a batch that does not divide by so many parts
            refused = error
            continue
        for changes, standing in meshes:
            if standing + traced.kept / _DOUBT <= limit:
                order = (traced.flops.hardware, kind["loss.microbatch"], changes["mesh.fsdp"])
                scored.append((order, changes | kind))
    if not scored and refused is not None:
        raise refused
    return [changes for _, changes in sorted(scored, key=lambda one: one[0])]


def _kinds() -> Iterator[dict[str, Any]]:
    """Yield combinations of remat policy and microbatch."""
    for policy in REMAT:
        for parts in _MICROBATCHES:
            yield {"model.remat": policy, "loss.microbatch": parts}


def _read(file: Path, *, key: str) -> dict[str, dict[str, Any]]:
    """Return {changes in words: entry} of the results that are kept for this config, topology and assumptions."""
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
