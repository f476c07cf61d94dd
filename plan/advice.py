"""Changes to a config that does not fit: remat policy, microbatch, fsdp size; each is compiled until one fits."""

import dataclasses
import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ..base.config import Config
from ..base.errors import UserError
from ..base.section import field_of, section
from ..cost.roofline import Assumptions
from ..engine.loop.train import create_rules
from ..engine.sharding.rules import FSDP, REPLICATED
from ..pretrain.loss_options import LossOptions
from ..zoo.spec import ModelOptions
from .program import Compiled, OutOfMemory, Traced, changed, compile_traced, trace
from .topology import Topology

REMAT = ("none", "dots", "dots_no_batch", "full")
"""Rematerialisation policies, from the one that stores most to the one that stores least."""

FIELDS = {"remat": "model.remat", "microbatch": "loss.microbatch", "fsdp": "mesh.fsdp"}
"""Kind of change -> its config field."""

_MAX_TRIES = 3  # programs that are compiled for one kind of change


def find_changes(
    config: Config,
    *,
    traced: Traced,
    failed: OutOfMemory,
    topology: Topology,
    devices: Sequence[Any],
    assumptions: Assumptions,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """Try one kind of change after another, each until the step fits.

    Args:
      config: a config that does not fit.
      traced: its step, in the largest phase of the run; the changes are tried in the same phase.
      failed: the compiler's report.
      topology: the chips.
      devices: their devices, from `topology_devices`.
      assumptions: of the time estimate.
      progress: called with a line for each program that is compiled.

    Returns:
      One dict for each kind that the config leaves room for: `kind` ("remat", "microbatch", "fsdp"), `changes` (config
      field -> value), `fits`, `memory_bytes` (on a chip), `time` as in `plan`.
    """
    found = []
    for kind, steps in _ladders(config, traced=traced, failed=failed).items():
        best = None
        for changes in steps:
            progress(f"does not fit; trying {describe_changes(changes)}")
            try:
                step = trace(changed(config, changes), devices=devices, phase=traced.phase)
                compiled = compile_traced(step, topology=topology, assumptions=assumptions)
            except UserError as error:  # a size that does not divide
                progress(f"  not possible: {error}")
                continue
            best = summary(changes, compiled=compiled) | {"kind": kind}
            if best["fits"]:
                break
        if best is None:
            progress(f"does not fit; config.{FIELDS[kind]} cannot be changed further")
        else:
            found.append(best)
    return found


def describe_changes(changes: Mapping[str, Any]) -> str:
    """Return changes as assignments to config fields.

    >>> describe_changes({"model.remat": "full", "loss.microbatch": 4})
    "config.model.remat='full', config.loss.microbatch=4"
    """
    return ", ".join(f"config.{key}={value!r}" for key, value in changes.items()) or "unchanged"


def flags(changes: Mapping[str, Any]) -> str:
    """Return changes as command-line flags, quoted for a shell.

    >>> flags({"model.remat": "full", "loss.microbatch": 4})
    '--config.model.remat=full --config.loss.microbatch=4'
    """
    return " ".join(shlex.quote(f"--config.{key}={value}") for key, value in changes.items())


def summary(changes: Mapping[str, Any], *, compiled: Compiled) -> dict[str, Any]:
    """Return the JSON values of a program that was tried."""
    return {
        "changes": dict(changes),
        "fits": compiled.out_of_memory is None,
        "memory_bytes": compiled.memory.total if compiled.memory else None,
        "needed_bytes": compiled.out_of_memory.needed if compiled.out_of_memory else None,
        "time": dataclasses.asdict(compiled.estimate) if compiled.estimate else None,
        "compile_s": compiled.compile_s,
    }


def mesh_changes(config: Config, *, fsdp: int, tensor: int | None = None) -> dict[str, Any]:
    """Return the changes that shard parameters over fsdp x tensor devices, including the sharding rules if need be.

    Args:
      config: a table of sharding rules of its own stays; a preset is replaced by the preset that shards over these
        axes.
      fsdp: size of the mesh axis.
      tensor: size of the mesh axis; None = unchanged.
    """
    changes: dict[str, Any] = {"mesh.replica": -1, "mesh.fsdp": fsdp}
    if tensor is not None:
        changes["mesh.tensor"] = tensor
    rules = create_rules(config)
    if rules == REPLICATED and fsdp > 1:
        changes["sharding.rules"] = "fsdp"
    if rules in (REPLICATED, FSDP) and tensor is not None and tensor > 1:
        changes["sharding.rules"] = "fsdp_tensor"
    return changes


def _ladders(config: Config, *, traced: Traced, failed: OutOfMemory) -> dict[str, Iterator[dict[str, Any]]]:
    return {
        "remat": _remat_steps(config),
        "microbatch": _microbatch_steps(config, traced=traced, failed=failed),
        "fsdp": _fsdp_steps(config, traced=traced),
    }


def _remat_steps(config: Config) -> Iterator[dict[str, Any]]:
    """Yield policies that store less than the present one, in falling order."""
    now = field_of(ModelOptions, config.model, field="remat")
    start = REMAT.index(now) + 1 if now in REMAT else len(REMAT) - 1
    yield from ({"model.remat": policy} for policy in REMAT[start:][-_MAX_TRIES:])


def _microbatch_steps(config: Config, *, traced: Traced, failed: OutOfMemory) -> Iterator[dict[str, Any]]:
    """Yield numbers of parts of the batch in rising order: those that should suffice, and the largest possible one."""
    loss = section(LossOptions, config.loss, name="loss")
    now, cached = loss.microbatch, {} if loss.grad_cache else {"loss.grad_cache": True}
    rows = config.data.batch_size // traced.parts.ways
    room = max(1, (failed.limit or 0) - traced.parts.standing_bytes)
    wanted = now * max(2.0, (failed.needed or 0) / room)
    larger = [parts for parts in range(now + 1, rows + 1) if rows % parts == 0]
    nearest = sorted(larger, key=lambda parts: abs(math.log(parts / wanted)))[: _MAX_TRIES - 1]
    yield from ({"loss.microbatch": parts} | cached for parts in sorted({*nearest, *larger[-1:]}))


def _fsdp_steps(config: Config, *, traced: Traced) -> Iterator[dict[str, Any]]:
    """Yield larger fsdp sizes, up to all devices."""
    now, most = traced.mesh.shape["fsdp"], traced.parts.ways
    sizes = [size for size in (4, 16, 64, 256, most) if now < size <= most and most % size == 0]
    yield from (mesh_changes(config, fsdp=size) for size in sorted(set(sizes))[-_MAX_TRIES:])
