"""Processes that a scheduler has started together, but that do not know of each other."""

import os
from collections.abc import Mapping

from ...base.errors import UserError

# Number of the task and count of the tasks, as launchers give them to each. SLURM_NTASKS alone proves nothing: it is
# also set in a batch script, which runs once whatever the number of tasks that it may start.
_LAUNCHERS = {
    "Slurm (srun)": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    "MPI (PMI)": ("PMI_RANK", "PMI_SIZE"),
    "MVAPICH": ("MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
}


def check_tasks(*, processes: int, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to train alone as one of several tasks of a launcher, each of which would train in the same workdir.

    Args:
      processes: how many processes train together.
      environment: variables of this process.

    Raises:
      UserError: `processes` is 1, and a launcher has started several tasks; it names the flags to give.
    """
    if processes > 1:
        return
    for launcher, (rank_name, size_name) in _LAUNCHERS.items():
        rank, size = _number(environment, rank_name), _number(environment, size_name)
        if (rank or 0) > 0 or (rank is not None and (size or 0) > 1):
            seen = ", ".join(f"{n}={environment[n]}" for n in (rank_name, size_name) if n in environment)
            raise UserError(
                f"{launcher} has started several tasks of this command ({seen}), and each of them would train alone in "
                "the same workdir. Give --distributed, so that they train together (outside of Slurm, Open MPI, "
                "Kubernetes and TPU pods: --coordinator HOST:PORT --num_processes P --process_id p), or start a single "
                f"task. If each task is a run of its own with its own --workdir, start it with `env -u {rank_name}`"
            )


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isdecimal() else None
