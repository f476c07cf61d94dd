"""Several processes under SLURM: a batch script, in which jax reads the cluster from SLURM's variables."""

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..base.errors import UserError
from .job import Job


def add_flags(group: Any) -> None:
    """Add the flags of this backend to an argparse group."""
    group.add_argument("--nodes", type=int, default=1, help="number of nodes")
    group.add_argument("--tasks_per_node", type=int, help="processes on each node; by default one, or one per GPU")
    group.add_argument("--cpus_per_task", type=int, help="cores of each process")
    group.add_argument("--gpus_per_node", type=int, default=0, help="GPUs of each node; jax gives one to each process")
    group.add_argument("--mem", default="", help="memory of each node, such as 64G")
    group.add_argument("--time", default="", help="time limit, such as 24:00:00; by default the partition's")
    group.add_argument("--save_before", type=int, default=300, help="the run saves so many seconds before the limit")
    group.add_argument("--max_requeues", type=int, default=100, help="maximum number of requeues; 0 = never")
    group.add_argument("--partition", default="", help="partition of the cluster")
    group.add_argument("--account", default="", help="account to charge")
    group.add_argument("--qos", default="", help="quality of service")
    group.add_argument("--sbatch", action="append", default=[], metavar="OPTION", help="a further #SBATCH option")
    group.add_argument("--setup", action="append", default=[], metavar="LINE", help="a shell line to run first")
    group.add_argument(
        "--logs",
        default="",
        help="folder for logs and script; by default logs/ in the verb's --workdir, of a URL runs/launch/logs",
    )
    group.add_argument("--python", default=sys.executable, help="the Python on the nodes")
    group.add_argument("--wait", action="store_true", help="wait until the job has ended and return its exit status")


def launch(job: Job, *, args: argparse.Namespace) -> int:
    """Write the batch script, submit it and print the number of the job.

    Raises:
      UserError: a flag that SLURM would reject, no sbatch on this machine, or a script that sbatch rejects.
    """
    logs = Path(args.logs or job.logs).absolute()
    text = script(job, args=args, logs=logs)
    path = logs / f"{job.name}.sbatch"
    command = ["sbatch", "--parsable", *(["--wait"] if args.wait else []), str(path)]
    if args.dry_run:
        content = {"script": str(path), "text": text, "command": command}
        print(json.dumps(content) if args.json else f"# {path}\n{text}# {shlex.join(command)}")
        return 0
    if shutil.which("sbatch") is None:
        raise UserError("sbatch is not installed here; run launch on a login node of the cluster, or add --dry_run")
    logs.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    number = process.stdout.readline().strip().split(";")[0]
    if number:
        print(f"job {number}; logs {logs}/{number}*; `squeue -j {number}` shows it, `scancel {number}` cancels it")
    error = process.stderr.read().strip()
    status = process.wait()
    if not number:
        raise UserError(f"sbatch rejected {path}: {error}")
    return status


def script(job: Job, *, args: argparse.Namespace, logs: Path) -> str:
    """Return the batch script.

    Before the time limit SLURM signals the batch shell, which passes SIGTERM to all processes: they save at the same
    step and end, and the job goes back into the queue under its number. A job that SLURM itself preempts gets the same
    SIGTERM from SLURM, which requeues it.

    Raises:
      UserError: a flag that SLURM would reject.
    """
    tasks = _tasks(args)
    options = {
        "job-name": job.name,
        "nodes": args.nodes,
        "ntasks-per-node": tasks,
        "cpus-per-task": args.cpus_per_task,
        "gpus-per-node": args.gpus_per_node,
        "mem": args.mem,
        "time": args.time,
        "partition": args.partition,
        "account": args.account,
        "qos": args.qos,
        "output": f"{logs}/%j.out",
        "signal": f"B:USR1@{args.save_before}",
        "open-mode": "append",
    }
    lines = [f"#SBATCH --{key}={_sbatch_value(str(value))}" for key, value in options.items() if value]
    lines.append("#SBATCH --requeue" if args.max_requeues else "#SBATCH --no-requeue")
    lines += [f"#SBATCH {option if option.startswith('-') else '--' + option}" for option in args.sbatch]
    # jax reads host, port, number and index of processes from SLURM's variables; srun does not inherit cpus-per-task.
    cores = f" --cpus-per-task={args.cpus_per_task}" if args.cpus_per_task else ""
    output = shlex.quote(f"{logs}/%j-%t.log")
    again = f'[ -n "$stopped" ] && [ "$status" = 0 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {args.max_requeues} ]'
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            "",
            *args.setup,
            "stopped= signalled=",
            "# Signal the processes, not srun, which would kill them. SIGTERM from SLURM itself reaches them, too.",
            "trap 'stopped=1 signalled=1; scancel --signal=TERM \"$SLURM_JOB_ID\"' USR1",
            "trap 'signalled=1' TERM",
            f"srun --kill-on-bad-exit=1 --open-mode=append{cores} --output={output} \\",
            f"  {job.line(python=args.python, join=['--distributed'])} &",
            "step=$!",
            "# A trap ends `wait`: wait again until the processes have saved and ended.",
            'while :; do signalled=; wait "$step"; status=$?; [ -n "$signalled" ] || break; done',
            f"if {again}; then",
            '  scontrol requeue "$SLURM_JOB_ID"',
            "fi",
            'exit "$status"',
            "",
        ]
    )


def _tasks(args: argparse.Namespace) -> int:
    """Check the flags; return the number of processes of a node."""
    if args.time and not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", args.time):
        raise UserError(f"--time must be 30, 12:00:00 or 2-00:00:00 in form (minutes, hours, days), got {args.time!r}")
    for name in ("nodes", "tasks_per_node", "cpus_per_task"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    tasks = args.tasks_per_node or max(1, args.gpus_per_node)
    if args.gpus_per_node and tasks != args.gpus_per_node:
        raise UserError(
            f"--tasks_per_node={tasks} must be equal to --gpus_per_node={args.gpus_per_node}: jax gives each "
            "SLURM process one GPU; omit --tasks_per_node"
        )
    return tasks


def _sbatch_value(value: str) -> str:
    if re.search(r"[\n\"]", value):
        raise UserError(f"a value for SLURM may hold neither a line break nor a double quote, got {value!r}")
    return f'"{value}"' if " " in value else value
