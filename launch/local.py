"""Several processes on this machine."""

import argparse
import dataclasses
import json
import os
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import Any

from ..base.errors import UserError
from ..engine.start.gpus import gpus_of
from .job import Job
from .watch import ProcessGroup, ProcessSpec

USER_ERROR = 2  # exit status of a verb with wrong flags or a wrong config, which a restart would not fix


def add_flags(group: Any) -> None:
    """Add the flags of this backend to an argparse group."""
    group.add_argument("--num_processes", type=int, required=True, help="number of processes")
    group.add_argument("--platform", default="", help="cpu or gpu; by default jax chooses")
    group.add_argument(
        "--devices_per_process",
        type=int,
        metavar="D",
        help="cpu: number of fake devices of each; gpu: process p gets GPUs p*D to p*D+D-1 of those that are visible",
    )
    group.add_argument(
        "--logs",
        default="",
        help="folder for process-N.log; by default logs/ in the verb's --workdir, of a URL runs/launch/logs",
    )
    group.add_argument("--restart", type=int, default=0, help="number of restarts of all processes after a failure")
    group.add_argument("--grace", type=float, default=10.0, help="seconds for the others to end when a process fails")
    group.add_argument("--coordinator_port", type=int, help="port of process 0; by default a free one")


def launch(job: Job, *, args: argparse.Namespace) -> int:
    """Start the processes of `job` and wait until all have ended.

    Returns:
      0, or the exit status of the process that failed first (128 + n if signal n ended it).

    Raises:
      UserError: flags that contradict each other.
    """
    count = args.num_processes
    if count < 1:
        raise UserError(f"--num_processes must be at least 1, got {count}")
    if args.devices_per_process is not None and args.devices_per_process < 1:
        raise UserError(f"--devices_per_process must be at least 1, got {args.devices_per_process}")
    logs = Path(args.logs or job.logs)
    for attempt in range(args.restart + 1):
        port = args.coordinator_port or free_port()
        specs = [
            ProcessSpec(
                number=i,
                command=tuple(job.command(python=sys.executable, join=join_flags(port=port, count=count, number=i))),
                env=environment(args, number=i),
                log=logs / f"process-{i}.log",
            )
            for i in range(count)
        ]
        if args.dry_run:
            processes = [dataclasses.asdict(spec) | {"log": str(spec.log)} for spec in specs]
            print(json.dumps({"processes": processes}) if args.json else "\n".join(map(_line, specs)))
            return 0
        group = ProcessGroup(specs, grace_s=args.grace)
        status = group.run()
        if status in (0, USER_ERROR) or group.stopped or attempt == args.restart:
            return status
        print(f"launch: restarting all processes ({attempt + 1} of {args.restart})", file=sys.stderr)
        time.sleep(1.0)
    raise AssertionError("the loop returns")


def join_flags(*, port: int, count: int, number: int) -> list[str]:
    """Return the flags by which process `number` of `count` finds the others."""
    return [f"--coordinator=localhost:{port}", f"--num_processes={count}", f"--process_id={number}"]


def environment(args: argparse.Namespace, *, number: int) -> dict[str, str]:
    """Return the variables to add to the environment of process `number`.

    Raises:
      UserError: --devices_per_process on a platform where it does not apply, or GPUs that all processes would share.
    """
    platform, devices = args.platform or os.environ.get("JAX_PLATFORMS", ""), args.devices_per_process
    if args.platform not in ("", "cpu", "gpu"):
        raise UserError(f"--platform must be cpu or gpu, got {args.platform!r}")
    added = {"PYTHONUNBUFFERED": "1"}
    if args.platform:
        added["JAX_PLATFORMS"] = {"cpu": "cpu", "gpu": "cuda"}[args.platform]
    if devices is None:
        if platform in ("gpu", "cuda") and args.num_processes > 1:
            raise UserError(
                f"--num_processes={args.num_processes} on GPUs needs --devices_per_process, the number of GPUs "
                "of each; otherwise every process takes all of them"
            )
        return added
    if platform == "cpu":
        kept = [f for f in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f]
        added["XLA_FLAGS"] = " ".join([*kept, f"--xla_force_host_platform_device_count={devices}"])
    elif platform in ("gpu", "cuda"):
        flag = f"--num_processes={args.num_processes} --devices_per_process={devices}"
        added |= gpus_of(number, count=devices, flag=flag)
    else:
        raise UserError("--devices_per_process needs --platform cpu or --platform gpu")
    return added


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def _line(spec: ProcessSpec) -> str:
    env = [f"{key}={shlex.quote(value)}" for key, value in spec.env.items()]
    return " ".join([*env, shlex.join(spec.command)]) + f" >{shlex.quote(str(spec.log))} 2>&1"
