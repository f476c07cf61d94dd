"""`twinreel launch`: start several processes of a verb, here or on a cluster."""

from collections.abc import Sequence

from ..base.errors import UserError, unknown
from ..base.parser import Parser
from ..launch import gke, local, slurm, tpu_vm
from .job import split

DESCRIPTION = """Start several processes of `pretrain` or `finetune`, on this machine or on a cluster.

  twinreel launch --backend local --num_processes 2 -- pretrain --config demo --workdir runs/two
  twinreel launch --backend slurm --nodes 4 --gpus_per_node 8 --time 24:00:00 -- pretrain --config small_26m ...
  twinreel launch --backend gke --tpu v5e --topology 16x16 --image IMAGE --queue lq -- pretrain --config small_26m ...
  twinreel launch --backend tpu-vm --tpu_name pod --zone us-central2-b -- pretrain --config small_26m ...

What stands after -- is the verb with its flags, as one process alone would get it; launch adds those by which the
processes find each other. --dry_run prints the exact commands or files and starts nothing. Each backend has flags of
its own: `twinreel launch --backend local --help` and so on lists them.

local shows the lines of all processes with their numbers and keeps a log of each. If one dies the others are ended and
its last lines are shown; Ctrl-C and SIGTERM are passed on, so that all save. slurm writes a script and gives it to
sbatch; before the time limit the run saves and goes back into the queue. gke writes a JobSet, as xpk does, and gives it
to kubectl. tpu-vm runs the command on every host of a TPU VM, by gcloud."""

BACKENDS = {"local": local, "slurm": slurm, "gke": gke, "tpu-vm": tpu_vm}


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    own, job = split(argv)
    chosen = _backend(own)
    parser = Parser(verb="launch", description=DESCRIPTION)
    parser.add_argument("--backend", required=True, help=" | ".join(BACKENDS))
    parser.add_argument("--dry_run", action="store_true", help="print the commands or files; start nothing")
    if chosen is not None:
        if chosen not in BACKENDS:
            raise unknown("--backend", chosen, BACKENDS)
        BACKENDS[chosen].add_flags(parser.add_argument_group(f"--backend {chosen}"))
    args, _ = parser.parse(own)
    if job is None:
        raise UserError("which verb? write it after --, for example: ... -- pretrain --config demo --workdir runs/two")
    return BACKENDS[args.backend].launch(job, args=args)


def _backend(argv: Sequence[str]) -> str | None:
    """Return the value of --backend, which decides what other flags there are."""
    for i, token in enumerate(argv):
        if token == "--backend":
            return argv[i + 1] if i + 1 < len(argv) else None
        if token.startswith("--backend="):
            return token.removeprefix("--backend=")
    return None
