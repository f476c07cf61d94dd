"""Checks of all processes before the first step, so that a fault has a host's name instead of being a hang.

The processes tell each other what they found through the key-value store of jax's coordinator, not by collectives: a
process that is missing or differs is named after a time limit, while a collective would wait for it or crash.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import ml_collections

from ...base.config import difference, to_json
from ...base.errors import UserError
from .code import code_version
from .join import hosts_by_process, store

_SKEW_S = 30.0  # clocks further apart spoil logs, file times and tokens of storage services
_SHARED_WAIT_S = 15.0  # network file systems show a new file to other hosts only after some seconds
_SHOWN = 8
_UNKNOWN = "an unknown host"
_round = itertools.count()

Made = TypeVar("Made")
Facts = dict[str, Any]
Judge = Callable[[Sequence[Facts]], list[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checks:
    """What to look at.

    Attributes:
      config: the config of this start; all processes must have the same.
      workdir: must be writable, and the same folder for all unless it is a stage.
      staged: whether each process has a folder of its own, the stage of a workdir in an object store.
      state: what a checkpoint holds, as ShapeDtypeStructs or arrays; the disk must have room for one.
      readable: tries whether the data can be read; raises UserError or OSError if not. None = nothing to try.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    state: Any
    readable: Callable[[], None] | None
    staged: bool = False


def preflight(checks: Checks, *, timeout_s: float) -> str:
    """Check processes, code, config, data, workdir, disk and clocks; all processes must call it.

    Args:
      checks: what to look at.
      timeout_s: seconds to wait for the slowest process at each check, config.train.preflight_timeout.

    Returns:
      One line that says what was found.

    Raises:
      UserError: with all faults, each with process and host; the same on all processes.
    """
    token = f".preflight-{uuid.uuid4().hex[:12]}"
    made = _Probe(checks.workdir, token=token) if checks.staged or jax.process_index() == 0 else None
    try:
        mine = {
            "token": token,
            "code": code_version(),
            "config": to_json(checks.config),
            "devices": [device.device_kind for device in jax.local_devices()],
            "faults": _own_faults(checks, made=made),
        }
        first = agree("start", facts=mine, judge=_judge_start, timeout_s=timeout_s)
        now = time.time()  # all get here at one moment: when process 0 has the facts of the last
        shared = [] if checks.staged else _shared_faults(checks.workdir, token=first[0]["token"])
        seen = {"time": now, "faults": shared}
        second = agree("clock", facts=seen, judge=_judge_clock, timeout_s=timeout_s)
    finally:
        if made is not None:
            made.remove()
    return _line(first, second=second, checks=checks)


def on_all(
    name: str, make: Callable[[], Made], *, timeout_s: float, same: Callable[[Made], str] = lambda made: ""
) -> Made:
    """Make something on each process; all must call it, and what fails on one is an error on all.

    Args:
      name: what it is about.
      make: makes it; raises UserError or OSError where this process cannot.
      timeout_s: seconds to wait for the slowest process.
      same: what must be equal on all processes, as text of any length.

    Returns:
      What `make` has made here.

    Raises:
      UserError: all faults, each with process and host; of one process alone, the fault itself.
    """
    made, fault, cause = [], "", None
    try:
        made.append(make())
    except (UserError, OSError) as error:
        if jax.process_count() == 1 and isinstance(error, UserError):
            raise
        if jax.process_count() == 1:
            raise UserError(str(error)) from error
        fault, cause = str(error), error

    def judge(all_facts: Sequence[Facts]) -> list[str]:
        faults = [f"{_who(facts)}: {facts['fault']}" for facts in all_facts if facts["fault"]]
        return faults or _unequal(all_facts, key="same", what=f"has made something else of the {name}")

    digest = hashlib.sha256(same(made[0]).encode()).hexdigest()[:12] if made else ""
    try:
        agree(name, facts={"fault": fault, "same": digest}, judge=judge, timeout_s=timeout_s)
    except UserError as error:
        raise error from cause
    return made[0]


def same_programs(texts: Sequence[str], *, timeout_s: float) -> list[str]:
    """Check that all processes are about to compile the same programs; all must call it.

    Args:
      texts: the lowered programs.
      timeout_s: seconds to wait for the slowest process.

    Returns:
      The fingerprints: 12 hex digits each.

    Raises:
      UserError: a process has another program, which would hang in the first collective, or did not come.
    """
    fingerprints = [hashlib.sha256(text.encode()).hexdigest()[:12] for text in texts]

    def judge(all_facts: Sequence[Facts]) -> list[str]:
        return _unequal(all_facts, key="program", what="has lowered another program")

    agree("program", facts={"program": " ".join(fingerprints)}, judge=judge, timeout_s=timeout_s)
    return fingerprints


def agree(name: str, *, facts: Facts, judge: Judge, timeout_s: float) -> list[Facts]:
    """Gather the facts of all processes on process 0, judge them there, and give all the verdict.

    Args:
      name: what it is about; all processes must call in the same order with the same names.
      facts: JSON values of this process; "process" and "host" are added.
      judge: the facts of all processes, in their order -> faults; runs on process 0.
      timeout_s: seconds that process 0 waits for the slowest; the others wait twice as long, as it may be the slowest.

    Returns:
      The facts of all processes; all get them at about the same moment.

    Raises:
      UserError: a fault, or a process that did not come.
    """
    me, count, client = jax.process_index(), jax.process_count(), store()
    facts = {"process": me, "host": socket.gethostname(), **facts}
    if count == 1 or client is None:
        _refuse(judge([facts]))
        return [facts]
    root, patience_s, hosts = f"twinreel/preflight/{next(_round)}/{name}", 2 * timeout_s, {}
    try:
        hosts = hosts_by_process()
        client.key_value_set(f"{root}/{me}", json.dumps(facts))
        if me == 0:
            found, missing = _gather(client, root=root, count=count, timeout_s=timeout_s)
            late = _late(missing, hosts=hosts, name=name, timeout_s=timeout_s) if missing else []
            faults = late or judge(found)
            verdict = {"faults": faults, "facts": [] if faults else found}
            client.key_value_set(f"{root}/verdict", json.dumps(verdict))
        else:
            verdict = json.loads(client.blocking_key_value_get(f"{root}/verdict", int(patience_s * 1000)))
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"preflight ({name}): process {me} on {socket.gethostname()} had no answer from process 0 on "
            f"{hosts.get(0, _UNKNOWN)} within {patience_s:g} s; look what process 0 says "
            f"({str(error).splitlines()[0]})"
        ) from error
    _refuse(verdict["faults"])
    return verdict["facts"]


def _gather(client: Any, *, root: str, count: int, timeout_s: float) -> tuple[list[Facts], list[int]]:
    """Process 0: wait for the facts of all; returns those that came, and the numbers of the processes that did not."""
    deadline, found, missing = time.monotonic() + timeout_s, [], []
    for process in range(count):
        left = max(1, int((deadline - time.monotonic()) * 1000))
        try:
            found.append(json.loads(client.blocking_key_value_get(f"{root}/{process}", left)))
        except jax.errors.JaxRuntimeError:
            missing.append(process)
    return found, missing


def _late(missing: Sequence[int], *, hosts: Mapping[int, str], name: str, timeout_s: float) -> list[str]:
    names = ", ".join(f"process {p} on {hosts.get(p, _UNKNOWN)}" for p in missing[:_SHOWN])
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    return [f"{names}{more} did not reach the check {name!r} within {timeout_s:g} s; look what it says"]


def _refuse(faults: Sequence[str]) -> None:
    if faults:
        shown = "\n  ".join(faults[:_SHOWN])
        more = f"\n  ... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise UserError(f"preflight: the run cannot start:\n  {shown}{more}")


class _Probe:
    """A small file in the workdir, written and taken away by process 0; a folder made for it goes with it."""

    def __init__(self, workdir: Path, *, token: str):
        self.fault = ""
        self._workdir, self._path, self._made = workdir, workdir / token, False
        try:
            self._made = not workdir.exists()
            workdir.mkdir(parents=True, exist_ok=True)
            self._path.write_text(token)
        except OSError as error:
            self.fault = f"the workdir {workdir} cannot be written to ({error.strerror})"

    def remove(self) -> None:
        """Leave the workdir as it was."""
        if not self.fault:
            self._path.unlink(missing_ok=True)
        if self._made and self._workdir.is_dir() and not any(self._workdir.iterdir()):
            self._workdir.rmdir()


def _own_faults(checks: Checks, *, made: _Probe | None) -> list[str]:
    faults = []
    if checks.readable is not None:
        try:
            checks.readable()
        except (UserError, OSError) as error:
            faults.append(f"the data cannot be read: {error}")
    if made is not None:
        if made.fault:
            faults.append(made.fault)
        else:
            free = shutil.disk_usage(checks.workdir).free
            needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(checks.state))
            if free < needed:
                faults.append(
                    f"{checks.workdir} has {free / 1e9:.2f} GB free, and a checkpoint takes "
                    f"{needed / 1e9:.2f} GB; make room, or choose another --workdir"
                )
    return faults


def _shared_faults(workdir: Path, *, token: str) -> list[str]:
    if jax.process_index() == 0:
        return []
    deadline = time.monotonic() + _SHARED_WAIT_S
    try:
        while not (workdir / token).exists():
            if time.monotonic() > deadline:
                return [
                    f"{workdir} is another folder here than for process 0; --workdir must be in a file system that all "
                    "hosts share, or an s3:// or gs:// URL"
                ]
            time.sleep(0.05)
    except OSError as error:
        return [f"the workdir {workdir} cannot be read ({error.strerror})"]
    if not os.access(workdir, os.W_OK):
        return [f"the workdir {workdir} cannot be written to"]
    return []


def _judge_start(all_facts: Sequence[Facts]) -> list[str]:
    faults = [f"{_who(facts)}: {fault}" for facts in all_facts for fault in facts["faults"]]
    faults += _unequal(all_facts, key="code", what="runs other code")
    for facts in all_facts:
        lines = difference(all_facts[0]["config"], facts["config"])
        if lines:
            faults.append(f"{_who(facts)} has another config (process 0 -> here): {'; '.join(lines[:_SHOWN])}")
    counts = [{"devices": f"{len(facts['devices'])} x {facts['devices'][0]}", **_place(facts)} for facts in all_facts]
    return faults + _unequal(counts, key="devices", what="has other devices")


def _judge_clock(all_facts: Sequence[Facts]) -> list[str]:
    faults = [f"{_who(facts)}: {fault}" for facts in all_facts for fault in facts["faults"]]
    times = [facts["time"] for facts in all_facts]
    middle = sorted(times)[len(times) // 2] if len(times) > 2 else times[0]  # of two, process 0 is believed
    for facts in all_facts:
        ahead = facts["time"] - middle
        if abs(ahead) > _SKEW_S:
            side = "ahead of" if ahead > 0 else "behind"
            faults.append(f"{_who(facts)}: its clock is {abs(ahead):.0f} s {side} the others'; set it (NTP)")
    return faults


def _unequal(all_facts: Sequence[Facts], *, key: str, what: str) -> list[str]:
    """Return a fault for each process whose value is not that of process 0."""
    wanted = all_facts[0][key]
    return [
        f"{_who(facts)} {what} than {_who(all_facts[0])}: {facts[key]} against {wanted}"
        for facts in all_facts
        if facts[key] != wanted
    ]


def _place(facts: Facts) -> Facts:
    return {"process": facts["process"], "host": facts["host"]}


def _who(facts: Facts) -> str:
    return f"process {facts['process']} on {facts['host']}"


def _line(first: Sequence[Facts], *, second: Sequence[Facts], checks: Checks) -> str:
    hosts = {facts["host"] for facts in first}
    devices = sum(len(facts["devices"]) for facts in first)
    config = hashlib.sha256(json.dumps(first[0]["config"], sort_keys=True).encode()).hexdigest()[:12]
    times = [facts["time"] for facts in second]
    parts = [
        f"{len(first)} process{'es' if len(first) > 1 else ''} on {len(hosts)} host{'s' if len(hosts) > 1 else ''}",
        f"{devices} x {first[0]['devices'][0]}",
        f"config {config}",
        f"code {first[0]['code'].split('source ')[1].split(')')[0]}",
        *(["data readable"] if checks.readable is not None else []),
        f"workdir {'staged' if checks.staged else 'shared' if len(first) > 1 else 'writable'}",
        *([f"clocks within {max(times) - min(times):.1f} s"] if len(first) > 1 else []),
    ]
    return "preflight: " + ", ".join(parts)
