"""Several processes on Cloud TPU virtual machines: one command on every host, by gcloud."""

import argparse
import json
import shlex
import shutil
import subprocess
from typing import Any

from ..base.errors import UserError
from .job import Job


def add_flags(group: Any) -> None:
    """Add the flags of this backend to an argparse group."""
    group.add_argument("--tpu_name", required=True, help="name of the TPU VM")
    group.add_argument("--zone", required=True, help="its zone")
    group.add_argument("--project", default="", help="its project; by default gcloud's")
    group.add_argument("--create", default="", metavar="TYPE", help="queue for such a TPU first, as v5litepod-256")
    group.add_argument("--runtime_version", default="", help="with --create: the software, such as v2-alpha-tpuv5-lite")
    group.add_argument("--spot", action="store_true", help="with --create: spot capacity")
    group.add_argument("--dir", default="", help="folder on the hosts to run in; by default the home")
    group.add_argument("--setup", action="append", default=[], metavar="LINE", help="a shell line to run first")
    group.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="an environment variable")
    group.add_argument("--python", default="python3", help="the Python on the hosts")


def launch(job: Job, *, args: argparse.Namespace) -> int:
    """Run `job` on all hosts of the TPU VM, show their output, and wait until it has ended.

    Returns:
      gcloud's exit status.

    Raises:
      UserError: flags that contradict each other, or no gcloud on this machine.
    """
    commands = gcloud_commands(job, args=args)
    if args.dry_run:
        print(json.dumps({"commands": commands}) if args.json else "\n".join(map(shlex.join, commands)))
        return 0
    if shutil.which("gcloud") is None:
        raise UserError("gcloud is not installed here; --dry_run prints the commands")
    for command in commands:
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    return 0


def gcloud_commands(job: Job, *, args: argparse.Namespace) -> list[list[str]]:
    """Return the commands: with --create the queued resource and the wait for it, then the run on all hosts.

    Raises:
      UserError: flags that contradict each other.
    """
    if bool(args.create) != bool(args.runtime_version):
        raise UserError("--create TYPE and --runtime_version VERSION go together")
    if args.spot and not args.create:
        raise UserError("--spot is the kind of capacity to queue for; it needs --create TYPE")
    where = [f"--zone={args.zone}", *([f"--project={args.project}"] if args.project else [])]
    tpus = ["gcloud", "compute", "tpus"]
    commands = []
    if args.create:
        commands.append(
            [*tpus, "queued-resources", "create", args.tpu_name, f"--node-id={args.tpu_name}", *where,
             f"--accelerator-type={args.create}", f"--runtime-version={args.runtime_version}",
             *(["--spot"] if args.spot else [])]
        )  # fmt: skip
        state = shlex.join(
            [*tpus, "queued-resources", "describe", args.tpu_name, *where, "--format=value(state.state)"]
        )
        wait = f'until s=$({state}) && [ "$s" = ACTIVE ]; do case $s in FAILED|SUSPENDED) exit 1;; esac; sleep 30; done'
        commands.append(["bash", "-c", wait])
    commands.append(
        [*tpus, "tpu-vm", "ssh", args.tpu_name, *where, "--worker=all", f"--command={remote_line(job, args=args)}"]
    )
    return commands


def remote_line(job: Job, *, args: argparse.Namespace) -> str:
    """Return the shell line that each host runs; jax finds the other hosts from the TPU's metadata."""
    for text in args.env:
        if not text.partition("=")[0].isidentifier() or "=" not in text:
            raise UserError(f"--env must be NAME=VALUE, got {text!r}")
    enter = [f"cd {shlex.quote(args.dir)}"] if args.dir else []
    variables = [f"export {name}={shlex.quote(value)}" for name, _, value in (t.partition("=") for t in args.env)]
    run = job.line(python=args.python, join=["--distributed"])
    return " && ".join([*enter, *args.setup, "export PYTHONUNBUFFERED=1", *variables, f"exec {run}"])
