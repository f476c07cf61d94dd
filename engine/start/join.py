"""The start of several processes: rendezvous, joining by jax, start of the devices."""

import math
import socket
from collections.abc import Sequence
from typing import Any

import jax

# jax has no public way to detect the cluster without joining it, and none to its coordinator's key-value store. These
# are the only imports from inside of jax, and the reason why pyproject.toml bounds its version.
from jax._src import clusters
from jax._src.distributed import global_state

from ...base.errors import UserError
from .code import code_version
from .rendezvous import Rendezvous, wait_for_all

_HOSTS, _DEVICES = "twinreel/host", "twinreel/devices"  # folders in the key-value store of jax's coordinator
_SHOWN = 8


def initialize_distributed(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    init_timeout: float = 300.0,
) -> None:
    """Join the processes of one run and start their devices; call it before anything else touches jax.

    Args:
      coordinator: "host:port" of process 0; None = all three values come from the cluster (TPU pod, Slurm, Kubernetes,
        Open MPI) by jax's own detection.
      num_processes: how many processes there are.
      process_id: which one this is, from 0.
      init_timeout: seconds to wait for the others.

    Raises:
      UserError: only some of the three are given, they contradict each other, no cluster was recognised, a process is
        missing or runs other code, or the devices of one do not start; the message names the host.
    """
    # Gloo carries collectives between CPU processes; the setting means nothing to TPU and GPU.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    _check(coordinator, num_processes=num_processes, process_id=process_id)
    local_devices = None
    try:
        if coordinator is None:
            coordinator, num_processes, process_id, local_devices = _detected(init_timeout)
        if coordinator is None or num_processes is None or process_id is None:
            raise ValueError("no cluster was recognised")
        place = Rendezvous(coordinator=coordinator, num_processes=num_processes, process_id=process_id)
        hosts = wait_for_all(place, code=code_version(), timeout=init_timeout)
        jax.distributed.initialize(
            coordinator,
            num_processes=num_processes,
            process_id=process_id,
            local_device_ids=local_devices,
            initialization_timeout=math.ceil(init_timeout),
        )
    except UserError:
        raise
    except (ValueError, RuntimeError, OSError) as error:
        raise UserError(
            f"jax could not join the processes, on {socket.gethostname()}: {error}; outside a cluster that jax "
            "recognises give --coordinator HOST:PORT --num_processes P --process_id p"
        ) from error
    if process_id == 0:
        for number, host in enumerate(hosts):
            store().key_value_set(f"{_HOSTS}/{number}", host)
    start_devices(hosts)


def hosts_by_process() -> dict[int, str]:
    """Return the hosts of a run that `initialize_distributed` has joined, by process."""
    return _entries(_HOSTS)


def store() -> Any:
    """Return the key-value store of jax's coordinator; None for a process that has joined no others."""
    return global_state.client


def start_devices(hosts: Sequence[str]) -> None:
    """Start jax's devices; all processes of the run must call it.

    The processes tell each other their devices in it, so one whose devices do not start keeps the others waiting for
    some minutes, until jax gives up there as well. They then name the process at fault.

    Args:
      hosts: host names by process.

    Raises:
      UserError: this process's devices did not start, or another's; process and host are named.
    """
    me = global_state.process_id
    try:
        jax.local_devices()
    except Exception as error:  # jax has no one type for it: RuntimeError, AssertionError where a plugin is missing
        own = next(iter(str(error).strip().splitlines()), type(error).__name__)
        known = _entries(_DEVICES)
        store().key_value_set(f"{_DEVICES}/{me}", own)
        faults = [f"process {p} on {hosts[p]}: {fault}" for p, fault in sorted((known | {me: own}).items())]
        more = f"\n  ... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        shown = "\n  ".join(faults[:_SHOWN])
        raise UserError(
            f"jax could not start the devices of the run:\n  {shown}{more}\n"
            "Look whether another program, or a process of an earlier run, has them"
        ) from error


def _check(coordinator: str | None, *, num_processes: int | None, process_id: int | None) -> None:
    given = {"--coordinator": coordinator, "--num_processes": num_processes, "--process_id": process_id}
    missing = [flag for flag, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
        raise UserError(
            f"{', '.join(flag for flag in given if flag not in missing)} needs {' and '.join(missing)} as well"
        )
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise UserError(f"--process_id must be from 0 to {num_processes - 1} (--num_processes - 1), got {process_id}")


def _detected(init_timeout: float) -> tuple[str | None, int | None, int | None, Sequence[int] | None]:
    """Return coordinator, count, number and devices of this process as the cluster says them.

    jax.distributed.initialize asks for the same by itself; it is asked here for the rendezvous that comes before.
    """
    return clusters.ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, math.ceil(init_timeout)
    )


def _entries(folder: str) -> dict[int, str]:
    """What the processes have written into a folder of the key-value store, by process."""
    client = store()
    assert client is not None, "jax has joined the processes"
    return {int(key.rsplit("/", 1)[-1]): text for key, text in client.key_value_dir_get(f"{folder}/")}
