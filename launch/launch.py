"""`twinreel launch`: run a verb in several processes, on this machine or on a cluster."""

from collections.abc import Sequence

from ..base.errors import UserError, unknown
from ..base.parser import Parser
from . import gke, local, slurm, tpu_vm
from .job import split

DESCRIPTION = """Run `pretrain` or `finetune` in several processes, on this machine or on a cluster.

  twinreel launch --backend local --num_processes 2 -- pretrain --config demo --workdir runs/two
  twinreel launch --backend slurm --nodes 4 --gpus_per_node 8 --time 24:00:00 -- pretrain --config small_26m ...
  twinreel launch --backend gke --tpu v5e --topology 16x16 --image IMAGE --queue lq -- pretrain --config base_1b ...
  twinreel launch --backend tpu-vm --tpu_name pod --zone us-central2-b -- pretrain --config small_26m ...

After -- follows the verb with its flags, as for a single process; launch adds the flags by which the processes find
each other. --dry_run prints the exact commands or files and starts nothing (--json prints them as JSON). Each backend
has further flags, which `twinreel launch --backend local --help` and so on list.

local   prefixes the output of each process with its number and writes a log of each. If a process fails, the others are
        ended and its last lines are repeated. Ctrl-C, SIGTERM and a closed terminal (SIGHUP) are forwarded: all
        processes save and end.
slurm   writes a batch script and submits it with sbatch. Before the time limit the run saves and is requeued.
gke     writes a JobSet (as xpk does) and passes it to kubectl.
tpu-vm  runs the command on every host of a TPU VM, through gcloud."""

BACKENDS = {"local": local, "slurm": slurm, "gke": gke, "tpu-vm": tpu_vm}


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    own, job = split(argv)
    chosen = _backend(own)
    parser = Parser(verb="launch", description=DESCRIPTION)
    parser.add_argument("--backend", required=True, help=" | ".join(BACKENDS))
    parser.add_argument("--dry_run", action="store_true", help="print the commands or files; start nothing")
    parser.add_json()
    if chosen is not None:
        if chosen not in BACKENDS:
            raise unknown("--backend", chosen, BACKENDS)
        BACKENDS[chosen].add_flags(parser.add_argument_group(f"--backend {chosen}"))
    args, _ = parser.parse(own)
    if job is None:
        raise UserError("no verb to launch; write it after --, such as: -- pretrain --config demo --workdir runs/two")
    if args.json and not args.dry_run:
        raise UserError("--json prints the commands or files of --dry_run; add --dry_run")
    return BACKENDS[args.backend].launch(job, args=args)


def _backend(argv: Sequence[str]) -> str | None:
    """Return the value of --backend, on which the other flags depend."""
    for i, token in enumerate(argv):
        if token == "--backend":
            return argv[i + 1] if i + 1 < len(argv) else None
        if token.startswith("--backend="):
            return token.removeprefix("--backend=")
    return None
